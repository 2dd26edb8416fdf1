use core::ptr::NonNull;
use std::boxed::Box;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use virtio_drivers::device::blk::{BlkReq, BlkResp, RespStatus, VirtIOBlk};
use virtio_drivers::device::common::Feature;
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::Transport as _;

use super::*;
use crate::device::blk::disk::{Disk, FLUSH};
use crate::dma::fake::FakeDma;
use crate::dma::{Dma, DmaError, DmaMemory, DmaRegion, PAGE_SIZE};
use crate::transport::fake::{Event, FakeDevice, FakeTransport, Options};

#[cfg(feature = "virtio-drivers-alloc")]
mod drivers;
mod faults;

std::thread_local! {
    /// Each test has its own, since each has its own thread.
    static DMA: &'static FakeDma = Box::leak(Box::default());
}

fn dma() -> &'static FakeDma {
    DMA.with(|dma| *dma)
}

/// Memory that devices see no buffer of a driver's in: each is copied.
struct Copied;

/// The copy of a buffer, as [`FakeDma`] knows it.
const COPY_ALIGN: usize = 16;

// SAFETY: all memory is one `FakeDma`'s, whose addresses are above 32 bits.
unsafe impl StaticDma for Copied {
    type Dma = &'static FakeDma;

    fn dma() -> &'static FakeDma {
        dma()
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> u64 {
        let copy = dma().allocate(buffer.len(), COPY_ALIGN).unwrap();
        if direction == BufferDirection::DriverToDevice {
            // SAFETY: both are valid for the buffer's length.
            unsafe { copy.pointer.copy_from(buffer.cast(), buffer.len()) };
        }
        copy.address
    }

    unsafe fn unshare(address: u64, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let pointer = NonNull::new(dma().cpu_pointer(address, buffer.len())).unwrap();
        if direction == BufferDirection::DeviceToDriver {
            // SAFETY: as in `share`.
            unsafe { pointer.copy_to(buffer.cast(), buffer.len()) };
        }
        let memory = DmaMemory {
            pointer,
            address,
            size: buffer.len(),
            align: COPY_ALIGN,
        };
        // SAFETY: `share` allocated it, and the device is done with it.
        unsafe { dma().free(memory) };
    }
}

type Upstream<'f> = Compat<'f, FakeTransport<'static>>;
type UpstreamBlk<'f> = VirtIOBlk<DmaHal<Copied>, Upstream<'f>>;

fn legacy(options: &mut Options) {
    options.layout = RingLayout::Contiguous { align: 4096 };
    options.features.remove(Features::VERSION_1);
}

fn wrap<'f>(device: &FakeDevice<'static>, fault: &'f Fault) -> Upstream<'f> {
    // SAFETY: upstream's drivers and these tests keep their rings until then.
    unsafe { Compat::new(device.transport(), fault) }.unwrap()
}

fn block_device(size: u16, change: impl FnOnce(&mut Options)) -> FakeDevice<'static> {
    let ring = Features::INDIRECT_DESC | Features::EVENT_IDX;
    let mut options = Disk::new(64).options(Features::VERSION_1 | FLUSH | ring, size);
    change(&mut options);
    FakeDevice::new(dma(), options)
}

/// Reads a sector by `blk` from the disk behind `device`.
fn read_sector(blk: &mut UpstreamBlk, device: &FakeDevice, sector: usize) -> [u8; 512] {
    let (mut request, mut data, mut response) = (BlkReq::default(), [0; 512], BlkResp::default());
    let mut disk = Disk::new(64);
    // SAFETY: all three live on until `complete_read_blocks`.
    let token = unsafe { blk.read_blocks_nb(sector, &mut request, &mut data, &mut response) };
    let token = token.unwrap();
    assert_eq!(device.process(0, |chain| disk.serve(chain)), 1, "it rang");
    assert_eq!(blk.peek_used(), Some(token));
    // SAFETY: as they were given.
    unsafe { blk.complete_read_blocks(token, &request, &mut data, &mut response) }.unwrap();
    assert_eq!(response.status(), RespStatus::OK);
    data
}

