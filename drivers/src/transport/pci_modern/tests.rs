use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;
use std::boxed::Box;
use std::vec::Vec;

use pci_types::{ConfigRegionAccess, PciAddress};

use super::*;
use crate::device::blk::disk::{Disk, FLUSH};
use crate::device::{Blk, Driver as _, Setup};
use crate::dma::fake::FakeDma;
use crate::mmio::MapError;
use crate::pci::fake::{FakeFunction, FakePci};
use crate::transport::fake::{DeviceRing, stepping};
use crate::transport::pci::tests::{capability, found, longer};
use crate::transport::{Notify, read_config_u32, read_config_u64};
use crate::virtio::Polls;

mod doorbells;
mod live;

/// Where BAR 4 is, and how long.
const BAR4: u64 = 0x8_0000_0000;
const LEN: usize = 0x4000;

const COMMON: u32 = 0;
const ISR: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;

/// Offsets in `struct virtio_pci_common_cfg` (4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE: usize = 4;
    pub(super) const CONFIG_MSIX_VECTOR: usize = 16;
    pub(super) const NUM_QUEUES: usize = 18;
    pub(super) const DEVICE_STATUS: usize = 20;
    pub(super) const QUEUE_SELECT: usize = 22;
    pub(super) const QUEUE_SIZE: usize = 24;
    pub(super) const QUEUE_MSIX_VECTOR: usize = 26;
    pub(super) const QUEUE_ENABLE: usize = 28;
    pub(super) const QUEUE_NOTIFY_OFF: usize = 30;
    pub(super) const QUEUE_DESC: usize = 32;
    pub(super) const QUEUE_DRIVER: usize = 40;
    pub(super) const QUEUE_DEVICE: usize = 48;
    pub(super) const QUEUE_RESET: usize = 58;
}

/// BAR 4 as plain memory: a device whose registers keep what is written to them.
struct Registers(Box<UnsafeCell<[u64; LEN / 8]>>);

impl Registers {
    fn new() -> Self {
        let registers = Self(Box::new(UnsafeCell::new([0; LEN / 8])));
        registers.write(common::NUM_QUEUES, 3u16);
        registers.write(common::QUEUE_SIZE, 16u16);
        registers
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= LEN && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside the memory.
        unsafe { self.0.get().byte_add(offset).cast() }
    }

    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: inside, aligned, and integers may hold anything.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    fn write<T: Copy>(&self, offset: usize, value: T) {
        // SAFETY: as in `read`.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }
}

// SAFETY: what is mapped is the memory that stands for the BAR, which lives longer
// than the transports in these tests.
unsafe impl MapMmio for Registers {
    fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError> {
        let offset = address
            .checked_sub(BAR4)
            .filter(|offset| offset + len <= LEN as u64);
        let offset = offset.ok_or(MapError { address, len })?;
        Ok(NonNull::new(self.at::<u8>(offset as usize)).unwrap())
    }
}

/// Configuration space and IO space with one doorbell each: a cell.
struct Bells {
    pci: FakePci,
    /// Where a notifier was asked for, and its value.
    asked: Cell<Option<(u16, u32)>>,
    cell: UnsafeCell<u32>,
}

impl Bells {
    fn new(function: FakeFunction) -> Self {
        let pci = FakePci::new().with(1, 0, function);
        Self {
            pci,
            asked: Cell::new(None),
            cell: UnsafeCell::new(!0),
        }
    }

    fn rung(&self) -> u32 {
        // SAFETY: nobody holds a reference to the cell.
        unsafe { self.cell.get().read_volatile() }
    }
}

impl ConfigRegionAccess for &Bells {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { self.pci.read(address, offset) }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.pci.write(address, offset, value) }
    }
}

// SAFETY: there is no hardware.
unsafe impl ConfigSpace for &Bells {
    fn size(&self) -> u16 {
        4096
    }

