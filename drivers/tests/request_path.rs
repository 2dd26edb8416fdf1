//! What a request costs beside the device's own time: no allocation, no copy, one
//! doorbell a batch, and full barriers where the specification asks for one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use doorbell::device::blk::{Blk, Request, SECTOR};
use doorbell::device::net::{Frame, HEADROOM, Net};
use doorbell::device::{Driver, Setup};
use doorbell::dma::DmaRegion;
use doorbell::dma::fake::FakeDma;
use doorbell::queue::full_barriers;
use doorbell::transport::fake::{FakeDevice, Options};
use doorbell::virtio::{Features, Polls};

/// The host's allocator, which nobody may use while it is shut.
struct Shut;

thread_local! {
    static SHUT: Cell<bool> = const { Cell::new(false) };
}

impl Shut {
    /// Ends the test that allocates, or frees, while it is shut. An allocator may not
    /// unwind.
    fn check(what: &str, layout: Layout) {
        if SHUT.replace(false) {
            eprintln!("the request path {what} {} bytes", layout.size());
            std::process::abort();
        }
    }
}

// SAFETY: it is the system's allocator.
unsafe impl GlobalAlloc for Shut {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::check("allocates", layout);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        Self::check("frees", layout);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Shut = Shut;

/// Runs `work` without an allocator; says how many full barriers it took.
fn shut<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let before = full_barriers();
    SHUT.set(true);
    let result = work();
    SHUT.set(false);
    (result, full_barriers() - before)
}

/// Requests in a batch.
const BATCH: usize = 8;

/// What is negotiated, and how many full barriers a request that comes back then
/// takes, with interrupts asked for: with EVENT_IDX one between the event that is
/// written and the next look at the ring (2.7.7.1, 2.8.22).
const RINGS: [(Features, u64); 6] = [
    (Features::empty(), 0),
    (Features::INDIRECT_DESC, 0),
    (Features::EVENT_IDX, 1),
    (Features::RING_PACKED, 0),
    (Features::RING_PACKED.union(Features::INDIRECT_DESC), 0),
    (Features::RING_PACKED.union(Features::EVENT_IDX), 1),
];

fn device<'d>(dma: &'d FakeDma, ring: Features, options: Options) -> FakeDevice<'d> {
    let features = options.features | Features::VERSION_1 | ring;
    FakeDevice::new(
        dma,
        Options {
            features,
            ..options
        },
    )
}

#[test]
fn a_batch_of_reads_takes_one_doorbell_and_one_barrier_and_no_memory() {
    for (ring, barriers) in RINGS {
        for interrupts in [false, true] {
            let dma = FakeDma::default();
            let device = device(
                &dma,
                ring,
                Options {
                    device_type: 2,
                    queues: [64].into(),
                    config: [1, 0, 0, 0, 0, 0, 0, 0].repeat(8),
                    ..Options::default()
                },
            );
            let setup = Setup::new(64, ring);
            let mut blk = Blk::new(device.transport(), &setup, &dma, &mut Polls(100)).unwrap();
            assert_eq!(blk.features() & ring, ring);
            blk.set_interrupts(interrupts);
            let mut buffers: [_; BATCH] =
                std::array::from_fn(|_| Some(DmaRegion::new(&dma, SECTOR, SECTOR).unwrap()));
            for round in 1..=3 {
                let addresses = buffers
                    .each_ref()
                    .map(|buffer| buffer.as_ref().unwrap().address());
                let ((), submitting) = shut(|| {
                    for buffer in &mut buffers {
                        let buffer = buffer.take().unwrap();
                        assert!(blk.submit(Request::Read { sector: 0, buffer }).is_ok());
                    }
                });
                let (rang, kicking) = shut(|| blk.queue(0).kick());
                assert_eq!((submitting, kicking), (0, 1), "{ring:?}");
                assert!(rang);
                assert_eq!(blk.queue(0).doorbells(), round);

                // It serves what was rung for.
                let mut seen = Vec::new();
                let served = device.process(0, |chain| {
                    seen.push(chain.buffers()[1].address);
                    chain.write(SECTOR, &[0]);
                    SECTOR as u32 + 1
                });
                assert_eq!(served, BATCH);
                assert_eq!(
                    seen, addresses,
                    "the device reads into the caller's own memory"
                );

                let ((), reaping) = shut(|| {
                    for buffer in &mut buffers {
                        let done = blk.poll().unwrap().unwrap();
                        assert!(done.result.is_ok());
                        *buffer = done.request.into_buffer();
                    }
                    assert!(blk.poll().unwrap().is_none());
                });
                let expected = if interrupts {
                    barriers * BATCH as u64
                } else {
                    0
                };
                assert_eq!(reaping, expected, "{ring:?}, interrupts {interrupts}");
            }
        }
    }
}

#[test]
fn a_batch_of_frames_takes_one_doorbell_and_one_barrier_and_no_memory() {
    for (ring, _) in RINGS {
        let dma = FakeDma::default();
        let device = device(
            &dma,
            ring,
            Options {
                device_type: 1,
                queues: [64; 2].into(),
                config: vec![0; 24],
                ..Options::default()
            },
        );
        let setup = Setup::new(64, ring);
        let mut net = Net::new(device.transport(), &setup, &dma, &mut Polls(100)).unwrap();
        let mut frames: [_; BATCH] = std::array::from_fn(|_| Some(Frame::new(&dma, 60).unwrap()));
        let queue = net.transmit_queue(0);
        for round in 1..=3 {
            let ((), submitting) = shut(|| {
                for frame in &mut frames {
                    assert!(net.submit_transmit(0, frame.take().unwrap()).is_ok());
                }
            });
            let (rang, kicking) = shut(|| net.queue(queue).kick());
            assert_eq!((submitting, kicking), (0, 1), "{ring:?}");
            assert!(rang);
            assert_eq!(net.queue(queue).doorbells(), round);
            let served = device.process(1, |chain| {
                let [buffer] = chain.buffers() else {
                    panic!("a frame is one buffer, its header before it")
                };
                assert_eq!(buffer.len as usize, HEADROOM + 60);
                0
            });
            assert_eq!(served, BATCH);
            let ((), reaping) = shut(|| {
                for frame in &mut frames {
                    *frame = Some(net.poll_transmit(0).unwrap().unwrap().frame);
                }
                assert!(net.poll_transmit(0).unwrap().is_none());
            });
            assert_eq!(reaping, 0);
        }
    }
}
