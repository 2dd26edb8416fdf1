use std::cell::RefCell;
use std::vec;
use std::vec::Vec;

use super::disk::{BLK_SIZE, Disk, FLUSH, IOERR, RO, SIZE_MAX, UNSUPP};
use super::*;
use crate::dma::fake::FakeDma;
use crate::dma::{DmaError, DmaRegion};
use crate::queue::{QueueError, SetupError};
use crate::transport::fake::{FakeDevice, FakeTransport, Lie, Options, stepping};
use crate::transport::{DeviceStatus, RingLayout, TransportError};
use crate::virtio::{InitError, Polls};

mod config;
mod faults;
mod layout;
mod queues;
mod zeroes;

const MODERN: Features = Features::VERSION_1.union(FLUSH);
const RING: Features = Features::INDIRECT_DESC.union(Features::EVENT_IDX);

type FakeBlk<'d> = Blk<FakeTransport<'d>, &'d FakeDma>;

struct Rig<'d> {
    dma: &'d FakeDma,
    device: FakeDevice<'d>,
    disk: RefCell<Disk>,
}

impl<'d> Rig<'d> {
    /// A disk of 64 sectors behind a queue of 16 that offers `features`, and
    /// whatever else `change` does to it.
    fn new(dma: &'d FakeDma, features: Features, change: impl FnOnce(&mut Options)) -> Self {
        let disk = Disk::new(64);
        let mut options = disk.options(features, 16);
        change(&mut options);
        Self {
            dma,
            device: FakeDevice::new(dma, options),
            disk: RefCell::new(disk),
        }
    }

    fn start(&self) -> Result<FakeBlk<'d>, DeviceError> {
        self.start_with(&Setup::new(16, RING))
    }

    fn start_with(&self, setup: &Setup) -> Result<FakeBlk<'d>, DeviceError> {
        Blk::new(self.device.transport(), setup, self.dma, &mut Polls(100))
    }

    /// The device's turn: whether it had something to do.
    fn run(&self) -> usize {
        self.device
            .process(0, |chain| self.disk.borrow_mut().serve(chain))
    }

    fn wait(&self) -> impl Wait {
        stepping(|| {
            self.run();
        })
    }

    fn sectors(&self, count: usize) -> DmaRegion<&'d FakeDma> {
        DmaRegion::new(self.dma, count * SECTOR, SECTOR).unwrap()
    }

    fn read(&self, sector: u64) -> Request<&'d FakeDma> {
        Request::Read {
            sector,
            buffer: self.sectors(1),
        }
    }
}

fn legacy(options: &mut Options) {
    options.layout = RingLayout::Contiguous { align: 4096 };
}

#[test]
fn a_session() {
    for ring in [
        Features::empty(),
        Features::INDIRECT_DESC,
        Features::EVENT_IDX,
        RING,
    ] {
        for is_legacy in [false, true] {
            let dma = FakeDma::default();
            let own = if is_legacy { FLUSH } else { MODERN };
            let rig = Rig::new(&dma, own | ring, |options| {
                if is_legacy {
                    legacy(options);
                }
            });
            let mut blk = rig.start().unwrap();
            assert_eq!(blk.features(), own | ring);
            assert_eq!(rig.device.features(), own | ring);
            let mut sectors = [0; 3 * SECTOR];
            blk.read(5, &mut sectors, &mut rig.wait()).unwrap();
            for (index, sector) in sectors.chunks(SECTOR).enumerate() {
                assert_eq!(sector, [5 + index as u8; SECTOR]);
            }
            blk.write(62, &[0xaa; 2 * SECTOR], &mut rig.wait()).unwrap();
            assert_eq!(
                rig.disk.borrow().data[61 * SECTOR..62 * SECTOR],
                [61; SECTOR]
            );
            assert_eq!(rig.disk.borrow().data[62 * SECTOR..], [0xaa; 2 * SECTOR]);
            blk.flush(&mut rig.wait()).unwrap();
            assert_eq!(rig.disk.borrow().flushes, 1);
            assert_eq!(
                blk.device_id(&mut rig.wait()).unwrap(),
                *b"disk zero\0\0\0\0\0\0\0\0\0\0\0"
            );
            assert_eq!(blk.queue(0).doorbells(), 4);
            assert_eq!(rig.device.interrupts(0), 0, "nobody asked for one");
            drop(blk);
            assert_eq!(rig.device.status(), DeviceStatus::empty());
            assert_eq!(dma.live(), 0);
        }
    }
}