    fn method(&self) -> &'static str {
        "fake"
    }

    unsafe fn notifier(&self, _: PciAddress, offset: u16, value: u32) -> Option<Notifier> {
        self.asked.set(Some((offset, value)));
        // SAFETY: the cell outlives the notifier in these tests.
        Some(unsafe { Notifier::store32(NonNull::new(self.cell.get()).unwrap(), value) })
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        // SAFETY: the caller's promise.
        unsafe { self.pci.write16(address, offset, value) }
    }
}

// SAFETY: no port is accessed.
unsafe impl IoSpace for &Bells {
    unsafe fn read8(&self, port: u16) -> u8 {
        panic!("port {port:#x} read")
    }
    unsafe fn read16(&self, port: u16) -> u16 {
        panic!("port {port:#x} read")
    }
    unsafe fn read32(&self, port: u16) -> u32 {
        panic!("port {port:#x} read")
    }
    unsafe fn write8(&self, port: u16, _: u8) {
        panic!("port {port:#x} written")
    }
    unsafe fn write16(&self, port: u16, _: u16) {
        panic!("port {port:#x} written")
    }
    unsafe fn write32(&self, port: u16, _: u32) {
        panic!("port {port:#x} written")
    }
    unsafe fn notifier(&self, port: u16, value: u16) -> Notifier {
        self.asked.set(Some((port, value.into())));
        // SAFETY: the cell outlives the notifier in these tests.
        unsafe { Notifier::store16(NonNull::new(self.cell.get()).unwrap().cast(), value) }
    }
    unsafe fn isr_status(&self, port: u16) -> IsrStatus {
        panic!("interrupt status at {port:#x}")
    }
}

/// A block device with BARs, and no capability yet.
fn bare() -> FakeFunction {
    FakeFunction::endpoint(0x1af4, 0x1042)
        .io_bar(2, 4)
        .memory64_bar(4, LEN as u64, true)
        .at(2, 0x1000)
        .at(4, BAR4)
}

/// It has the structures that all devices have, but no doorbells.
fn silent() -> FakeFunction {
    bare()
        .capability(9, &capability(1, 4, COMMON, 0x1000))
        .capability(9, &capability(3, 4, ISR, 0x1000))
        .capability(9, &capability(4, 4, DEVICE, 0x1000))
}

fn ordinary() -> FakeFunction {
    silent().capability(9, &longer(2, 4, NOTIFY, 0x1000, 4))
}

type Modern<'a> = PciModern<&'a Bells, &'a Bells>;

fn start<'a>(
    bells: &'a Bells,
    registers: &Registers,
    choice: NotifyChoice,
) -> Result<Modern<'a>, PciError> {
    let function = found(&bells.pci);
    let structures = Structures::read(&bells.pci, &function)?;
    // SAFETY: there is no hardware.
    unsafe { PciModern::new(&function, &structures, bells, bells, registers, choice) }
}

/// The error that a device like this makes.
fn refused(function: FakeFunction) -> PciError {
    let (bells, registers) = (Bells::new(function), Registers::new());
    match start(&bells, &registers, NotifyChoice::Preferred) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error,
    }
}

const RING: RingAddresses = RingAddresses {
    descriptors: 0x1_2345_6000,
    driver: 0x2_0000_1000,
    device: 0x3_0000_2000,
};

fn enable(modern: &mut Modern, queue: u16, size: u16) -> Result<Notifier, TransportError> {
    // SAFETY: nobody reads the ring.
    unsafe { modern.enable_queue(queue, size, &RING) }
}

