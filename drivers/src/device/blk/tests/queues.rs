//! Several queues, and several requests in flight of which some fail.

use super::super::disk::MQ;
use super::*;
use crate::transport::fake::{Chain, Event};

/// Two queues of 8 and of 16.
fn two_queues(options: &mut Options) {
    options.queues = [8, 16].into();
}

/// As many queues as there are.
fn all(features: Features) -> Setup {
    Setup {
        queues: u16::MAX,
        ..Setup::new(16, features)
    }
}

#[test]
fn as_many_queues_as_both_sides_allow() {
    let dma = FakeDma::default();
    for (features, wanted, queues) in [
        (MODERN | MQ, u16::MAX, 2),
        (MODERN | MQ, 2, 2),
        (MODERN | MQ, 1, 1),
        (MODERN | MQ, 0, 1),
        (MODERN, 2, 1),
    ] {
        let rig = Rig::new(&dma, features, two_queues);
        let setup = Setup {
            queues: wanted,
            ..Setup::new(16, RING)
        };
        let blk = rig.start_with(&setup).unwrap();
        assert_eq!(blk.queues(), queues);
        let enabled = (0..2).filter(|&n| rig.device.events().contains(&Event::Enable(n)));
        assert_eq!(enabled.count(), queues);
    }
    // The device says 2, and has 1.
    let rig = Rig::new(&dma, MODERN | MQ, |_| ());
    let error = TransportError::NoQueue { queue: 1 };
    assert_eq!(rig.start_with(&all(RING)).unwrap_err(), error.into());
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_queue_that_is_not_there() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | MQ, two_queues);
    let mut blk = rig.start_with(&all(RING)).unwrap();
    let missing = DeviceError::NoQueue {
        queue: 2,
        queues: 2,
    };
    let (error, request) = blk.submit_on(2, rig.read(7)).unwrap_err();
    assert_eq!(error, missing);
    assert_eq!(request.into_buffer().unwrap().len(), SECTOR);
    assert_eq!(blk.poll_on(2).unwrap_err(), missing);
}

#[test]
fn queues_do_not_mix_their_requests_up() {
    // The same tokens are in flight on both, on legacy of different sizes.
    for is_legacy in [false, true] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, MODERN | MQ | Features::INDIRECT_DESC, |options| {
            two_queues(options);
            if is_legacy {
                legacy(options);
                options.features.remove(Features::VERSION_1);
            }
        });
        let mut blk = rig.start_with(&all(RING)).unwrap();
        let mut submitted = Vec::new();
        for (queue, room) in [(0, 8), (1, 16)] {
            for n in 0..room {
                let sector = (20 * queue + n) as u64;
                let token = blk.submit_on(queue, rig.read(sector)).unwrap();
                submitted.push((queue, token, sector));
            }
            let (error, _) = blk.submit_on(queue, rig.read(0)).unwrap_err();
            let full = QueueError::Full { needed: 1, free: 0 };
            assert_eq!(error, full.into());
        }
        // The second queue's first, and backwards.
        for queue in [1, 0] {
            let mut chains: Vec<Chain> =
                core::iter::from_fn(|| rig.device.take(queue as u16)).collect();
            chains.reverse();
            for chain in chains {
                let written = rig.disk.borrow_mut().serve(&chain);
                rig.device.finish(queue as u16, &chain, written);
            }
            while let Some(done) = blk.poll_on(queue).unwrap() {
                let found = submitted
                    .iter()
                    .position(|&(of, token, _)| (of, token) == (queue, done.token));
                let (_, _, sector) = submitted.swap_remove(found.unwrap());
                assert_eq!(done.result, Ok(()));
                assert_eq!(*done.request.into_buffer().unwrap(), [sector as u8; SECTOR]);
            }
        }
        assert_eq!(submitted, []);
        drop(blk);
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn some_of_many_fail_and_each_comes_back_once() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | MQ | RING, two_queues);
    rig.disk.borrow_mut().bad = [3, 5, 11, 12].into();
    let mut blk = rig.start_with(&all(RING)).unwrap();
    let mut results = [const { None }; 16];
    for sector in 0..16 {
        let buffer = rig.sectors(1);
        let request = match sector % 3 {
            0 => Request::Write { sector, buffer },
            _ => Request::Read { sector, buffer },
        };
        blk.submit_on(sector as usize % 2, request).unwrap();
    }
    for queue in [0, 1] {
        assert!(blk.queue(queue).kick());
        let mut chains: Vec<Chain> =
            core::iter::from_fn(|| rig.device.take(queue as u16)).collect();
        chains.rotate_left(3);
        for chain in chains {
            let written = rig.disk.borrow_mut().serve(&chain);
            rig.device.finish(queue as u16, &chain, written);
        }
        while let Some(done) = blk.poll_on(queue).unwrap() {
            let (Request::Read { sector, .. } | Request::Write { sector, .. }) = done.request
            else {
                panic!("neither a read nor a write")
            };
            let before = results[sector as usize].replace(done.result);
            assert_eq!(before, None, "sector {sector} came back twice");
        }
    }
    for (sector, result) in results.into_iter().enumerate() {
        let expected = match sector {
            3 | 5 | 11 | 12 => Err(DeviceError::Io),
            _ => Ok(()),
        };
        assert_eq!(result, Some(expected), "sector {sector}");
    }
    assert_eq!(rig.disk.borrow().served, 16, "nothing was asked for twice");
    assert_eq!(rig.disk.borrow().data[3 * SECTOR], 3, "a write that failed");
    assert_eq!(rig.disk.borrow().data[6 * SECTOR], 0, "one that did not");
    // Failed requests are no reason to give the device up.
    blk.read(1, &mut [0; SECTOR], &mut rig.wait()).unwrap();
}

