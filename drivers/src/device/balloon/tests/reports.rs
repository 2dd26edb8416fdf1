//! Statistics (5.5.6.3).

use super::*;
use crate::transport::fake::Lie;

const FREE: Statistic = Statistic {
    tag: Tag::Memfree,
    value: 0x0102_0304_0506_0708,
};
const TOTAL: Statistic = Statistic {
    tag: Tag::Memtot,
    value: 99,
};

fn rig<'d>(dma: &'d FakeDma, change: impl FnOnce(&mut Options)) -> Rig<'d> {
    Rig::new(dma, MODERN | STATS_VQ, change)
}

/// The device takes what it finds, and keeps it until it wants more.
fn take<'d>(rig: &Rig<'d>) -> Chain<'d> {
    assert!(rig.device.rang(2));
    let chain = rig.device.take(2).unwrap();
    rig.host.borrow_mut().serve(STATSQ, &chain);
    chain
}

#[test]
fn the_device_gets_statistics_at_the_start_and_when_it_wants_them() {
    for (is_legacy, written) in [(false, 0), (true, 0), (true, 20)] {
        let dma = FakeDma::default();
        let rig = rig(&dma, |options| {
            if is_legacy {
                legacy(options);
            }
        });
        let mut balloon = rig.start(&[FREE, TOTAL]).unwrap();
        let mut chain = take(&rig);
        let first = [(4, 0x0102_0304_0506_0708), (5, 99)];
        assert_eq!(rig.host.borrow().statistics, first);
        for value in 1..20 {
            assert_eq!(balloon.poll_statistics_request(), Ok(false));
            let early = balloon.submit_statistics(&[FREE, TOTAL]);
            assert_eq!(early, Err(DeviceError::Busy { in_flight: 1 }));
            rig.device.finish(2, &chain, written);
            assert_eq!(balloon.poll_statistics_request(), Ok(true));
            assert_eq!(balloon.poll_statistics_request(), Ok(true), "still");
            let free = Statistic { value, ..FREE };
            balloon.submit_statistics(&[TOTAL, free]).unwrap();
            chain = take(&rig);
            let expected = [(5, 99), (4, value)];
            assert_eq!(rig.host.borrow().statistics, expected);
        }
        drop(balloon);
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn the_kinds_are_those_of_the_start() {
    // 5.5.6.3.1
    let dma = FakeDma::default();
    let rig = rig(&dma, |_| ());
    let twice = DeviceError::Statistic { tag: 4 };
    assert_eq!(rig.start(&[FREE, TOTAL, FREE]).unwrap_err(), twice);
    assert_eq!(rig.device.events(), []);

    let mut balloon = rig.start(&[FREE]).unwrap();
    let chain = take(&rig);
    rig.device.finish(2, &chain, 0);
    assert_eq!(balloon.poll_statistics_request(), Ok(true));
    for (statistics, tag) in [
        (&[FREE, TOTAL][..], 5),
        (&[TOTAL], 4),
        (&[FREE, FREE], 4),
        (&[], 4),
    ] {
        let error = balloon.submit_statistics(statistics);
        assert_eq!(error, Err(DeviceError::Statistic { tag }));
    }
    assert!(rig.device.take(2).is_none());
    balloon.submit_statistics(&[FREE]).unwrap();
}

#[test]
fn all_kinds_fit() {
    let tags = [
        Tag::SwapIn,
        Tag::SwapOut,
        Tag::Majflt,
        Tag::Minflt,
        Tag::Memfree,
        Tag::Memtot,
        Tag::Avail,
        Tag::Caches,
        Tag::HtlbPgalloc,
        Tag::HtlbPgfail,
    ];
    let dma = FakeDma::default();
    let rig = rig(&dma, |_| ());
    let value = |tag| u64::MAX - tag as u64;
    let statistics = tags.map(|tag| Statistic {
        tag,
        value: value(tag as u16),
    });
    let _balloon = rig.start(&statistics).unwrap();
    take(&rig);
    let expected: Vec<_> = (0..10).map(|tag| (tag, value(tag))).collect();
    assert_eq!(rig.host.borrow().statistics, expected);
}

#[test]
fn a_device_that_wants_none() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |options| options.queues.truncate(2));
    let mut balloon = rig.start(&[FREE]).unwrap();
    assert_eq!(balloon.poll_statistics_request(), Ok(false));
    let unsupported = Err(DeviceError::Unsupported);
    assert_eq!(balloon.submit_statistics(&[FREE]), unsupported);
}

#[test]
fn a_device_that_was_reset_wants_none_any_more() {
    let dma = FakeDma::default();
    let rig = rig(&dma, |_| ());
    let mut balloon = rig.start(&[FREE]).unwrap();
    take(&rig);
    assert!(balloon.close());
    let broken = DeviceError::Queue(QueueError::Broken);
    let error = balloon.submit_statistics(&[FREE]);
    assert_eq!(error, Err(broken), "not busy: it never ends");
    assert_eq!(balloon.poll_statistics_request(), Err(DeviceError::Aborted));
    assert_eq!(balloon.poll_statistics_request(), Err(broken));
    assert_eq!(balloon.submit_statistics(&[FREE]), Err(broken));
    drop(balloon);
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_device_that_lies_is_given_up() {
    let dma = FakeDma::default();
    let rig = rig(&dma, |options| options.lie = Some(Lie::Replay));
    let mut balloon = rig.start(&[FREE]).unwrap();
    let chain = take(&rig);
    rig.device.finish(2, &chain, 0);
    let error = QueueError::UsedIndex {
        index: 2,
        seen: 0,
        in_flight: 1,
    };
    assert_eq!(balloon.poll_statistics_request(), Err(error.into()));
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    assert_eq!(balloon.poll_statistics_request(), Err(DeviceError::Aborted));
}
