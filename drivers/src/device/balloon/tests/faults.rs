//! Pages that no balloon takes, devices that fail, and where the pages are then.

use core::cell::Cell;
use std::collections::BTreeMap;

use super::*;
use crate::dma::{DmaError, DmaMemory};
use crate::queue::SetupError;
use crate::transport::TransportError;
use crate::transport::fake::Lie;

/// Memory that a device sees somewhere else.
struct Moved<'d> {
    dma: &'d FakeDma,
    /// Where it sees what is allocated next.
    to: Cell<Option<u64>>,
    /// Where what was moved is by the allocator's account.
    from: RefCell<BTreeMap<u64, u64>>,
}

// SAFETY: the memory is another allocator's; nobody accesses what is moved.
unsafe impl Dma for &Moved<'_> {
    fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
        let mut memory = self.dma.allocate(size, align)?;
        if let Some(to) = self.to.get() {
            self.from.borrow_mut().insert(to, memory.address);
            memory.address = to;
        }
        Ok(memory)
    }

    unsafe fn free(&self, mut memory: DmaMemory) {
        if let Some(from) = self.from.borrow_mut().remove(&memory.address) {
            memory.address = from;
        }
        // SAFETY: the caller's promise, and the address is as it was.
        unsafe { self.dma.free(memory) }
    }
}

#[test]
fn pages_that_have_no_number() {
    /// The last page that has one.
    const LAST: u64 = 0xffff_ffff * 4096;
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let moved = Moved {
        dma: &dma,
        to: Cell::new(None),
        from: RefCell::default(),
    };
    let transport = rig.device.transport();
    let setup = Setup::new(8, RING);
    let mut balloon =
        Balloon::new(transport, &setup, NO_STATISTICS, &moved, &mut Polls(1)).unwrap();
    for (address, count, fits) in [
        (0, 2, true),
        (LAST - 4096, 2, true),
        (LAST, 1, true),
        (LAST, 2, false),
        (LAST + 4096, 1, false),
        (1 << 63, 1, false),
    ] {
        moved.to.set(Some(address));
        let pages = DmaRegion::new(&moved, count * PAGE, PAGE).unwrap();
        if fits {
            assert_eq!(pages::check(&pages), Ok(()));
            continue;
        }
        let (error, pages) = balloon.submit_inflate(pages).unwrap_err();
        assert_eq!(error, DeviceError::PageAddress { address });
        assert_eq!(pages.address(), address);
    }
    assert!(rig.device.take(0).is_none());
    drop(balloon);
    assert_eq!(dma.live(), 0);
}

#[test]
fn pages_that_are_not_whole() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    for len in [1, PAGE - 1, PAGE + 512, (MAX_PAGES + 1) * PAGE] {
        let pages = DmaRegion::new(&dma, len, PAGE).unwrap();
        let (error, pages) = balloon.submit_inflate(pages).unwrap_err();
        let wrong = DeviceError::BufferLength {
            len,
            multiple: PAGE,
            max: MAX_PAGES * PAGE,
        };
        assert_eq!((error, pages.len()), (wrong, len));
    }
    let pages = loop {
        let pages = DmaRegion::new(&dma, PAGE, 512).unwrap();
        if !pages.address().is_multiple_of(PAGE as u64) {
            break pages;
        }
    };
    let address = pages.address();
    let (error, pages) = balloon.inflate(pages, &mut rig.wait()).unwrap_err();
    assert_eq!(error, DeviceError::PageAddress { address });
    assert_eq!(pages.unwrap().address(), address);
    assert!(rig.device.take(0).is_none());
}

#[test]
fn pages_in_another_balloon_stay_there() {
    let dma = FakeDma::default();
    let (rig, other) = (
        Rig::new(&dma, MODERN, |_| ()),
        Rig::new(&dma, MODERN, |_| ()),
    );
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    let mut another = other.start(NO_STATISTICS).unwrap();
    let ballooned = balloon.inflate(rig.pages(1), &mut rig.wait()).unwrap();
    let address = ballooned.address();
    let (error, ballooned) = another.submit_deflate(ballooned).unwrap_err();
    assert_eq!(error, DeviceError::ForeignPages { address });
    assert!(other.device.take(1).is_none());
    assert!(another.close());
    let ballooned = another.reclaim(ballooned).unwrap_err();
    drop(balloon.deflate(ballooned, &mut rig.wait()).unwrap());
    assert_eq!(balloon.actual(), 0);
}

