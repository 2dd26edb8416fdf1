use std::cell::RefCell;
use std::vec::Vec;

use super::host::{DEFLATE_ON_OOM, Host, MUST_TELL_HOST, STATS_VQ};
use super::*;
use crate::device::Driver as _;
use crate::dma::fake::FakeDma;
use crate::queue::QueueError;
use crate::transport::fake::{Chain, Event, FakeDevice, FakeTransport, Options, stepping};
use crate::transport::{DeviceStatus, RingLayout};
use crate::virtio::Polls;

mod faults;
mod reports;

const MODERN: Features = Features::VERSION_1.union(MUST_TELL_HOST);
const RING: Features = Features::INDIRECT_DESC.union(Features::EVENT_IDX);

const NO_STATISTICS: &[Statistic] = &[];

type FakeBalloon<'d> = Balloon<FakeTransport<'d>, &'d FakeDma>;

struct Rig<'d> {
    dma: &'d FakeDma,
    device: FakeDevice<'d>,
    host: RefCell<Host<'d>>,
}

impl<'d> Rig<'d> {
    fn new(dma: &'d FakeDma, features: Features, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Host::options(features, 300);
        change(&mut options);
        Self {
            dma,
            device: FakeDevice::new(dma, options),
            host: RefCell::new(Host::new(dma)),
        }
    }

    fn start(&self, statistics: &[Statistic]) -> Result<FakeBalloon<'d>, DeviceError> {
        Balloon::new(
            self.device.transport(),
            &Setup::new(8, RING | Features::RING_RESET),
            statistics,
            self.dma,
            &mut Polls(100),
        )
    }

    /// The device's turn: how many requests it served on a queue.
    fn run(&self, queue: usize) -> usize {
        self.device.process(queue as u16, |chain| {
            self.host.borrow_mut().serve(queue, chain)
        })
    }

    fn wait(&self) -> impl Wait {
        stepping(|| {
            self.run(INFLATEQ);
            self.run(DEFLATEQ);
        })
    }

    fn pages(&self, count: usize) -> DmaRegion<&'d FakeDma> {
        DmaRegion::new(self.dma, count * PAGE, PAGE).unwrap()
    }

    /// What the device was told last.
    fn told(&self) -> u32 {
        let mut told = [0; 4];
        self.device
            .change(|options| told.copy_from_slice(&options.config[4..8]));
        u32::from_le_bytes(told)
    }
}

fn legacy(options: &mut Options) {
    options.layout = RingLayout::Contiguous { align: 4096 };
    options.features.remove(Features::VERSION_1);
}

fn numbers(address: u64, count: u32) -> impl Iterator<Item = u32> {
    let first = (address / 4096) as u32;
    first..first + count
}

#[test]
fn pages_go_into_the_balloon_and_come_out_again() {
    for own in [Features::empty(), MUST_TELL_HOST] {
        for ring in [Features::empty(), RING] {
            for (is_legacy, reports_reads) in [(false, false), (true, false), (true, true)] {
                let dma = FakeDma::default();
                let rig = Rig::new(&dma, Features::VERSION_1 | own | ring, |options| {
                    if is_legacy {
                        legacy(options);
                    }
                });
                rig.host.borrow_mut().reports_reads = reports_reads;
                let mut balloon = rig.start(NO_STATISTICS).unwrap();
                assert_eq!(balloon.target(), Ok(300));
                assert_eq!(balloon.actual(), 0);
                let large = rig.pages(MAX_PAGES);
                let (first, len) = (large.address(), large.len());
                let large = balloon.inflate(large, &mut rig.wait()).unwrap();
                assert_eq!((large.address(), large.pages()), (first, 256));
                assert_eq!((balloon.actual(), rig.told()), (256, 256));
                let small = balloon.inflate(rig.pages(1), &mut rig.wait()).unwrap();
                assert_eq!((balloon.actual(), rig.told()), (257, 257));
                let expected = numbers(first, 256).chain(numbers(small.address(), 1));
                assert_eq!(rig.host.borrow().ballooned, expected.collect());
                let pages = balloon.deflate(large, &mut rig.wait()).unwrap();
                assert_eq!((pages.address(), pages.len()), (first, len));
                assert_eq!((balloon.actual(), rig.told()), (1, 1));
                let rest = numbers(small.address(), 1).collect();
                assert_eq!(rig.host.borrow().ballooned, rest);
                drop(pages);
                drop(balloon.deflate(small, &mut rig.wait()).unwrap());
                assert_eq!((balloon.actual(), rig.told()), (0, 0));
                drop(balloon);
                assert_eq!(rig.device.status(), DeviceStatus::empty());
                assert_eq!(dma.live(), 0);
            }
        }
    }
}

#[test]
fn what_is_negotiated() {
    // Free page hints, page poisoning and page reporting are offered, too.
    let dma = FakeDma::default();
    let own = MUST_TELL_HOST | STATS_VQ | DEFLATE_ON_OOM;
    let offered = Features::from_bits_retain(0x3f) | Features::VERSION_1 | Features::RING_RESET;
    let rig = Rig::new(&dma, offered, |_| ());
    let statistic = Statistic {
        tag: Tag::Memfree,
        value: 1,
    };
    for (statistics, expected, queues) in [
        (&[statistic][..], own, 3),
        (NO_STATISTICS, own.difference(STATS_VQ), 2),
    ] {
        let balloon = rig.start(statistics).unwrap();
        assert_eq!(balloon.features(), expected | Features::VERSION_1);
        assert_eq!(balloon.queues(), queues);
        assert!(balloon.may_deflate_on_oom());
        assert_eq!(rig.device.rang(2), queues == 3, "first statistics");
    }
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    let error = balloon.reset_queue(0, &mut Polls(1));
    assert_eq!(error, Err(DeviceError::Unsupported));
    let rig = Rig::new(&dma, MODERN, |_| ());
    assert!(!rig.start(NO_STATISTICS).unwrap().may_deflate_on_oom());
}