#[test]
fn upstreams_block_driver_reads() {
    for is_legacy in [false, true] {
        let device = block_device(if is_legacy { 16 } else { 256 }, |options| {
            if is_legacy {
                legacy(options);
            }
        });
        let fault = Fault::new();
        let mut blk: UpstreamBlk = fault.check(VirtIOBlk::new(wrap(&device, &fault))).unwrap();
        assert_eq!(blk.capacity(), 64);
        // More than the queue has room for, so that each slot is used again.
        for sector in 0..64 {
            assert_eq!(
                read_sector(&mut blk, &device, sector),
                [sector as u8; 512],
                "{is_legacy}"
            );
        }
        drop(blk);
        assert_eq!(device.status(), DeviceStatus::empty());
        assert_eq!(dma().live(), 0);
        assert_eq!(fault.get(), None);
    }
}

#[test]
fn features_are_hidden() {
    let device = block_device(16, |_| ());
    let fault = Fault::new();
    let wrapped = wrap(&device, &fault).without(Features::EVENT_IDX);
    let mut blk: UpstreamBlk = fault.check(VirtIOBlk::new(wrapped)).unwrap();
    let left = Features::VERSION_1 | FLUSH | Features::INDIRECT_DESC;
    assert_eq!(device.features(), left);
    read_sector(&mut blk, &device, 3);
}

#[test]
fn a_legacy_queue_of_upstreams_size_is_driven() {
    let fault = Fault::new();
    let mut options = Options {
        device_type: 4,
        ..Options::default()
    };
    legacy(&mut options);
    let device = FakeDevice::new(dma(), options);
    let rng: VirtIORng<DmaHal<Copied>, _> =
        fault.check(VirtIORng::new(wrap(&device, &fault))).unwrap();
    // No FEATURES_OK, which a legacy device does not know.
    let steps = [0, 3, 7].map(Event::Status);
    let written = |event: &Event| matches!(event, Event::Status(_));
    let written: Vec<_> = device.events().into_iter().filter(written).collect();
    assert!(
        written.iter().all(|event| steps.contains(event)),
        "{written:?}"
    );
    assert_eq!(written.last(), Some(&Event::Status(7)));
    drop(rng);
}

/// A ring of upstream's, with its memory, given to queue `queue` through `transport`.
fn set_queue(transport: &mut Upstream, queue: u16, size: u32) -> DmaRegion<&'static FakeDma> {
    let ring = DmaRegion::new(dma(), 3 * PAGE_SIZE, PAGE_SIZE).unwrap();
    let avail = ring.address() + 16 * u64::from(size);
    let used = ring.address() + PAGE_SIZE as u64;
    transport.queue_set(queue, size, ring.address(), avail, used);
    ring
}

/// A device of three queues of 8 descriptors, with 12 bytes of configuration.
fn plain(change: impl FnOnce(&mut Options)) -> FakeDevice<'static> {
    let mut options = Options {
        device_type: 1,
        queues: vec![8, 8, 8],
        config: (1..=12).collect(),
        ..Options::default()
    };
    change(&mut options);
    FakeDevice::new(dma(), options)
}

#[test]
fn a_doorbell_before_driver_ok_waits_for_it() {
    let (device, fault) = (plain(|_| ()), Fault::new());
    let doorbells = AtomicU64::new(0);
    let mut transport = wrap(&device, &fault).counting(&doorbells);
    transport.begin_init(Feature::VERSION_1);
    let rings = [0, 1, 2].map(|queue| set_queue(&mut transport, queue, 8));
    transport.notify(1);
    assert!(!device.rang(1), "3.1.1");
    assert_eq!(doorbells.load(Ordering::Relaxed), 0);
    transport.finish_init();
    assert_eq!(
        [0, 1, 2].map(|queue| device.rang(queue)),
        [false, true, false]
    );
    transport.notify(2);
    assert_eq!(
        [0, 1, 2].map(|queue| device.rang(queue)),
        [false, false, true]
    );
    transport.notify(3);
    assert_eq!(doorbells.load(Ordering::Relaxed), 2);
    drop(transport);
    drop(rings);
}

