//! Lies in configuration space: capability lists.

use core::ptr::NonNull;
use std::cell::Cell;

use doorbell::dma::fake::FakeDma;
use doorbell::mmio::{MapError, MapMmio};
use doorbell::pci::capabilities;
use doorbell::pci::fake::{FakeFunction, FakePci};
use doorbell::pci::{
    BusRange, CapabilityError, ConfigRegionAccess, ConfigSpace, Function, PciAddress, Topology,
};
use doorbell::transport::fake::{FakeDevice, FakePorts, Options};
use doorbell::transport::pci::{PciError, Structures};
use doorbell::transport::pci_modern::{NotifyChoice, PciModern};
use doorbell::transport::{Notifier, RingLayout};

use crate::session::{SPLIT, rng_options};

pub(crate) const BAR: u64 = 0x8_0000_0000;
pub(crate) const LEN: u64 = 0x4000;

pub(crate) fn address() -> PciAddress {
    PciAddress::new(0, 0, 1, 0)
}

/// A virtio capability without its first two bytes (4.1.4).
pub(crate) fn structure(kind: u8, offset: u32, length: u32) -> Vec<u8> {
    let mut body = Vec::from([16, kind, 4, 0, 0, 0]);
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body
}

pub(crate) fn bare() -> FakeFunction {
    FakeFunction::endpoint(0x1af4, 0x1044)
        .memory64_bar(4, LEN, true)
        .at(4, BAR)
}

/// Configuration space in which a dword is another at each read.
pub(crate) struct Fickle {
    pub(crate) pci: FakePci,
    offset: u16,
    pub(crate) reads: Cell<u32>,
    /// What it is at which read, counted from 0.
    value: fn(u32, u32) -> u32,
}

impl Fickle {
    pub(crate) fn new(function: FakeFunction, offset: u16, value: fn(u32, u32) -> u32) -> Self {
        Self {
            pci: FakePci::new().with(1, 0, function),
            offset,
            reads: Cell::new(0),
            value,
        }
    }

    /// One that is as it says.
    pub(crate) fn honest(function: FakeFunction) -> Self {
        Self::new(function, 0, |_, value| value)
    }

    pub(crate) fn function(&self) -> Function {
        let mut storage = [Function::default()];
        // SAFETY: there is no device.
        unsafe { Topology::enumerate(self, &[BusRange::ALL], &mut storage) }.unwrap();
        storage[0]
    }
}

impl ConfigRegionAccess for Fickle {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        // SAFETY: the caller's promise.
        let value = unsafe { self.pci.read(address, offset) };
        if offset != self.offset || address.device() != 1 {
            return value;
        }
        let read = self.reads.replace(self.reads.get() + 1);
        (self.value)(read, value)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.pci.write(address, offset, value) }
    }
}

// SAFETY: there is no hardware.
unsafe impl ConfigSpace for Fickle {
    fn size(&self) -> u16 {
        4096
    }

    fn method(&self) -> &'static str {
        "fake"
    }

    unsafe fn notifier(&self, _: PciAddress, _: u16, _: u32) -> Option<Notifier> {
        None
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        // SAFETY: the caller's promise.
        unsafe { self.pci.write16(address, offset, value) }
    }
}

/// The list of a function: how many entries it has, and the error at its end.
fn list(config: &Fickle) -> (usize, Option<CapabilityError>) {
    let entries: Vec<_> = capabilities::standard(config, address()).collect();
    let error = entries.last().and_then(|last| last.err());
    (entries.len() - usize::from(error.is_some()), error)
}

/// The BAR as memory; nothing else is mapped.
pub(crate) struct Memory(pub(crate) Vec<u64>);

impl Memory {
    pub(crate) fn new() -> Self {
        Self(vec![0; LEN as usize / 8])
    }
}

// SAFETY: the memory stands for the BAR, and outlives what is made of it here.
unsafe impl MapMmio for Memory {
    fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError> {
        let offset = address.checked_sub(BAR).filter(|at| at + len <= LEN);
        let offset = offset.ok_or(MapError { address, len })?;
        let base = self.0.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: inside.
        Ok(NonNull::new(unsafe { base.add(offset as usize) }).unwrap())
    }
}