#[test]
fn a_queue_is_given_by_three_addresses() {
    // 4.1.5.1.3
    let (bells, registers) = (Bells::new(ordinary()), Registers::new());
    let mut modern = start(&bells, &registers, NotifyChoice::Preferred).unwrap();
    assert_eq!(
        (modern.interface(), modern.device_type()),
        (Interface::PciModern, 2)
    );
    assert_eq!(modern.queue_size(2), Ok(QueueSize::UpTo(16)));
    assert_eq!(
        modern.queue_size(3),
        Err(TransportError::NoQueue { queue: 3 })
    );
    let error = enable(&mut modern, 2, 32).unwrap_err();
    assert_eq!(error, TransportError::QueueSize { queue: 2, size: 32 });
    assert_eq!(registers.read::<u16>(common::QUEUE_ENABLE), 0);

    enable(&mut modern, 2, 8).unwrap();
    assert_eq!(registers.read::<u16>(common::QUEUE_SELECT), 2);
    assert_eq!(registers.read::<u16>(common::QUEUE_SIZE), 8);
    assert_eq!(registers.read::<u64>(common::QUEUE_DESC), RING.descriptors);
    assert_eq!(registers.read::<u64>(common::QUEUE_DRIVER), RING.driver);
    assert_eq!(registers.read::<u64>(common::QUEUE_DEVICE), RING.device);
    assert_eq!(registers.read::<u16>(common::QUEUE_ENABLE), 1);
    let error = enable(&mut modern, 2, 8).unwrap_err();
    assert_eq!(error, TransportError::QueueInUse { queue: 2 });
    registers.write(common::QUEUE_SIZE, 0u16);
    assert_eq!(
        modern.queue_size(1),
        Err(TransportError::NoQueue { queue: 1 })
    );
}

#[test]
fn configuration_and_isr_status_are_where_the_capabilities_say() {
    let (bells, registers) = (Bells::new(ordinary()), Registers::new());
    registers.write(DEVICE as usize, 0x0123_4567_89ab_cdefu64);
    registers.write(ISR as usize, 3u8);
    let modern = start(&bells, &registers, NotifyChoice::Preferred).unwrap();
    assert_eq!(read_config_u64(&modern, 0), Ok(0x0123_4567_89ab_cdef));
    assert_eq!(read_config_u32(&modern, 2, 2), Ok(0x89ab));
    let error = TransportError::ConfigRange {
        offset: 0xffe,
        len: 4,
        available: 0x1000,
    };
    assert_eq!(read_config_u32(&modern, 0xffe, 4), Err(error));
    assert_eq!(modern.isr_status().take().bits(), 3);
}

#[test]
fn a_device_without_configuration() {
    let function = bare()
        .capability(9, &capability(1, 4, COMMON, 0x1000))
        .capability(9, &capability(3, 4, ISR, 0x1000))
        .capability(9, &longer(2, 4, NOTIFY, 0x1000, 4));
    let (bells, registers) = (Bells::new(function), Registers::new());
    let modern = start(&bells, &registers, NotifyChoice::Preferred).unwrap();
    let error = TransportError::ConfigRange {
        offset: 0,
        len: 4,
        available: 0,
    };
    assert_eq!(read_config_u32(&modern, 0, 4), Err(error));
}

#[test]
fn a_structure_that_is_missing_or_malformed_is_named() {
    let notify = longer(2, 4, NOTIFY, 0x1000, 4);
    let with = |kind, bar, offset, length| {
        bare()
            .capability(9, &capability(kind, bar, offset, length))
            .capability(9, &notify)
    };
    let missing = |kind| PciError::NoStructure { kind };
    assert_eq!(refused(with(3, 4, ISR, 1)), missing("common configuration"));
    assert_eq!(refused(with(1, 4, COMMON, 0x1000)), missing("ISR status"));

    // 4.1.4.3: version 1.0 ends with `queue_device`, 56 bytes.
    let malformed = |offset, length| PciError::Malformed {
        kind: "common configuration",
        at: Structure {
            bar: 4,
            offset,
            length,
        },
    };
    assert_eq!(refused(with(1, 4, COMMON, 55)), malformed(COMMON, 55));
    // 4.1.4.3.1: the offset is a multiple of 4.
    assert_eq!(refused(with(1, 4, 2, 0x1000)), malformed(2, 0x1000));
    let isr = PciError::Malformed {
        kind: "ISR status",
        at: Structure {
            bar: 4,
            offset: ISR,
            length: 0,
        },
    };
    let short = with(1, 4, COMMON, 56).capability(9, &capability(3, 4, ISR, 0));
    assert_eq!(refused(short), isr);

    let unassigned = ordinary().at(4, 0);
    assert!(matches!(
        refused(unassigned),
        PciError::Unassigned {
            bar: 4,
            reason: Some(_)
        }
    ));
    let elsewhere = ordinary().at(4, 2 * BAR4);
    assert!(
        matches!(refused(elsewhere), PciError::Map(MapError { address, .. }) if address == 2 * BAR4)
    );
    let other = FakeFunction::endpoint(0x1b36, 5);
    assert_eq!(
        refused(other),
        PciError::NotVirtio {
            vendor: 0x1b36,
            device: 5
        }
    );
}

