//! Lies in what a balloon device wants, and acknowledges (virtio 1.2, 5.5).

use doorbell::device::balloon::{Balloon, INFLATEQ};
use doorbell::device::{DeviceError, Driver, Setup};
use doorbell::dma::fake::FakeDma;
use doorbell::dma::{DmaRegion, PAGE_SIZE};
use doorbell::queue::QueueError;
use doorbell::transport::fake::{FakeDevice, FakeTransport, Lie, Options, stepping};
use doorbell::transport::{DeviceStatus, TransportError};
use doorbell::virtio::Polls;

use crate::session::SPLIT;

type FakeBalloon<'d> = Balloon<FakeTransport<'d>, &'d FakeDma>;

fn device(dma: &FakeDma) -> FakeDevice<'_> {
    let options = Options {
        device_type: 5,
        features: SPLIT,
        queues: [8, 8].into(),
        config: vec![0; 8],
        ..Options::default()
    };
    FakeDevice::new(dma, options)
}

fn start<'d>(device: &FakeDevice<'d>, dma: &'d FakeDma) -> Result<FakeBalloon<'d>, DeviceError> {
    let setup = Setup::new(8, SPLIT);
    Balloon::new(device.transport(), &setup, &[], dma, &mut Polls(10))
}

fn want(device: &FakeDevice<'_>, pages: u32) {
    device.change(|options| options.config[..4].copy_from_slice(&pages.to_le_bytes()));
}

fn pages(dma: &FakeDma) -> DmaRegion<&FakeDma> {
    DmaRegion::new(dma, PAGE_SIZE, PAGE_SIZE).unwrap()
}

/// Nothing goes into the balloon, or comes out, because the device says so.
fn nothing_moves(dma: &FakeDma, device: &FakeDevice<'_>, live: usize) {
    assert_eq!(dma.live(), live);
    assert!(device.take(0).is_none() && device.take(1).is_none());
}

pub(crate) fn a_target_out_of_range() -> String {
    let dma = FakeDma::default();
    let device = device(&dma);
    // It says that there are pages in it, of nobody's.
    device.change(|options| options.config[4..].fill(0xff));
    let mut balloon = start(&device, &dma).unwrap();
    assert_eq!(balloon.actual(), 0);
    device.change(|options| assert_eq!(options.config[4..], [0; 4], "as it is told"));
    let live = dma.live();
    for target in [u32::MAX, 1 << 31, 0] {
        want(&device, target);
        assert_eq!(balloon.target(), Ok(target));
    }
    nothing_moves(&dma, &device, live);
    "a number for the kernel, which gives what it can".into()
}

/// Pages are being put into the balloon, and the device lies about it: the driver's
/// error, after which the pages are the guest's again.
fn inflating(lie: Lie, expected: QueueError) -> String {
    let dma = FakeDma::default();
    let device = device(&dma);
    device.change(|options| options.lie = Some(lie));
    let mut balloon = start(&device, &dma).unwrap();
    balloon.submit_inflate(pages(&dma)).unwrap();
    balloon.submit_inflate(pages(&dma)).unwrap();
    let chain = device.take(0).unwrap();
    device.finish(0, &chain, 0);
    let mut inside = Vec::new();
    let error = loop {
        match balloon.poll_inflate() {
            Ok(done) => inside.push(done.unwrap().result.unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(error, DeviceError::Queue(expected));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    for _ in inside.len()..2 {
        let back = balloon.poll_inflate().unwrap().unwrap();
        let (error, pages) = back.result.unwrap_err();
        assert_eq!((error, pages.len()), (DeviceError::Aborted, PAGE_SIZE));
    }
    for ballooned in inside {
        drop(balloon.reclaim(ballooned).unwrap());
    }
    drop(balloon);
    assert_eq!(dma.live(), 0);
    error.to_string()
}

pub(crate) fn pages_acknowledged_twice() -> String {
    inflating(Lie::Replay, QueueError::UsedId { id: 0 })
}

pub(crate) fn pages_never_acknowledged() -> String {
    let dma = FakeDma::default();
    let device = device(&dma);
    device.change(|options| options.lie = Some(Lie::Silent));
    let mut balloon = start(&device, &dma).unwrap();
    let mut wait = stepping(|| _ = device.process(0, |_| 0));
    let (error, none) = balloon.inflate(pages(&dma), &mut wait).unwrap_err();
    assert_eq!((error, none.is_none()), (DeviceError::Timeout, true));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    let back = balloon.poll_inflate().unwrap().unwrap();
    let (aborted, page) = back.result.unwrap_err();
    assert_eq!((aborted, balloon.actual()), (DeviceError::Aborted, 0));
    drop((page, balloon, wait));
    assert_eq!(dma.live(), 0);
    error.to_string()
}

pub(crate) fn a_target_that_changes() -> String {
    let dma = FakeDma::default();
    let device = device(&dma);
    let mut balloon = start(&device, &dma).unwrap();
    let mut target = 0u32;
    device.change(|options| {
        options.config_hook = Some(Box::new(move |config, _| {
            target = target.wrapping_add(0x0101_0101);
            config[..4].copy_from_slice(&target.to_le_bytes());
        }));
    });
    // One access each: never parts of two.
    let read = [(); 200].map(|()| balloon.target().unwrap());
    let whole = |pages: &u32| pages.to_le_bytes().iter().all(|&byte| byte == *pages as u8);
    assert!(read.iter().all(whole) && read[0] != read[1]);
    "whole, as it is at each call".into()
}

pub(crate) fn an_acknowledgement_that_wrote_something() -> String {
    let (written, writable) = (4, 0);
    let error = QueueError::UsedLength { written, writable };
    inflating(Lie::Longer(4), error)
}

pub(crate) fn a_configuration_that_ends_early() -> String {
    let dma = FakeDma::default();
    let device = device(&dma);
    let mut said = Vec::new();
    for (available, offset) in [(7, 4), (3, 0)] {
        device.change(|options| options.config.truncate(available));
        let error = start(&device, &dma).unwrap_err();
        let short = TransportError::ConfigRange {
            offset,
            len: 4,
            available,
        };
        assert_eq!(error, DeviceError::Transport(short));
        assert_eq!(device.status(), DeviceStatus::FAILED);
        assert_eq!(dma.live(), 0);
        said.push(error.to_string());
    }
    said.remove(0)
}

pub(crate) fn a_target_up_and_down() -> String {
    let dma = FakeDma::default();
    let device = device(&dma);
    let mut balloon = start(&device, &dma).unwrap();
    let live = dma.live();
    for turn in 0..1000 {
        let target = if turn % 2 == 0 { u32::MAX } else { 0 };
        want(&device, target);
        assert_eq!(balloon.target(), Ok(target));
    }
    nothing_moves(&dma, &device, live);
    assert_eq!(balloon.queue(INFLATEQ).in_flight(), 0);
    "one number a call, and nothing moves by itself".into()
}
