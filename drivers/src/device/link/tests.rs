//! Several queues, vectors, and the reset of one queue, with requests that are
//! one buffer each.

use super::*;
use crate::device::Vectors;
use crate::dma::DmaRegion;
use crate::dma::fake::FakeDma;
use crate::transport::TransportError;
use crate::transport::fake::{Event, FakeDevice, FakeTransport, Options};
use crate::virtio::Polls;

mod packed;

type FakeLink<'d> = Link<FakeTransport<'d>, DmaRegion<&'d FakeDma>, &'d FakeDma>;

const MODERN: Features = Features::VERSION_1.union(Features::RING_RESET);

fn device(dma: &FakeDma, change: impl FnOnce(&mut Options)) -> FakeDevice<'_> {
    let mut options = Options {
        features: MODERN,
        queues: [8, 4, 8].into(),
        vectors: 3,
        ..Options::default()
    };
    change(&mut options);
    FakeDevice::new(dma, options)
}

/// Queues 0 and 2 of three.
fn open<'d>(
    device: &FakeDevice<'d>,
    dma: &'d FakeDma,
    vectors: Vectors,
) -> Result<FakeLink<'d>, DeviceError> {
    let setup = Setup {
        vectors,
        ..Setup::new(4, MODERN)
    };
    let init = Init::begin(device.transport(), MODERN, Features::empty(), &mut Polls(1))?;
    let plan = |n| Plan {
        index: [0, 2][n],
        size: setup.queue_size,
        buffers: 1,
    };
    let opened = Link::open(init, 2, plan, &setup, dma, |_, sizes| {
        assert_eq!(sizes, [4, 4]);
        Ok(())
    })?;
    Ok(opened.0)
}

/// Submits a buffer of 16 bytes to queue `n`; the answer is its device address.
fn submit<'d>(link: &mut FakeLink<'d>, dma: &'d FakeDma, n: usize) -> u64 {
    let region = DmaRegion::new(dma, 16, 1).unwrap();
    let address = region.address();
    // SAFETY: the memory is the request's own.
    let submitted = unsafe { link.submit(n, &[Buffer::writable(address, 16)], region) };
    submitted.unwrap();
    address
}

#[test]
fn each_queue_has_its_own_requests() {
    let dma = FakeDma::default();
    let device = device(&dma, |_| ());
    let mut link = open(&device, &dma, Vectors::None).unwrap();
    let (first, second) = (submit(&mut link, &dma, 0), submit(&mut link, &dma, 1));
    assert!(device.take(1).is_none(), "the plan left queue 1 out");
    let chain = device.take(2).unwrap();
    device.finish(2, &chain, 5);
    assert!(link.pop(0).unwrap().is_none());
    let back = link.pop(1).unwrap().unwrap();
    assert_eq!((back.request.address(), back.written), (second, Some(5)));
    drop(back);
    let chain = device.take(0).unwrap();
    device.finish(0, &chain, 6);
    let back = link.pop(0).unwrap().unwrap();
    assert_eq!((back.request.address(), back.written), (first, Some(6)));
    let missing = DeviceError::NoQueue {
        queue: 2,
        queues: 2,
    };
    assert_eq!(link.check_queue(2), Err(missing));
    drop((back, link));
    assert_eq!(dma.live(), 0);
}

#[test]
fn vectors_are_bound_before_the_queues_are_enabled() {
    let dma = FakeDma::default();
    let device = device(&dma, |_| ());
    let vectors = Vectors::PerQueue {
        config: 0,
        first: 1,
        count: 2,
    };
    let link = open(&device, &dma, vectors).unwrap();
    let bound: std::vec::Vec<Event> = device
        .events()
        .into_iter()
        .filter(|event| matches!(event, Event::Vector(..) | Event::Enable(_)))
        .collect();
    assert_eq!(
        bound,
        [
            Event::Vector(Interrupt::ConfigChange, Some(0)),
            Event::Vector(Interrupt::Queue(0), Some(1)),
            Event::Enable(0),
            Event::Vector(Interrupt::Queue(2), Some(1)),
            Event::Enable(2),
        ]
    );
    drop(link);
}