#[test]
fn a_fault_on_one_queue_takes_the_others_requests_back() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | MQ, two_queues);
    let mut blk = rig.start_with(&all(RING)).unwrap();
    let other = blk.submit_on(0, rig.read(1)).unwrap();
    blk.submit_on(1, rig.read(2)).unwrap();
    let chain = rig.device.take(1).unwrap();
    rig.disk.borrow_mut().status = 7;
    let written = rig.disk.borrow_mut().serve(&chain);
    rig.device.finish(1, &chain, written);
    let done = blk.poll_on(1).unwrap().unwrap();
    let error = DeviceError::BadAnswer {
        status: 7,
        written: 513,
    };
    assert_eq!(done.result, Err(error));
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    let back = blk.poll_on(0).unwrap().unwrap();
    assert_eq!(
        (back.token, back.result),
        (other, Err(DeviceError::Aborted))
    );
    let broken = DeviceError::Queue(QueueError::Broken);
    assert_eq!(blk.poll_on(0).unwrap_err(), broken);
    drop((done, back, blk));
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_queue_that_is_reset_takes_requests_again() {
    // 2.6.1
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | MQ | Features::RING_RESET, two_queues);
    let mut blk = rig.start_with(&all(Features::RING_RESET)).unwrap();
    let token = blk.submit_on(1, rig.read(9)).unwrap();
    assert!(rig.device.take(1).is_some());
    blk.reset_queue(1, &mut Polls(1)).unwrap();
    let back = blk.poll_on(1).unwrap().unwrap();
    assert_eq!(
        (back.token, back.result),
        (token, Err(DeviceError::Aborted))
    );
    blk.restart_queue(1).unwrap();
    blk.submit_on(1, back.request).unwrap();
    assert!(blk.queue(1).kick());
    rig.device
        .process(1, |chain| rig.disk.borrow_mut().serve(chain));
    let done = blk.poll_on(1).unwrap().unwrap();
    assert_eq!(done.result, Ok(()));
    assert_eq!(*done.request.into_buffer().unwrap(), [9; SECTOR]);
}
