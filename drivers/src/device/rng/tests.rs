use super::*;
use crate::device::Driver as _;
use crate::dma::fake::FakeDma;
use crate::queue::QueueError;
use crate::transport::fake::{Chain, FakeDevice, FakeTransport, Lie, Options, stepping};
use crate::transport::{DeviceStatus, RingLayout};
use crate::virtio::Polls;

const RING: Features = Features::INDIRECT_DESC.union(Features::EVENT_IDX);

fn device<'d>(dma: &'d FakeDma, features: Features, layout: RingLayout) -> FakeDevice<'d> {
    let options = Options {
        device_type: 4,
        features,
        layout,
        ..Options::default()
    };
    FakeDevice::new(dma, options)
}

fn start<'d>(device: &FakeDevice<'d>, dma: &'d FakeDma) -> Rng<FakeTransport<'d>, &'d FakeDma> {
    Rng::new(
        device.transport(),
        &Setup::new(8, RING),
        dma,
        &mut Polls(100),
    )
    .unwrap()
}

/// Fills with 1, 2, 3 and so on, at most `most` bytes a request.
fn fill(next: &mut u8, most: usize, chain: &Chain) -> u32 {
    let len = most.min(chain.writable() as usize);
    for at in 0..len {
        chain.write(at, &[*next]);
        *next = next.wrapping_add(1);
    }
    len as u32
}

#[test]
fn bytes_are_the_devices_and_none_is_missing() {
    let (modern, legacy) = (RingLayout::Separate, RingLayout::Contiguous { align: 4096 });
    for (features, layout) in [
        (Features::VERSION_1, modern),
        (Features::VERSION_1 | RING, modern),
        (RING, legacy),
    ] {
        let dma = FakeDma::default();
        let device = device(&dma, features, layout);
        let mut rng = start(&device, &dma);
        assert_eq!(rng.features(), features);
        let mut next = 0;
        let mut bytes = [0xee; 1300];
        // 5.4.6.1: a device may give less than was asked for, but not nothing.
        let mut wait = stepping(|| {
            device.process(0, |chain| fill(&mut next, 100, chain));
        });
        rng.read(&mut bytes, &mut wait).unwrap();
        assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == at as u8));
        rng.read(&mut [], &mut wait).unwrap();
        drop(rng);
        assert_eq!(device.status(), DeviceStatus::empty());
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn requests_are_told_apart() {
    let dma = FakeDma::default();
    let device = device(&dma, Features::VERSION_1, RingLayout::Separate);
    let mut rng = start(&device, &dma);
    let region = |len| DmaRegion::new(&dma, len, 1).unwrap();
    let short = rng.submit(region(10)).unwrap();
    let long = rng.submit(region(20)).unwrap();
    assert!(rng.queue(0).kick());
    let (first, second) = (device.take(0).unwrap(), device.take(0).unwrap());
    device.finish(0, &second, 15);
    device.finish(0, &first, 10);
    let filled = rng.poll().unwrap().unwrap();
    assert_eq!(
        (filled.token, filled.buffer.len(), filled.result.unwrap()),
        (long, 20, 15)
    );
    let filled = rng.poll().unwrap().unwrap();
    assert_eq!(
        (filled.token, filled.buffer.len(), filled.result.unwrap()),
        (short, 10, 10)
    );
    assert!(rng.poll().unwrap().is_none());
}

#[test]
fn a_full_queue_gives_the_buffer_back() {
    let dma = FakeDma::default();
    let device = device(&dma, Features::VERSION_1 | RING, RingLayout::Separate);
    let mut rng = start(&device, &dma);
    let region = |len| DmaRegion::new(&dma, len, 1).unwrap();
    for _ in 0..8 {
        rng.submit(region(4)).unwrap();
    }
    let (error, buffer) = rng.submit(region(44)).unwrap_err();
    assert_eq!(
        error,
        DeviceError::Queue(QueueError::Full { needed: 1, free: 0 })
    );
    assert_eq!(buffer.len(), 44);
    let busy = DeviceError::Busy { in_flight: 8 };
    assert_eq!(rng.read(&mut [0; 4], &mut Polls(1)), Err(busy));
    drop((rng, buffer));
    assert_eq!(dma.live(), 0);
}

#[test]
fn devices_that_fail() {
    let read = |lie: Option<Lie>, most| {
        let dma = FakeDma::default();
        let device = device(&dma, Features::VERSION_1, RingLayout::Separate);
        device.change(|options| options.lie = lie);
        let mut rng = start(&device, &dma);
        let mut bytes = [0xee; 16];
        let mut wait = stepping(|| {
            device.process(0, |chain| fill(&mut 0, most, chain));
        });
        let error = rng.read(&mut bytes, &mut wait).unwrap_err();
        assert_eq!(bytes, [0xee; 16]);
        let status = device.status();
        drop(rng);
        assert_eq!(dma.live(), 0);
        (error, status)
    };
    let empty = DeviceError::BadAnswer {
        status: 0,
        written: 0,
    };
    assert_eq!(read(None, 0).0, empty, "5.4.6.1");
    assert_eq!(
        read(Some(Lie::Silent), 9),
        (DeviceError::Timeout, DeviceStatus::FAILED)
    );
    let length = QueueError::UsedLength {
        written: 17,
        writable: 16,
    };
    let error = (DeviceError::Queue(length), DeviceStatus::FAILED);
    assert_eq!(read(Some(Lie::Longer(1)), 16), error);
    let id = QueueError::UsedId { id: 8 };
    assert_eq!(
        read(Some(Lie::Id(8)), 16),
        (DeviceError::Queue(id), DeviceStatus::FAILED)
    );
}

#[test]
fn another_device_is_left_alone() {
    let dma = FakeDma::default();
    let device = device(&dma, Features::VERSION_1, RingLayout::Separate);
    device.change(|options| options.device_type = 2);
    let error = Rng::new(
        device.transport(),
        &Setup::new(8, RING),
        &dma,
        &mut Polls(1),
    )
    .unwrap_err();
    assert_eq!(
        error,
        DeviceError::WrongType {
            expected: 4,
            found: 2
        }
    );
    assert_eq!(device.events(), []);
}