#[test]
fn a_refused_vector_is_named_and_nothing_is_kept() {
    let dma = FakeDma::default();
    for vectors in [
        Vectors::Shared(3),
        Vectors::PerQueue {
            config: 0,
            first: 3,
            count: 1,
        },
    ] {
        let device = device(&dma, |_| ());
        let error = open(&device, &dma, vectors).err();
        let refused = TransportError::VectorRefused { vector: 3 };
        assert_eq!(error, Some(refused.into()));
        assert_eq!(device.status(), DeviceStatus::FAILED);
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn a_later_queue_that_is_refused_takes_the_earlier_with_it() {
    let dma = FakeDma::default();
    let device = device(&dma, |options| options.queues = [8, 4, 0].into());
    let error = open(&device, &dma, Vectors::None).err();
    assert_eq!(error, Some(TransportError::NoQueue { queue: 2 }.into()));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_queue_that_is_reset_gives_its_requests_back_and_starts_anew() {
    let dma = FakeDma::default();
    let device = device(&dma, |_| ());
    let mut link = open(&device, &dma, Vectors::Shared(2)).unwrap();
    link.set_interrupts(true);
    let other = submit(&mut link, &dma, 0);
    let pending: std::vec::Vec<u64> = (0..3).map(|_| submit(&mut link, &dma, 1)).collect();
    assert!(device.take(2).is_some());
    link.reset_queue(1, &mut Polls(1)).unwrap();
    let busy = DeviceError::Busy { in_flight: 3 };
    assert_eq!(link.restart_queue(1), Err(busy), "the requests come first");
    for address in pending {
        let back = link.pop(1).unwrap().unwrap();
        assert_eq!((back.request.address(), back.written), (address, None));
    }
    assert_eq!(link.pop(1).err(), Some(QueueError::Broken.into()));
    assert!(!link.queue(1).kick());
    link.restart_queue(1).unwrap();
    assert_eq!(
        link.restart_queue(1),
        Err(DeviceError::Busy { in_flight: 0 })
    );
    let vector = Event::Vector(Interrupt::Queue(2), Some(2));
    assert_eq!(
        device
            .events()
            .iter()
            .filter(|&event| *event == vector)
            .count(),
        2
    );
    // It works as before, and the other queue never stopped.
    for n in 0..9 {
        let address = submit(&mut link, &dma, 1);
        assert!(link.queue(1).kick(), "{n}");
        let chain = device.take(2).unwrap();
        device.finish(2, &chain, 1);
        assert_eq!(link.pop(1).unwrap().unwrap().request.address(), address);
    }
    assert_eq!(device.interrupts(2), 9, "asked for as before");
    let chain = device.take(0).unwrap();
    device.finish(0, &chain, 2);
    assert_eq!(link.pop(0).unwrap().unwrap().request.address(), other);
    drop(link);
    assert_eq!(dma.live(), 0);
}

#[test]
fn interrupts_asked_for_while_a_queue_is_reset_are_there_when_it_starts() {
    let dma = FakeDma::default();
    let device = device(&dma, |_| ());
    let mut link = open(&device, &dma, Vectors::Shared(2)).unwrap();
    for wanted in [true, false] {
        link.reset_queue(1, &mut Polls(1)).unwrap();
        link.set_interrupts(wanted);
        link.restart_queue(1).unwrap();
        let before = device.interrupts(2);
        submit(&mut link, &dma, 1);
        let chain = device.take(2).unwrap();
        device.finish(2, &chain, 1);
        assert!(link.pop(1).unwrap().is_some());
        assert_eq!(device.interrupts(2) - before, u64::from(wanted));
    }
}

#[test]
fn a_queue_that_cannot_be_reset_is_not_taken() {
    let dma = FakeDma::default();
    let fake = device(&dma, |options| options.features = Features::VERSION_1);
    let mut link = open(&fake, &dma, Vectors::None).unwrap();
    let error = link.reset_queue(0, &mut Polls(1));
    assert_eq!(error, Err(DeviceError::Unsupported));
    submit(&mut link, &dma, 0);
    let chain = fake.take(0).unwrap();
    fake.finish(0, &chain, 0);
    assert!(link.pop(0).unwrap().is_some(), "it goes on");
    drop(link);

    let fake = device(&dma, |options| options.refuse_queue_reset = true);
    let mut link = open(&fake, &dma, Vectors::None).unwrap();
    let address = submit(&mut link, &dma, 0);
    let error = link.reset_queue(0, &mut Polls(2));
    let timeout = TransportError::QueueResetTimeout { queue: 0 };
    assert_eq!(error, Err(timeout.into()));
    assert_eq!(
        fake.status(),
        DeviceStatus::FAILED,
        "the device was reset instead"
    );
    let back = link.pop(0).unwrap().unwrap();
    assert_eq!((back.request.address(), back.written), (address, None));
    assert_eq!(link.restart_queue(0), Err(QueueError::Broken.into()));
}

#[test]
fn a_device_that_wants_a_reset_says_so() {
    let dma = FakeDma::default();
    let device = device(&dma, |_| ());
    let link = open(&device, &dma, Vectors::None).unwrap();
    assert_eq!(link.health(), Ok(()));
    let live = device.status();
    device.leave_status((live | DeviceStatus::DEVICE_NEEDS_RESET).bits());
    assert_eq!(link.health(), Err(DeviceError::NeedsReset));
}

#[test]
fn a_device_that_forgot_its_driver_is_gone() {
    let dma = FakeDma::default();
    let device = device(&dma, |_| ());
    let mut link = open(&device, &dma, Vectors::None).unwrap();
    submit(&mut link, &dma, 0);
    device.leave_status(0);
    assert_eq!(link.health(), Err(DeviceError::Gone));
    let error = link.wait(0, &mut Polls(3)).err();
    assert_eq!(error, Some(DeviceError::Gone));
    // Zeros are no word of a device's that it let go: nothing comes back of them.
    assert_eq!(link.pop(0).err(), Some(QueueError::Broken.into()));
    assert!(!link.close());
    device.unplug();
    // SAFETY: a fake that was unplugged accesses nothing.
    unsafe { link.unplugged() };
    assert!(link.pop(0).unwrap().unwrap().written.is_none());
    drop(link);
    assert_eq!(dma.live(), 0);
}
