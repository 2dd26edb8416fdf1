//! Lies in the status byte of a block request (virtio 1.2, 5.2.6).

use std::cell::Cell;

use doorbell::device::blk::{Blk, Request, SECTOR};
use doorbell::device::{DeviceError, Driver, Setup};
use doorbell::dma::DmaRegion;
use doorbell::dma::fake::FakeDma;
use doorbell::queue::QueueError;
use doorbell::transport::DeviceStatus;
use doorbell::transport::fake::{Chain, FakeDevice, FakeTransport, Options, stepping};
use doorbell::virtio::{Features, Polls};

use crate::session::{ROUNDS, SPLIT, flipping};

pub(crate) type FakeBlk<'d> = Blk<FakeTransport<'d>, &'d FakeDma>;

/// A disk of 16 sectors, whose configuration is all there.
pub(crate) fn options(features: Features) -> Options {
    let mut config = Vec::from(16u64.to_le_bytes());
    for field in [4096u32, 126, 0, 512, 0, 0, 0, 0, 16, 1, 1, 16, 1, 0] {
        config.extend(field.to_le_bytes());
    }
    Options {
        device_type: 2,
        features: SPLIT | features,
        config,
        ..Options::default()
    }
}

pub(crate) fn start<'d>(
    device: &FakeDevice<'d>,
    dma: &'d FakeDma,
) -> Result<FakeBlk<'d>, DeviceError> {
    Blk::new(
        device.transport(),
        &Setup::new(8, SPLIT),
        dma,
        &mut Polls(10),
    )
}

/// The number of bytes of a read's data and status.
const ALL: u32 = SECTOR as u32 + 1;

/// What the driver says of a read whose status and length are these: the device is
/// given up for it.
fn answer(status: Option<u8>, written: u32) -> String {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options(Features::empty()));
    let mut blk = start(&device, &dma).unwrap();
    let mut wait = stepping(|| _ = device.process(0, |chain| serve(chain, status, written)));
    let error = blk.read(0, &mut [0; SECTOR], &mut wait).unwrap_err();
    let status = status.unwrap_or(0xff);
    assert_eq!(error, DeviceError::BadAnswer { status, written });
    assert_eq!(device.status(), DeviceStatus::FAILED);
    let broken = Err(DeviceError::Queue(QueueError::Broken));
    assert_eq!(blk.read(0, &mut [0; SECTOR], &mut Polls(10)), broken);
    drop((blk, wait));
    assert_eq!(dma.live(), 0);
    error.to_string()
}

fn serve(chain: &Chain<'_>, status: Option<u8>, written: u32) -> u32 {
    if let Some(status) = status {
        chain.write(SECTOR, &[status]);
    }
    written
}

pub(crate) fn status_out_of_range() -> String {
    [3, 0x7f, 0xff].map(|status| answer(Some(status), ALL))[0].clone()
}

pub(crate) fn status_of_an_earlier_request() -> String {
    // It was written once, into the same byte.
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options(Features::empty()));
    let mut blk = start(&device, &dma).unwrap();
    let first = Cell::new(true);
    let mut wait = stepping(|| {
        device.process(0, |chain| {
            serve(chain, first.replace(false).then_some(0), ALL)
        });
    });
    blk.read(0, &mut [0; SECTOR], &mut wait).unwrap();
    let error = blk.read(0, &mut [0; SECTOR], &mut wait).unwrap_err();
    let (status, written) = (0xff, ALL);
    assert_eq!(error, DeviceError::BadAnswer { status, written });
    assert_eq!(device.status(), DeviceStatus::FAILED);
    drop((blk, wait));
    assert_eq!(dma.live(), 0);
    error.to_string()
}

pub(crate) fn status_that_never_comes() -> String {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options(Features::empty()));
    let mut blk = start(&device, &dma).unwrap();
    let mut taken = Vec::new();
    let mut wait = stepping(|| taken.extend(device.take(0)));
    let error = blk.read(0, &mut [0; SECTOR], &mut wait).unwrap_err();
    drop(wait);
    assert_eq!((error, taken.len()), (DeviceError::Timeout, 1));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    let back = blk.poll().unwrap().unwrap();
    assert_eq!(back.result, Err(DeviceError::Aborted));
    drop((back, blk));
    assert_eq!(dma.live(), 0);
    error.to_string()
}

pub(crate) fn status_that_changes() -> String {
    let bad = DeviceError::BadAnswer {
        status: 7,
        written: ALL,
    };
    for _ in 0..ROUNDS {
        let dma = FakeDma::default();
        let device = FakeDevice::new(&dma, options(Features::empty()));
        let mut blk = start(&device, &dma).unwrap();
        let buffer = DmaRegion::new(&dma, SECTOR, SECTOR).unwrap();
        blk.submit(Request::Read { sector: 0, buffer }).unwrap();
        let chain = device.take(0).unwrap();
        let status = chain.buffers()[2].address;
        device.finish(0, &chain, ALL);
        let at = dma.cpu_pointer(status, 4);
        let done = flipping(at, [0, 7], || blk.poll()).unwrap().unwrap();
        match done.result {
            Ok(()) => assert_eq!(
                device.status() & DeviceStatus::FAILED,
                DeviceStatus::empty()
            ),
            Err(error) => {
                assert_eq!((error, device.status()), (bad, DeviceStatus::FAILED));
            }
        }
        drop((done, blk));
        assert_eq!(dma.live(), 0);
    }
    format!("one of the two values: success, or {bad}")
}

pub(crate) fn more_than_data_and_status() -> String {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options(Features::empty()));
    let mut blk = start(&device, &dma).unwrap();
    let mut wait = stepping(|| _ = device.process(0, |chain| serve(chain, Some(0), ALL + 1)));
    let error = blk.read(0, &mut [0; SECTOR], &mut wait).unwrap_err();
    let (written, writable) = (ALL + 1, ALL);
    let length = QueueError::UsedLength { written, writable };
    assert_eq!(error, DeviceError::Queue(length));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    assert!(blk.health().is_ok(), "it was reset");
    drop((blk, wait));
    assert_eq!(dma.live(), 0);
    error.to_string()
}

pub(crate) fn success_with_half_of_the_data() -> String {
    [0, 1, ALL - 1].map(|written| answer(Some(0), written))[2].clone()
}