#[test]
fn a_balloon_starts_empty_whatever_an_earlier_driver_left() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |options| options.config[4] = 7);
    let balloon = rig.start(NO_STATISTICS).unwrap();
    assert_eq!((balloon.actual(), rig.told()), (0, 0));
}

#[test]
fn a_target_that_changes() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    for target in [0, 0x0102_0304, u32::MAX] {
        rig.device
            .change(|options| options.config[..4].copy_from_slice(&target.to_le_bytes()));
        assert_eq!(balloon.target(), Ok(target));
    }
    rig.device.change(|options| options.gone = true);
    assert_eq!(balloon.target(), Err(DeviceError::Gone));
}

#[test]
fn many_requests_are_acknowledged_in_any_order() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | RING, |_| ());
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    let mut submitted = Vec::new();
    for count in 1..=8 {
        let pages = rig.pages(count);
        let address = pages.address();
        let token = balloon.submit_inflate(pages).unwrap();
        submitted.push((token, address, count as u32));
    }
    let (error, pages) = balloon.submit_inflate(rig.pages(2)).unwrap_err();
    let full = QueueError::Full { needed: 1, free: 0 };
    assert_eq!((error, pages.len()), (full.into(), 2 * PAGE));
    let busy = DeviceError::Busy { in_flight: 8 };
    let (error, pages) = balloon.inflate(pages, &mut rig.wait()).unwrap_err();
    assert_eq!(
        (error, pages.map(|pages| pages.len())),
        (busy, Some(2 * PAGE))
    );
    assert_eq!(balloon.actual(), 0, "the device has acknowledged none");
    assert!(balloon.poll_inflate().unwrap().is_none());

    let mut order: Vec<Chain> = core::iter::from_fn(|| rig.device.take(0)).collect();
    order.rotate_left(3);
    let mut held = Vec::new();
    let mut total = 0;
    for chain in order {
        let written = rig.host.borrow_mut().serve(INFLATEQ, &chain);
        rig.device.finish(0, &chain, written);
        let done = balloon.poll_inflate().unwrap().unwrap();
        let ballooned = done.result.unwrap();
        let named = (done.token, ballooned.address(), ballooned.pages());
        let at = submitted.iter().position(|&it| it == named).unwrap();
        submitted.swap_remove(at);
        total += ballooned.pages();
        assert_eq!((balloon.actual(), rig.told()), (total, total));
        held.push(ballooned);
    }
    assert_eq!(total, 36);

    // And out again, all at once.
    let mut tokens: Vec<Token> = Vec::new();
    for ballooned in held {
        tokens.push(balloon.submit_deflate(ballooned).unwrap());
    }
    assert_eq!(balloon.actual(), 36);
    assert!(balloon.queue(DEFLATEQ).kick());
    assert_eq!(rig.run(DEFLATEQ), 8);
    while let Some(done) = balloon.poll_deflate().unwrap() {
        assert_eq!(done.result, Ok(()));
        tokens.retain(|&token| token != done.token);
        total -= (done.pages.len() / PAGE) as u32;
        assert_eq!((balloon.actual(), rig.told()), (total, total));
    }
    assert_eq!((total, tokens.len()), (0, 0));
    assert!(rig.host.borrow().ballooned.is_empty());
    drop(balloon);
    assert_eq!(dma.live(), 0);
}

#[test]
fn both_queues_are_busy_at_once() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    let first = balloon.inflate(rig.pages(3), &mut rig.wait()).unwrap();
    let pages = rig.pages(5);
    let (out, into) = (first.address(), pages.address());
    let waits = balloon.inflate(rig.pages(1), &mut rig.wait()).unwrap();
    // The same token on both.
    balloon.submit_inflate(pages).unwrap();
    balloon.submit_deflate(first).unwrap();
    let (error, waits) = balloon.deflate(waits, &mut rig.wait()).unwrap_err();
    assert_eq!(error, DeviceError::Busy { in_flight: 1 });
    let waits = waits.unwrap();
    for queue in [DEFLATEQ, INFLATEQ] {
        balloon.queue(queue).kick();
        assert_eq!(rig.run(queue), 1);
    }
    let expected = numbers(into, 5).chain(numbers(waits.address(), 1));
    assert_eq!(rig.host.borrow().ballooned, expected.collect());
    let second = balloon.poll_inflate().unwrap().unwrap().result.unwrap();
    assert_eq!((second.address(), balloon.actual()), (into, 9));
    let back = balloon.poll_deflate().unwrap().unwrap();
    assert_eq!((back.pages.address(), balloon.actual()), (out, 6));
    for ballooned in [second, waits] {
        drop(balloon.deflate(ballooned, &mut rig.wait()).unwrap());
    }
}

#[test]
fn the_last_words_are_actuals_and_whole() {
    // 5.5.6.2.1: four bytes, at once.
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, legacy);
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    let before = rig.device.events().len();
    let ballooned = balloon.inflate(rig.pages(1), &mut rig.wait()).unwrap();
    assert_eq!(rig.device.events()[before..], [Event::WriteConfig(4)]);
    drop(balloon.deflate(ballooned, &mut rig.wait()).unwrap());
    assert_eq!(
        rig.device.events()[before..],
        [Event::WriteConfig(4), Event::WriteConfig(4)]
    );
}

#[test]
fn a_driver_may_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Balloon<crate::transport::mmio::Mmio, &FakeDma>>();
    is_send::<Ballooned<&FakeDma>>();
}