#[test]
fn pages_that_are_dropped_stay_in_the_balloon() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    let ballooned = balloon.inflate(rig.pages(2), &mut rig.wait()).unwrap();
    let address = ballooned.address();
    drop((ballooned, balloon));
    assert!(dma.is_shared(address, 2 * PAGE), "nobody else gets them");
    assert_eq!(dma.live(), 1);
}

#[test]
fn pages_are_reclaimed_after_the_reset_and_not_before() {
    for unplugged in [false, true] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, MODERN, |_| ());
        let mut balloon = rig.start(NO_STATISTICS).unwrap();
        let ballooned = balloon.inflate(rig.pages(2), &mut rig.wait()).unwrap();
        let address = ballooned.address();
        let ballooned = balloon.reclaim(ballooned).unwrap_err();
        // Some in flight, too.
        let going = balloon.inflate(rig.pages(3), &mut rig.wait()).unwrap();
        let out = balloon.submit_deflate(going).unwrap();
        let into = balloon.submit_inflate(rig.pages(4)).unwrap();
        assert_eq!(balloon.actual(), 5);
        if unplugged {
            rig.device.unplug();
            assert!(!balloon.close());
            let ballooned = balloon.reclaim(ballooned).unwrap_err();
            // SAFETY: a fake that was unplugged accesses nothing.
            unsafe { balloon.unplugged() };
            drop(balloon.reclaim(ballooned).unwrap());
        } else {
            assert!(balloon.close());
            let broken = DeviceError::Queue(QueueError::Broken);
            let (error, ballooned) = balloon.submit_deflate(ballooned).unwrap_err();
            assert_eq!(error, broken);
            let pages = balloon.reclaim(ballooned).unwrap();
            assert_eq!((pages.address(), pages.len()), (address, 2 * PAGE));
            assert_eq!(balloon.target(), Err(broken));
        }
        assert_eq!(balloon.actual(), 0);
        let done = balloon.poll_inflate().unwrap().unwrap();
        let (error, pages) = done.result.unwrap_err();
        assert_eq!((done.token, error), (into, DeviceError::Aborted));
        assert_eq!(pages.len(), 4 * PAGE);
        let done = balloon.poll_deflate().unwrap().unwrap();
        assert_eq!((done.token, done.result), (out, Err(DeviceError::Aborted)));
        assert_eq!(done.pages.len(), 3 * PAGE);
        let error = balloon.poll_inflate().unwrap_err();
        assert_eq!(error, QueueError::Broken.into());
        drop((pages, done, balloon));
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn a_device_that_does_not_answer_is_given_up_and_the_pages_come_back() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    let ballooned = balloon.inflate(rig.pages(2), &mut rig.wait()).unwrap();
    rig.device.change(|options| options.lie = Some(Lie::Silent));
    let (error, none) = balloon.deflate(ballooned, &mut rig.wait()).unwrap_err();
    assert_eq!(error, DeviceError::Timeout);
    assert!(none.is_none());
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    let back = balloon.poll_deflate().unwrap().unwrap();
    assert_eq!(back.result, Err(DeviceError::Aborted));
    let (error, pages) = balloon.inflate(back.pages, &mut rig.wait()).unwrap_err();
    assert_eq!(error, QueueError::Broken.into());
    drop((pages, balloon));
    assert_eq!(dma.live(), 0);

    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    let (error, none) = balloon.inflate(rig.pages(1), &mut rig.wait()).unwrap_err();
    assert_eq!((error, none.is_none()), (DeviceError::Timeout, true));
    assert_eq!(balloon.actual(), 0);
    let (error, _) = balloon.poll_inflate().unwrap().unwrap().result.unwrap_err();
    assert_eq!(error, DeviceError::Aborted);
    drop(balloon);
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_device_that_lies_is_given_up() {
    let queue = DeviceError::Queue;
    for (lie, expected) in [
        (Lie::Id(8), queue(QueueError::UsedId { id: 8 })),
        (Lie::Replay, queue(QueueError::UsedId { id: 0 })),
        (
            Lie::Longer(4),
            queue(QueueError::UsedLength {
                written: 4,
                writable: 0,
            }),
        ),
        (
            Lie::IndexAhead(4),
            queue(QueueError::UsedIndex {
                index: 4,
                seen: 0,
                in_flight: 2,
            }),
        ),
    ] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, MODERN, |options| options.lie = Some(lie));
        let mut balloon = rig.start(NO_STATISTICS).unwrap();
        balloon.submit_inflate(rig.pages(1)).unwrap();
        balloon.submit_inflate(rig.pages(2)).unwrap();
        let chain = rig.device.take(0).unwrap();
        rig.host.borrow_mut().serve(INFLATEQ, &chain);
        rig.device.finish(0, &chain, 0);
        let mut acknowledged = Vec::new();
        let error = loop {
            match balloon.poll_inflate() {
                Ok(done) => acknowledged.push(done.unwrap().result.unwrap()),
                Err(error) => break error,
            }
        };
        assert_eq!(error, expected);
        assert_eq!(rig.device.status(), DeviceStatus::FAILED);
        let in_flight = 2 - acknowledged.len();
        for ballooned in acknowledged {
            drop(balloon.reclaim(ballooned).unwrap());
        }
        for _ in 0..in_flight {
            let (error, _) = balloon.poll_inflate().unwrap().unwrap().result.unwrap_err();
            assert_eq!(error, DeviceError::Aborted);
        }
        assert_eq!(
            balloon.poll_inflate().unwrap_err(),
            QueueError::Broken.into()
        );
        drop(balloon);
        assert_eq!(dma.live(), 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "100,000 looks at the status take minutes")]
