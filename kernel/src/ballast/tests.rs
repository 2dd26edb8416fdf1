use std::cell::Cell;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use doorbell::device::Setup;
use doorbell::dma::fake::FakeDma;
use doorbell::dma::{DmaError, DmaMemory};
use doorbell::transport::DeviceStatus;
use doorbell::transport::fake::{FakeDevice, FakeTransport, Options, stepping};
use doorbell::virtio::{Features, Polls};

use super::*;

/// VIRTIO_BALLOON_F_STATS_VQ and _DEFLATE_ON_OOM (5.5.3).
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;

/// What the heap has, in bytes.
const SIZE: usize = RESERVE + 2000 * PAGE;

/// A heap of [`SIZE`], with free pieces of a certain size at most.
#[derive(Clone)]
struct Heap<'d> {
    dma: &'d FakeDma,
    free: &'d Cell<usize>,
    largest: &'d Cell<usize>,
}

// SAFETY: the fake's own promise.
unsafe impl Dma for Heap<'_> {
    fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
        if size > self.free.get().min(self.largest.get()) {
            return Err(DmaError { size, align });
        }
        let memory = self.dma.allocate(size, align)?;
        self.free.set(self.free.get() - size);
        Ok(memory)
    }

    unsafe fn free(&self, memory: DmaMemory) {
        self.free.set(self.free.get() + memory.size);
        // SAFETY: the caller's promise.
        unsafe { self.dma.free(memory) };
    }
}

impl Memory for Heap<'_> {
    fn heap_use(&self) -> HeapUse {
        HeapUse {
            size: SIZE,
            free: self.free.get(),
        }
    }
}

/// What a test needs to lend.
struct Lent {
    dma: FakeDma,
    free: Cell<usize>,
    largest: Cell<usize>,
}

impl Lent {
    fn new() -> Self {
        Self {
            dma: FakeDma::default(),
            free: Cell::new(SIZE),
            largest: Cell::new(SIZE),
        }
    }
}

struct Rig<'d> {
    lent: &'d Lent,
    device: FakeDevice<'d>,
}

impl<'d> Rig<'d> {
    fn new(lent: &'d Lent, own: u64) -> Self {
        let options = Options {
            device_type: 5,
            features: Features::VERSION_1 | Features::from_bits_retain(own),
            queues: vec![8, 8, 8],
            config: vec![0; 8],
            ..Options::default()
        };
        Self {
            lent,
            device: FakeDevice::new(&lent.dma, options),
        }
    }

    fn start(&self) -> Ballast<FakeTransport<'d>, Heap<'d>> {
        let heap = Heap {
            dma: &self.lent.dma,
            free: &self.lent.free,
            largest: &self.lent.largest,
        };
        let setup = Setup::new(8, Features::empty());
        let first = statistics(&heap, 0);
        let transport = self.device.transport();
        let balloon = Balloon::new(transport, &setup, &first, heap.clone(), &mut Polls(100));
        Ballast::new(balloon.unwrap(), heap)
    }

    fn want(&self, pages: u32) {
        self.device
            .change(|options| options.config[..4].copy_from_slice(&pages.to_le_bytes()));
    }

    /// How many pages the device was told are in the balloon.
    fn told(&self) -> u32 {
        let mut told = [0; 4];
        self.device
            .change(|options| told.copy_from_slice(&options.config[4..]));
        u32::from_le_bytes(told)
    }

    /// A wait in which the device serves both queues of pages.
    fn wait(&self) -> impl Wait {
        stepping(|| {
            self.device.process(0, |_| 0);
            self.device.process(1, |_| 0);
        })
    }

    fn follow(&self, ballast: &mut Ballast<FakeTransport<'d>, Heap<'d>>) -> Followed {
        ballast.follow(|| self.wait()).unwrap()
    }

    /// Takes the statistics that the device has: tags and values.
    fn statistics(&self) -> Vec<(u16, u64)> {
        let mut bytes = Vec::new();
        self.device.process(2, |chain| {
            bytes = chain.readable();
            0
        });
        let entry = |entry: &[u8]| {
            let (tag, value) = entry.split_at(2);
            (
                u16::from_le_bytes(tag.try_into().unwrap()),
                u64::from_le_bytes(value.try_into().unwrap()),
            )
        };
        bytes.chunks_exact(10).map(entry).collect()
    }
}

#[test]
fn the_target_is_followed_up_and_down_to_the_page() {
    let lent = Lent::new();
    let rig = Rig::new(&lent, 0);
    let mut ballast = rig.start();
    let free = lent.free.get();
    // 300 is no sum of the pieces of 700.
    for target in [700, 300, 1, 1000, 0] {
        rig.want(target);
        let followed = rig.follow(&mut ballast);
        let expected = Followed {
            target,
            actual: target,
            short: None,
        };
        assert_eq!(followed, expected);
        assert_eq!(rig.told(), target);
        assert_eq!(free - lent.free.get(), target as usize * PAGE);
    }
    assert_eq!(rig.device.violations(), Vec::<std::string::String>::new());
}

