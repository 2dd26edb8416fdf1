//! The same with packed rings: what a driver has of them, and a device that lies.

use super::*;
use crate::transport::fake::Lie;

const PACKED: Features = MODERN
    .union(Features::RING_PACKED)
    .union(Features::EVENT_IDX);

/// One queue, which has 7 descriptors.
fn open<'d>(device: &FakeDevice<'d>, dma: &'d FakeDma) -> FakeLink<'d> {
    let init = Init::begin(device.transport(), PACKED, PACKED, &mut Polls(1)).unwrap();
    let plan = |_| Plan {
        index: 0,
        size: 9,
        buffers: 1,
    };
    let setup = Setup::new(9, PACKED);
    let opened = Link::open(init, 1, plan, &setup, dma, |_, sizes| {
        assert_eq!(sizes, [7]);
        Ok(())
    });
    opened.map_err(drop).unwrap().0
}

fn device(dma: &FakeDma) -> FakeDevice<'_> {
    super::device(dma, |options| {
        options.features = PACKED;
        options.queues = [7].into();
    })
}

/// Four requests go there and back, the last one first.
fn serve<'d>(link: &mut FakeLink<'d>, device: &FakeDevice<'d>, dma: &'d FakeDma) {
    let sent = [(); 4].map(|()| submit(link, dma, 0));
    assert!(link.queue(0).kick());
    assert!(!link.queue(0).kick(), "one doorbell for all");
    let chains: std::vec::Vec<_> = core::iter::from_fn(|| device.take(0)).collect();
    assert_eq!(chains.len(), 4);
    for (chain, written) in chains.iter().rev().zip(1..) {
        device.finish(0, chain, written);
    }
    for (address, written) in sent.into_iter().rev().zip(1..) {
        let back = link.pop(0).unwrap().unwrap();
        assert_eq!(
            (back.request.address(), back.written),
            (address, Some(written))
        );
    }
    assert!(link.pop(0).unwrap().is_none());
}

#[test]
fn requests_go_round_and_a_reset_begins_anew() {
    let dma = FakeDma::default();
    let device = device(&dma);
    let mut link = open(&device, &dma);
    assert!(link.queue(0).ring().is_packed());
    for _ in 0..5 {
        serve(&mut link, &device, &dma);
    }
    for _ in 0..3 {
        submit(&mut link, &dma, 0);
    }
    assert!(device.take(0).is_some());
    // 2.6.1: both sides forget where they were.
    link.reset_queue(0, &mut Polls(1)).unwrap();
    for _ in 0..3 {
        assert!(link.pop(0).unwrap().unwrap().written.is_none());
    }
    link.restart_queue(0).unwrap();
    for _ in 0..5 {
        serve(&mut link, &device, &dma);
    }
    drop(link);
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_device_that_lies_is_given_up() {
    let unknown = |id| QueueError::UsedId { id };
    let longer = QueueError::UsedLength {
        written: 17,
        writable: 16,
    };
    for (lie, error) in [
        (Lie::Id(7), unknown(7)),
        (Lie::Id(0xffff), unknown(0xffff)),
        (Lie::Id(4), unknown(4)),
        (Lie::Replay, unknown(0)),
        // The first of them is in flight, and what is left of the second is zeros.
        (Lie::IndexAhead(2), unknown(0)),
        (Lie::Longer(1), longer),
    ] {
        let dma = FakeDma::default();
        let device = device(&dma);
        let mut link = open(&device, &dma);
        submit(&mut link, &dma, 0);
        device.change(|options| options.lie = Some(lie));
        let chain = device.take(0).unwrap();
        device.finish(0, &chain, 16);
        let found = loop {
            match link.pop(0) {
                Ok(back) => assert!(back.is_some(), "{lie:?} was not noticed"),
                Err(error) => break error,
            }
        };
        assert_eq!(found, DeviceError::Queue(error), "{lie:?}");
        assert_eq!(device.status(), DeviceStatus::FAILED);
        drop(link);
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn a_device_that_does_not_answer_is_given_up() {
    let dma = FakeDma::default();
    let device = device(&dma);
    let mut link = open(&device, &dma);
    submit(&mut link, &dma, 0);
    device.change(|options| options.lie = Some(Lie::Silent));
    let chain = device.take(0).unwrap();
    device.finish(0, &chain, 16);
    let error = link.wait(0, &mut Polls(10)).err();
    assert_eq!(error, Some(DeviceError::Timeout));
    assert_eq!(device.status(), DeviceStatus::FAILED);
}