fn memory_of_a_device_that_does_not_reset_is_never_freed() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    let ballooned = balloon.inflate(rig.pages(2), &mut rig.wait()).unwrap();
    let pages = rig.pages(1);
    let (held, going) = (ballooned.address(), pages.address());
    balloon.submit_inflate(pages).unwrap();
    let chain = rig.device.take(0).unwrap();
    rig.device.change(|options| options.reset_reads = u32::MAX);
    assert!(!balloon.close());
    let ballooned = balloon.reclaim(ballooned).unwrap_err();
    assert_eq!(
        balloon.poll_inflate().unwrap_err(),
        QueueError::Broken.into()
    );
    drop((ballooned, balloon));
    // It may go on reading for ever.
    assert_eq!(rig.host.borrow_mut().serve(INFLATEQ, &chain), 0);
    assert!(dma.is_shared(held, 2 * PAGE) && dma.is_shared(going, PAGE));
}

#[test]
fn a_device_that_cannot_be_told_any_more_is_given_up() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut balloon = rig.start(NO_STATISTICS).unwrap();
    rig.device.change(|options| options.config.truncate(6));
    let ballooned = balloon.inflate(rig.pages(1), &mut rig.wait()).unwrap();
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    drop(balloon.reclaim(ballooned).unwrap());
}

#[test]
fn another_device_is_left_alone() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |options| options.device_type = 4);
    let error = DeviceError::WrongType {
        expected: 5,
        found: 4,
    };
    assert_eq!(rig.start(NO_STATISTICS).unwrap_err(), error);
    assert_eq!(rig.device.events(), []);
}

#[test]
fn a_device_that_does_not_come_up_is_given_up() {
    let dma = FakeDma::default();
    for (len, offset) in [(3, 0), (7, 4)] {
        let rig = Rig::new(&dma, MODERN, |options| options.config.truncate(len));
        let error = TransportError::ConfigRange {
            offset,
            len: 4,
            available: len,
        };
        assert_eq!(rig.start(NO_STATISTICS).unwrap_err(), error.into());
        assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    }
    let rig = Rig::new(&dma, MODERN, |options| options.queues.truncate(1));
    let error = TransportError::NoQueue { queue: 1 };
    assert_eq!(rig.start(NO_STATISTICS).unwrap_err(), error.into());
    assert_eq!(dma.live(), 0);
}

#[test]
fn without_memory_a_device_does_not_come_up_and_nothing_leaks() {
    let statistics = [Statistic {
        tag: Tag::Memfree,
        value: 1,
    }];
    let mut failures = 0;
    for budget in (0..24 * 1024).step_by(512) {
        let dma = FakeDma::with_budget(budget);
        let rig = Rig::new(&dma, MODERN | STATS_VQ | RING, |_| ());
        if let Err(error) = rig.start(&statistics) {
            let named = matches!(
                error,
                DeviceError::Dma(_) | DeviceError::Setup(SetupError::Dma(_))
            );
            assert!(named, "{error}");
            assert_eq!(rig.device.status(), DeviceStatus::FAILED);
            failures += 1;
        }
        assert_eq!(dma.live(), 0, "with {budget} bytes");
    }
    assert!((1..45).contains(&failures), "{failures}");
}