#[test]
fn a_target_above_memory_is_named_and_what_can_be_given_is() {
    let lent = Lent::new();
    let rig = Rig::new(&lent, 0);
    let mut ballast = rig.start();
    rig.want(1_000_000);
    let followed = rig.follow(&mut ballast);
    let short = followed.short.unwrap();
    let given = followed.actual;
    assert!((1900..=2000).contains(&given), "{given}");
    assert_eq!((short.target, short.given), (1_000_000, given));
    assert_eq!((short.free, rig.told()), (lent.free.get(), given));
    assert!((RESERVE..RESERVE + PAGE).contains(&short.free));
    let text = short.to_string();
    let start = "1000000 pages (3906.2 MiB) are wanted, and ";
    assert!(text.starts_with(start), "{text}");
    assert!(text.contains(&Pages(given).to_string()), "{text}");
    assert!(text.ends_with("the kernel keeps 4194304"), "{text}");
    // And it goes on.
    assert_eq!(rig.follow(&mut ballast), followed);
    rig.want(5);
    assert_eq!(rig.follow(&mut ballast).short, None);
    assert_eq!(rig.told(), 5);
}

#[test]
fn memory_in_small_pieces_is_given_too() {
    let lent = Lent::new();
    let rig = Rig::new(&lent, 0);
    let mut ballast = rig.start();
    rig.want(10);
    lent.largest.set(3 * PAGE);
    assert_eq!(rig.follow(&mut ballast).actual, 10);
    lent.largest.set(PAGE - 1);
    rig.want(20);
    let followed = rig.follow(&mut ballast);
    assert_eq!(followed.actual, 10);
    let text = followed.short.unwrap().to_string();
    assert!(text.ends_with("none are a whole page"), "{text}");
}

#[test]
fn pages_come_back_when_memory_runs_out() {
    let lent = Lent::new();
    let rig = Rig::new(&lent, DEFLATE_ON_OOM);
    let mut ballast = rig.start();
    rig.want(600);
    rig.follow(&mut ballast);
    let all = lent.free.get() + 600 * PAGE;
    assert!(!ballast.relieve(all + 1, &mut rig.wait()));
    assert_eq!((rig.told(), ballast.relieved()), (600, 0));
    assert!(ballast.relieve(all, &mut rig.wait()));
    let left = rig.told();
    assert!(left < 600);
    assert_eq!(lent.free.get(), all - left as usize * PAGE);
    assert_eq!(ballast.relieved(), u64::from(600 - left));
    while ballast.relieve(1, &mut rig.wait()) {}
    assert_eq!((rig.told(), ballast.relieved()), (0, 600));
    assert_eq!(lent.free.get(), all);
}

#[test]
fn pages_stay_where_the_device_does_not_say_that_they_may_come_back() {
    let lent = Lent::new();
    let rig = Rig::new(&lent, 0);
    let mut ballast = rig.start();
    rig.want(600);
    rig.follow(&mut ballast);
    assert!(!ballast.relieve(PAGE, &mut rig.wait()));
    assert_eq!((rig.told(), ballast.relieved()), (600, 0));
}

#[test]
fn memory_is_reported_as_it_stands_when_asked() {
    let lent = Lent::new();
    let rig = Rig::new(&lent, STATS_VQ);
    let mut ballast = rig.start();
    let memory = |free: usize, ballooned: usize| {
        let (free, total) = (free as u64, (SIZE - ballooned * PAGE) as u64);
        vec![(4, free), (5, total), (6, free)]
    };
    assert_eq!(rig.statistics(), memory(SIZE, 0));
    rig.want(100);
    rig.follow(&mut ballast);
    ballast.report().unwrap();
    assert_eq!(rig.statistics(), memory(lent.free.get(), 100));
    ballast.report().unwrap();
    ballast.report().unwrap();
}

#[test]
fn dropped_it_resets_the_device_and_all_pages_are_the_kernels() {
    let lent = Lent::new();
    let rig = Rig::new(&lent, STATS_VQ);
    let mut ballast = rig.start();
    rig.want(700);
    rig.follow(&mut ballast);
    drop(ballast);
    assert_eq!(rig.device.status(), DeviceStatus::empty());
    assert_eq!((lent.free.get(), lent.dma.live()), (SIZE, 0));
}

#[test]
fn a_device_that_does_not_answer_is_given_up() {
    let lent = Lent::new();
    let rig = Rig::new(&lent, DEFLATE_ON_OOM);
    let mut ballast = rig.start();
    rig.want(700);
    rig.follow(&mut ballast);
    assert!(!ballast.relieve(PAGE, &mut Polls(10)));
    assert!(ballast.follow(|| Polls(10)).is_err());
    drop(ballast);
    assert_eq!((lent.free.get(), lent.dma.live()), (SIZE, 0));
}
