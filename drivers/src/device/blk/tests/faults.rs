//! Devices that fail, and what is left of the driver then.

use super::*;

#[test]
fn another_device_is_left_alone() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |options| options.device_type = 4);
    let error = DeviceError::WrongType {
        expected: 2,
        found: 4,
    };
    assert_eq!(rig.start().unwrap_err(), error);
    assert_eq!(rig.device.events(), []);
}

#[test]
fn a_device_that_does_not_come_up_is_given_up() {
    let dma = FakeDma::default();
    let no_queue = SetupError::Transport(TransportError::NoQueue { queue: 0 });
    let rig = Rig::new(&dma, MODERN, |options| options.queues[0] = 0);
    let error = rig.start().unwrap_err();
    assert!(
        matches!(
            error,
            DeviceError::Transport(TransportError::NoQueue { queue: 0 })
        ) || error == DeviceError::Setup(no_queue)
    );
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);

    let rig = Rig::new(&dma, MODERN, |options| options.refuse_features = true);
    let refused = TransportError::FeaturesRefused { features: MODERN };
    let error = DeviceError::Init(InitError::Transport(refused));
    assert_eq!(rig.start().unwrap_err(), error);
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    assert_eq!(dma.live(), 0);
}

#[test]
fn without_memory_a_device_does_not_come_up_and_nothing_leaks() {
    let mut failures = 0;
    for budget in (0..16384).step_by(256) {
        let dma = FakeDma::with_budget(budget);
        let rig = Rig::new(&dma, MODERN | RING, |_| ());
        match rig.start() {
            Ok(mut blk) => {
                let mut large = vec![0; 32 * SECTOR];
                let error = DmaError {
                    size: 32 * SECTOR,
                    align: SECTOR,
                };
                let result = blk.read(0, &mut large, &mut rig.wait());
                assert_eq!(result, Err(DeviceError::Dma(error)));
            }
            Err(error) => {
                let named = matches!(
                    error,
                    DeviceError::Dma(_) | DeviceError::Setup(SetupError::Dma(_))
                );
                assert!(named, "{error}");
                assert_eq!(rig.device.status(), DeviceStatus::FAILED);
                failures += 1;
            }
        }
        assert_eq!(dma.live(), 0, "with {budget} bytes");
    }
    assert!((1..60).contains(&failures), "{failures}");
}

#[test]
fn a_request_that_fails() {
    // 5.2.6: VIRTIO_BLK_S_IOERR and VIRTIO_BLK_S_UNSUPP.
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut blk = rig.start().unwrap();
    for (status, error) in [(IOERR, DeviceError::Io), (UNSUPP, DeviceError::Unsupported)] {
        rig.disk.borrow_mut().status = status;
        assert_eq!(blk.read(0, &mut [0; SECTOR], &mut rig.wait()), Err(error));
    }
    rig.disk.borrow_mut().status = 0;
    blk.read(0, &mut [0; SECTOR], &mut rig.wait()).unwrap();
}

#[test]
fn a_device_whose_answer_makes_no_sense_is_given_up() {
    // A status that 5.2.6 does not have, and the one that the driver put there:
    // then none was written.
    for status in [3, 0xff] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, MODERN, |_| ());
        let mut blk = rig.start().unwrap();
        rig.disk.borrow_mut().status = status;
        let error = DeviceError::BadAnswer {
            status,
            written: 513,
        };
        assert_eq!(blk.read(0, &mut [0; SECTOR], &mut rig.wait()), Err(error));
        assert_eq!(rig.device.status(), DeviceStatus::FAILED);
        let broken = Err(DeviceError::Queue(QueueError::Broken));
        assert_eq!(blk.read(0, &mut [0; SECTOR], &mut rig.wait()), broken);
    }
}

#[test]
fn a_status_of_an_earlier_request_is_not_taken_for_this_ones() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut blk = rig.start().unwrap();
    blk.flush(&mut rig.wait()).unwrap();
    blk.submit(Request::Flush).unwrap();
    let chain = rig.device.take(0).unwrap();
    // The device writes no status.
    rig.device.finish(0, &chain, 1);
    let error = DeviceError::BadAnswer {
        status: 0xff,
        written: 1,
    };
    assert_eq!(blk.poll().unwrap().unwrap().result, Err(error));
}