#[test]
fn the_configuration_is_read_by_its_fields() {
    let (device, fault) = (plain(|_| ()), Fault::new());
    let mut transport = wrap(&device, &fault);
    transport.begin_init(Feature::VERSION_1);
    assert_eq!(transport.read_config_space::<u8>(3), Ok(4));
    assert_eq!(
        transport.read_config_space::<u16>(2),
        Ok(u16::from_ne_bytes([3, 4]))
    );
    assert_eq!(
        transport.read_config_space::<u32>(4),
        Ok(u32::from_ne_bytes([5, 6, 7, 8]))
    );
    assert_eq!(
        transport.read_config_space::<[u8; 6]>(1),
        Ok([2, 3, 4, 5, 6, 7])
    );
    assert_eq!(
        transport.read_config_space::<u64>(4),
        Ok(u64::from_ne_bytes([5, 6, 7, 8, 9, 10, 11, 12]))
    );
    assert_eq!(transport.write_config_space(2, 0xaabb_u16), Ok(()));
    assert_eq!(transport.read_config_space::<u16>(2), Ok(0xaabb));
    assert_eq!(
        transport.read_config_space::<u32>(10),
        Err(Error::InvalidParam),
        "not aligned"
    );
    assert_eq!(
        transport.read_config_space::<u32>(12),
        Err(Error::ConfigSpaceTooSmall)
    );
    assert_eq!(
        transport.read_config_space::<u32>(0x1_0000),
        Err(Error::ConfigSpaceTooSmall)
    );
    assert_eq!(
        transport.write_config_space(12, 0_u8),
        Err(Error::ConfigSpaceTooSmall)
    );
    assert_eq!(fault.get(), None, "upstream has an error for these itself");
}

#[test]
fn fields_that_belong_together_are_read_again() {
    let mut turns = 0;
    let device = plain(|options| {
        options.config_hook = Some(Box::new(move |config, generation| {
            turns += 1;
            if turns < 20 {
                config[0] = turns;
                *generation += 1;
            }
        }));
    });
    let fault = Fault::new();
    let mut transport = wrap(&device, &fault);
    transport.begin_init(Feature::VERSION_1);
    let read = || transport.read_config_space::<[u8; 4]>(0);
    assert_eq!(transport.read_consistent(read), Ok([19, 2, 3, 4]));
}

#[test]
fn interrupts_are_acknowledged() {
    let (device, fault) = (plain(|_| ()), Fault::new());
    let mut transport = wrap(&device, &fault);
    let mut pending = || transport.ack_interrupt().bits();
    assert_eq!(pending(), 0);
    device.raise(2);
    let change = InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT;
    assert_eq!(pending(), change.bits());
    device.raise(0xff);
    assert_eq!(pending(), 0, "nothing answers there");
}

#[test]
fn a_queue_taken_away_is_the_devices_no_more() {
    let (device, fault) = (plain(|_| ()), Fault::new());
    let mut transport = wrap(&device, &fault);
    transport.begin_init(Feature::VERSION_1);
    let rings = [0, 1].map(|queue| set_queue(&mut transport, queue, 8));
    transport.finish_init();
    assert_eq!(
        [0, 1, 2].map(|queue| transport.queue_used(queue)),
        [true, true, false]
    );
    assert!(!transport.queue_used(QUEUES));
    transport.queue_unset(0);
    assert_eq!(device.status(), DeviceStatus::empty());
    // The device would see this as memory taken too early.
    drop(rings);
    assert_eq!([0, 1].map(|queue| transport.queue_used(queue)), [false; 2]);
    transport.notify(0);
    assert!(!device.rang(0), "there is nothing to ring for");
    let resets = device.events().len();
    transport.queue_unset(1);
    drop(transport);
    assert_eq!(device.events().len(), resets, "it was reset already");
    assert_eq!(fault.get(), None);
}