#[test]
fn many_requests_finish_in_any_order() {
    for features in [MODERN, MODERN | RING] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, features, |_| ());
        let mut blk = rig.start().unwrap();
        let mut tokens = Vec::new();
        // Three descriptors a request, or one with a table.
        let room = if features == MODERN { 5 } else { 16 };
        for sector in 0..room {
            tokens.push((sector, blk.submit(rig.read(sector)).unwrap()));
        }
        let (error, request) = blk.submit(rig.read(63)).unwrap_err();
        assert!(
            matches!(error, DeviceError::Queue(QueueError::Full { .. })),
            "{error}"
        );
        assert_eq!(request.into_buffer().unwrap().len(), SECTOR);
        assert!(blk.queue(0).kick());
        let mut chains: Vec<_> = core::iter::from_fn(|| rig.device.take(0)).collect();
        assert_eq!(chains.len(), tokens.len());
        chains.rotate_left(3);
        chains.swap(0, 1);
        for chain in chains {
            let written = rig.disk.borrow_mut().serve(&chain);
            rig.device.finish(0, &chain, written);
        }
        for _ in 0..room {
            let done = blk.poll().unwrap().unwrap();
            assert_eq!(done.result, Ok(()));
            let at = tokens
                .iter()
                .position(|&(_, token)| token == done.token)
                .unwrap();
            let (expected, _) = tokens.swap_remove(at);
            let Request::Read { sector, buffer } = done.request else {
                panic!("it was a read")
            };
            assert_eq!(sector, expected);
            assert_eq!(*buffer, [sector as u8; SECTOR]);
        }
        assert!(blk.poll().unwrap().is_none());
        drop(blk);
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn a_blocking_call_waits_for_nobody_else() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut blk = rig.start().unwrap();
    blk.submit(rig.read(1)).unwrap();
    let busy = Err(DeviceError::Busy { in_flight: 1 });
    assert_eq!(blk.read(0, &mut [0; SECTOR], &mut rig.wait()), busy);
    assert_eq!(blk.flush(&mut rig.wait()), busy);
    blk.queue(0).kick();
    assert_eq!(rig.run(), 1);
    assert_eq!(blk.poll().unwrap().unwrap().result, Ok(()));
    blk.flush(&mut rig.wait()).unwrap();
}

/// Submits what is refused, and gets the buffer back.
fn refuse<'d>(
    blk: &mut FakeBlk<'d>,
    request: Request<&'d FakeDma>,
    expected: DeviceError,
) -> DmaRegion<&'d FakeDma> {
    let (error, request) = blk.submit(request).unwrap_err();
    assert_eq!(error, expected);
    request.into_buffer().unwrap()
}

#[test]
fn a_request_that_the_device_cannot_take_comes_back() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | SIZE_MAX, |_| ());
    let mut blk = rig.start().unwrap();
    let before = dma.live();
    let far = |sector, count| DeviceError::OutOfRange {
        sector,
        count,
        capacity: 64,
    };
    for (sector, count) in [(64, 1), (63, 2), (u64::MAX, 1), (1 << 55, 1)] {
        let buffer = rig.sectors(count as usize);
        let buffer = refuse(
            &mut blk,
            Request::Write { sector, buffer },
            far(sector, count),
        );
        refuse(
            &mut blk,
            Request::Read { sector, buffer },
            far(sector, count),
        );
    }
    for len in [1, 511, 513, 4096 + 512] {
        let buffer = DmaRegion::new(&dma, len, 1).unwrap();
        let error = DeviceError::BufferLength {
            len,
            multiple: 512,
            max: 4096,
        };
        refuse(&mut blk, Request::Read { sector: 0, buffer }, error);
    }
    let buffer = rig.sectors(1);
    let error = DeviceError::BufferLength {
        len: 512,
        multiple: 20,
        max: 20,
    };
    refuse(&mut blk, Request::DeviceId { buffer }, error);
    let empty = DeviceError::BufferLength {
        len: 0,
        multiple: 512,
        max: usize::MAX,
    };
    assert_eq!(blk.read(0, &mut [], &mut rig.wait()), Err(empty));
    assert_eq!(
        blk.write(64, &[0; SECTOR], &mut rig.wait()),
        Err(far(64, 1))
    );
    assert!(
        rig.device.take(0).is_none(),
        "none of it reached the device"
    );
    assert_eq!(dma.live(), before);
}

#[test]
fn what_was_not_negotiated_is_not_asked_for() {
    // 5.2.5, 5.2.6.1
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, Features::VERSION_1 | RO, |_| ());
    let mut blk = rig.start().unwrap();
    assert_eq!(
        blk.write(0, &[0; SECTOR], &mut rig.wait()),
        Err(DeviceError::ReadOnly)
    );
    assert_eq!(blk.flush(&mut rig.wait()), Err(DeviceError::Unsupported));
    assert!(rig.device.take(0).is_none());
    blk.read(0, &mut [0; SECTOR], &mut rig.wait()).unwrap();
}

#[test]
fn a_long_read_goes_in_pieces_of_size_max() {
    // 5.2.3: VIRTIO_BLK_F_SIZE_MAX limits a segment.
    for (features, largest) in [(MODERN | SIZE_MAX, 4096), (MODERN, 20 * SECTOR)] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, features, |_| ());
        let mut blk = rig.start().unwrap();
        let mut sectors = vec![0; 20 * SECTOR];
        blk.read(7, &mut sectors, &mut rig.wait()).unwrap();
        assert_eq!(sectors, rig.disk.borrow().data[7 * SECTOR..27 * SECTOR]);
        sectors.fill(0x77);
        blk.write(40, &sectors, &mut rig.wait()).unwrap();
        assert_eq!(sectors, rig.disk.borrow().data[40 * SECTOR..60 * SECTOR]);
        assert_eq!(rig.disk.borrow().largest, largest);
    }
}

#[test]
fn a_driver_may_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Blk<crate::transport::mmio::Mmio, &FakeDma>>();
}