#[test]
fn a_short_read_is_no_success() {
    // 2.7.8.3: what is behind the reported length is not the device's answer.
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut blk = rig.start().unwrap();
    rig.disk.borrow_mut().short = 1;
    let error = DeviceError::BadAnswer {
        status: 0,
        written: 512,
    };
    assert_eq!(blk.read(0, &mut [0; SECTOR], &mut rig.wait()), Err(error));
    drop(blk);
    let mut blk = rig.start().unwrap();
    let error = DeviceError::BadAnswer {
        status: 0,
        written: 0,
    };
    assert_eq!(blk.flush(&mut rig.wait()), Err(error));
}

#[test]
fn the_length_that_a_legacy_device_reports_is_ignored() {
    // 5.2.6.3: some report the whole request's, or less.
    let dma = FakeDma::default();
    for lie in [None, Some(Lie::Longer(16))] {
        let rig = Rig::new(&dma, FLUSH, legacy);
        let mut blk = rig.start().unwrap();
        rig.device.change(|options| options.lie = lie);
        rig.disk.borrow_mut().short = u32::from(lie.is_none());
        let mut sector = [0; SECTOR];
        blk.read(9, &mut sector, &mut rig.wait()).unwrap();
        assert_eq!(sector, [9; SECTOR]);
        blk.write(9, &[1; SECTOR], &mut rig.wait()).unwrap();
        blk.flush(&mut rig.wait()).unwrap();
    }
}

/// What comes back of a device that was given up: the numbers of the requests,
/// each of which was aborted.
fn aborted(blk: &mut super::FakeBlk<'_>) -> Vec<usize> {
    let broken = DeviceError::Queue(QueueError::Broken);
    let mut tokens = Vec::new();
    loop {
        match blk.poll() {
            Ok(done) => {
                let done = done.expect("an error says that these are all");
                assert_eq!(done.result, Err(DeviceError::Aborted));
                tokens.push(done.token.index());
            }
            Err(error) => {
                assert_eq!(error, broken);
                return tokens;
            }
        }
    }
}

/// After `lie` the device has been reset and marked, what it had comes back, and
/// its memory is free.
fn after(lie: Lie, expected: DeviceError) {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut blk = rig.start().unwrap();
    // Another one stays in flight.
    let other = blk.submit(rig.read(1)).unwrap();
    assert!(rig.device.take(0).is_some());
    let token = blk.submit(rig.read(2)).unwrap();
    rig.device.change(|options| options.lie = Some(lie));
    let chain = rig.device.take(0).unwrap();
    let written = rig.disk.borrow_mut().serve(&chain);
    rig.device.finish(0, &chain, written);
    let mut pending = Vec::from([other.index(), token.index()]);
    let error = loop {
        match blk.poll() {
            Ok(done) => {
                let finished = done.unwrap().token.index();
                pending.retain(|&token| token != finished);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, expected);
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    assert_eq!(aborted(&mut blk), pending);
    let broken = DeviceError::Queue(QueueError::Broken);
    let (error, request) = blk.submit(rig.read(0)).unwrap_err();
    assert_eq!(error, broken, "not full: waiting for room would never end");
    drop(request);
    // Those have no device any more; the envelopes go with the driver.
    assert_eq!(dma.live(), NOTES + 1, "notes, envelopes");
    drop(blk);
    assert_eq!(dma.live(), 0);
}

/// A driver's own notes: its list of queues, and for the one queue those on
/// descriptors and on who owns what.
const NOTES: usize = 3;

#[test]
fn a_device_that_lies_is_given_up() {
    let queue = DeviceError::Queue;
    after(Lie::Id(16), queue(QueueError::UsedId { id: 16 }));
    after(
        Lie::Id(0x1_0003),
        queue(QueueError::UsedId { id: 0x1_0003 }),
    );
    after(Lie::Id(1), queue(QueueError::UsedId { id: 1 }));
    after(Lie::Replay, queue(QueueError::UsedId { id: 3 }));
    after(
        Lie::Longer(1),
        queue(QueueError::UsedLength {
            written: 514,
            writable: 513,
        }),
    );
    after(
        Lie::IndexAhead(3),
        queue(QueueError::UsedIndex {
            index: 3,
            seen: 0,
            in_flight: 2,
        }),
    );
}

#[test]
fn a_device_that_does_not_answer_is_given_up() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |options| options.lie = Some(Lie::Silent));
    let mut blk = rig.start().unwrap();
    assert_eq!(
        blk.read(0, &mut [0; SECTOR], &mut rig.wait()),
        Err(DeviceError::Timeout)
    );
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    assert_eq!(dma.live(), NOTES + 2, "notes, envelopes, and the buffer");
    let broken = Err(DeviceError::Queue(QueueError::Broken));
    assert_eq!(blk.read(0, &mut [0; SECTOR], &mut rig.wait()), broken);
    drop(blk);
    assert_eq!(dma.live(), 0);
}