/// What the modern transport says of a function.
pub(crate) fn modern(function: FakeFunction) -> PciError {
    let dma = FakeDma::default();
    let options = Options {
        layout: RingLayout::Contiguous { align: 4096 },
        ..rng_options(SPLIT)
    };
    let ports: FakePorts<'_> = FakeDevice::new(&dma, options).ports(0x1000, false);
    let config = Fickle::honest(function);
    let (function, memory) = (config.function(), Memory::new());
    let structures = Structures::read(&config, &function).unwrap();
    let choice = NotifyChoice::Preferred;
    // SAFETY: there is no device.
    unsafe { PciModern::new(&function, &structures, &config, ports, &memory, choice) }.unwrap_err()
}

pub(crate) fn a_link_out_of_the_list() -> String {
    for (link, offset) in [(0x10, 0x10), (0x3c, 0x3c), (0x03, 0)] {
        let function = bare().capability(9, &[]).register(0x40, link << 8 | 9);
        let error = match offset {
            0 => None,
            offset => Some(CapabilityError::OutOfRange {
                address: address(),
                offset,
            }),
        };
        assert_eq!(list(&Fickle::honest(function)), (1, error));
    }
    let offset = 0x10;
    let address = address();
    CapabilityError::OutOfRange { address, offset }.to_string()
}

pub(crate) fn a_structure_that_is_there_twice() -> String {
    let function = bare()
        .capability(9, &structure(1, 0, 0x100))
        .capability(9, &structure(1, 0x1000, 0x100));
    let config = Fickle::honest(function);
    let structures = Structures::read(&config, &config.function()).unwrap();
    assert_eq!(structures.common.unwrap().offset, 0);
    "the first counts (4.1.4.1)".into()
}

/// A list in which each dword is an entry that leads to the next.
fn longest() -> FakeFunction {
    (0x40..0x100u16)
        .step_by(4)
        .fold(bare().capability(1, &[]), |function, offset| {
            function.register(offset, u32::from((offset + 4) & 0xff) << 8 | 1)
        })
}

pub(crate) fn a_list_as_long_as_can_be() -> String {
    assert_eq!(list(&Fickle::honest(longest())), (48, None));
    "48 entries, and its end".into()
}

pub(crate) fn a_link_that_changes() -> String {
    // It leads on, and back to the first entry, and out, by turns.
    let config = Fickle::new(longest(), 0x60, |read, value| match read % 3 {
        0 => value,
        1 => 0x4001,
        _ => 0x0801,
    });
    let address = address();
    let ends = [(); 6].map(|()| list(&config));
    let back = CapabilityError::Loop {
        address,
        offset: 0x40,
    };
    let out = CapabilityError::OutOfRange { address, offset: 8 };
    let turn = [(48, None), (9, Some(back)), (9, Some(out))];
    assert_eq!(ends, [turn, turn].concat()[..]);
    format!("the end, or {back}, or {out}")
}

pub(crate) fn a_structure_beyond_its_bar() -> String {
    for (offset, length) in [(LEN as u32, 0x40), (0x3fc1, 0x40), (u32::MAX, u32::MAX)] {
        let kind = "common configuration";
        let error = modern(bare().capability(9, &structure(1, offset, length)));
        assert_eq!(error, PciError::NoStructure { kind });
    }
    modern(bare().capability(9, &structure(1, u32::MAX, u32::MAX))).to_string()
}

pub(crate) fn a_structure_without_room() -> String {
    // One that is shorter than its fields, and one that ends where the list does.
    let error = modern(bare().capability(9, &structure(1, 0, 8)));
    assert!(matches!(error, PciError::Malformed { .. }), "{error}");
    let function = bare()
        .capability(9, &[])
        .register(0x40, 0xfc09)
        .register(0xfc, 0x0109_0009);
    let config = Fickle::honest(function);
    let structures = Structures::read(&config, &config.function()).unwrap();
    assert_eq!(structures.common, None);
    error.to_string()
}

pub(crate) fn a_list_that_comes_back() -> String {
    for (at, link) in [(0x40, 0x40), (0x44, 0x40), (0x44, 0x44)] {
        let function = bare().capability(9, &[]).capability(0x11, &[]);
        let id = if at == 0x40 { 9 } else { 0x11 };
        let config = Fickle::honest(function.register(at, link << 8 | id));
        let offset = link as u16;
        let address = address();
        let error = CapabilityError::Loop { address, offset };
        assert_eq!(list(&config).1, Some(error));
        let read = Structures::read(&config, &config.function());
        assert_eq!(read.unwrap_err(), error);
    }
    let (address, offset) = (address(), 0x44);
    CapabilityError::Loop { address, offset }.to_string()
}