#[test]
fn the_shortest_and_a_longer_common_configuration() {
    // 4.1.4.1: longer ones are taken.
    for length in [56, 60, 64, 4096] {
        let function = bare()
            .capability(9, &capability(1, 4, COMMON, length))
            .capability(9, &capability(3, 4, ISR, 1))
            .capability(9, &longer(2, 4, NOTIFY, 2, 0));
        let (bells, registers) = (Bells::new(function), Registers::new());
        assert!(
            start(&bells, &registers, NotifyChoice::Preferred).is_ok(),
            "{length}"
        );
    }
}

#[test]
fn a_disk_session() {
    let dma = FakeDma::default();
    let (bells, registers) = (Bells::new(ordinary()), Registers::new());
    // The same word whichever half is selected: bit 32, VIRTIO_F_VERSION_1, bit
    // 9, VIRTIO_BLK_F_FLUSH, and their like in the other half.
    registers.write(common::DEVICE_FEATURE, 1u32 | 1 << 9);
    registers.write(DEVICE as usize, 64u64);
    let bell = NOTIFY as usize + 4 * 5;
    registers.write(common::QUEUE_NOTIFY_OFF, 5u16);
    registers.write(bell, !0u16);
    let modern = start(&bells, &registers, NotifyChoice::Preferred).unwrap();
    let mut blk = Blk::new(
        modern,
        &Setup::new(8, Features::empty()),
        &dma,
        &mut Polls(10),
    )
    .unwrap();
    assert_eq!(blk.features(), Features::VERSION_1 | FLUSH);
    assert_eq!(registers.read::<u8>(common::DEVICE_STATUS), 15);

    let at = RingAddresses {
        descriptors: registers.read(common::QUEUE_DESC),
        driver: registers.read(common::QUEUE_DRIVER),
        device: registers.read(common::QUEUE_DEVICE),
    };
    let size = registers.read(common::QUEUE_SIZE);
    assert_eq!(size, 8);
    let mut ring = DeviceRing::new(&dma, size, at, blk.features());
    let mut disk = Disk::new(64);
    let mut wait = stepping(|| {
        if registers.read::<u16>(bell) == 0 {
            registers.write(bell, !0u16);
            let chain = ring.take().unwrap();
            let written = disk.serve(&chain);
            ring.finish(chain.head(), written);
        }
    });
    let mut sector = [0; 512];
    blk.read(17, &mut sector, &mut wait).unwrap();
    assert_eq!(sector, [17; 512]);
    blk.write(63, &[1; 512], &mut wait).unwrap();
    blk.flush(&mut wait).unwrap();
    drop(wait);
    assert_eq!((disk.data[63 * 512], disk.flushes), (1, 1));
    assert_eq!(ring.violations(), [""; 0]);
    drop(blk);
    assert_eq!(registers.read::<u8>(common::DEVICE_STATUS), 0);
    assert_eq!(dma.live(), 0);
}