#[test]
fn memory_in_flight_is_freed_after_the_reset_and_not_before() {
    // The fake looks at all of it when the reset is finished.
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | RING, |options| options.reset_reads = 100);
    let mut blk = rig.start().unwrap();
    for sector in 0..8 {
        blk.submit(rig.read(sector)).unwrap();
    }
    blk.queue(0).kick();
    for _ in 0..3 {
        assert!(rig.device.take(0).is_some());
    }
    drop(blk);
    assert_eq!(rig.device.status(), DeviceStatus::empty());
    assert_eq!(dma.live(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "100,000 looks at the status take minutes")]
fn memory_of_a_device_that_does_not_reset_is_never_freed() {
    for fails_first in [false, true] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, MODERN | RING, |_| ());
        let mut blk = rig.start().unwrap();
        blk.submit(rig.read(1)).unwrap();
        blk.queue(0).kick();
        let chain = rig.device.take(0).unwrap();
        rig.device.change(|options| options.reset_reads = u32::MAX);
        if fails_first {
            rig.device.change(|options| options.lie = Some(Lie::Id(77)));
            rig.device.finish(0, &chain, 0);
            let error = DeviceError::Queue(QueueError::UsedId { id: 77 });
            assert_eq!(blk.poll().unwrap_err(), error);
            assert!(rig.device.status().contains(DeviceStatus::FAILED));
        }
        drop(blk);
        // Ring, tables, envelopes, buffer, and the notes on who owns what.
        assert_eq!(dma.live(), 5);
        // It may go on writing for ever.
        assert_eq!(rig.disk.borrow_mut().serve(&chain), 513);
    }
}

#[test]
fn a_device_that_was_given_up_is_not_used_though_it_does_not_reset() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut blk = rig.start().unwrap();
    rig.device.change(|options| options.reset_reads = u32::MAX);
    // Nobody serves the request.
    let error = blk.read(0, &mut [0; SECTOR], &mut Polls(3)).unwrap_err();
    assert_eq!(error, DeviceError::Timeout);
    let broken = DeviceError::Queue(QueueError::Broken);
    let (error, request) = blk.submit(rig.read(0)).unwrap_err();
    assert_eq!(error, broken);
    drop(request);
    assert!(!blk.queue(0).kick(), "no doorbell either");
    assert_eq!(blk.poll().unwrap_err(), broken);
    let error = blk.read(0, &mut [0; SECTOR], &mut Polls(3)).unwrap_err();
    assert_eq!(error, broken, "not busy: waiting for it would never end");
}

#[test]
fn a_device_that_is_gone_says_so_and_gives_back_what_it_had() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | RING, |_| ());
    let mut blk = rig.start().unwrap();
    let token = blk.submit(rig.read(1)).unwrap();
    blk.queue(0).kick();
    assert_eq!(blk.health(), Ok(()));
    rig.device.change(|options| options.gone = true);
    assert_eq!(blk.health(), Err(DeviceError::Gone));
    // Nobody says yet that it accesses nothing any more.
    assert!(!blk.close());
    assert_eq!(blk.poll().unwrap_err(), QueueError::Broken.into());
    rig.device.unplug();
    // SAFETY: a fake that was unplugged accesses nothing.
    unsafe { blk.unplugged() };
    assert_eq!(aborted(&mut blk), [token.index()]);
    drop(blk);
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_wait_for_a_device_that_is_gone_says_so() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut blk = rig.start().unwrap();
    rig.device.change(|options| options.gone = true);
    let error = blk.read(0, &mut [0; SECTOR], &mut Polls(3)).unwrap_err();
    assert_eq!(error, DeviceError::Gone);
}
