//! Lies in configuration space: capability lists, BARs' sizes, MSI-X tables.

use core::ptr::NonNull;
use std::cell::Cell;

use doorbell::device::{DeviceError, Setup, Vectors};
use doorbell::dma::fake::FakeDma;
use doorbell::mmio::{MapError, MapMmio};
use doorbell::pci::capabilities;
use doorbell::pci::fake::{FakeFunction, FakePci};
use doorbell::pci::{
    AddressRange, Apertures, Bar, BusRange, CapabilityError, ConfigRegionAccess, ConfigSpace,
    Function, Message, MsiX, MsiXError, PciAddress, Topology, assign,
};
use doorbell::transport::fake::{FakeDevice, FakePorts, Options};
use doorbell::transport::pci::{PciError, Structures};
use doorbell::transport::pci_modern::{NotifyChoice, PciModern};
use doorbell::transport::{DeviceStatus, Notifier, RingLayout, TransportError};
use doorbell::virtio::Polls;

use crate::session::{FakeRng, SPLIT, rng_options};

const BAR: u64 = 0x8_0000_0000;
const LEN: u64 = 0x4000;

fn address() -> PciAddress {
    PciAddress::new(0, 0, 1, 0)
}

/// A virtio capability without its first two bytes (4.1.4).
fn structure(kind: u8, offset: u32, length: u32) -> Vec<u8> {
    let mut body = Vec::from([16, kind, 4, 0, 0, 0]);
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body
}

fn bare() -> FakeFunction {
    FakeFunction::endpoint(0x1af4, 0x1044)
        .memory64_bar(4, LEN, true)
        .at(4, BAR)
}

/// Configuration space in which a dword is another at each read.
struct Fickle {
    pci: FakePci,
    offset: u16,
    reads: Cell<u32>,
    /// What it is at which read, counted from 0.
    value: fn(u32, u32) -> u32,
}

impl Fickle {
    fn new(function: FakeFunction, offset: u16, value: fn(u32, u32) -> u32) -> Self {
        Self {
            pci: FakePci::new().with(1, 0, function),
            offset,
            reads: Cell::new(0),
            value,
        }
    }

    /// One that is as it says.
    fn honest(function: FakeFunction) -> Self {
        Self::new(function, 0, |_, value| value)
    }

    fn function(&self) -> Function {
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
struct Memory(Vec<u64>);

impl Memory {
    fn new() -> Self {
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
fn modern(function: FakeFunction) -> PciError {
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
            function.register(offset, u32::from(offset + 4 & 0xff) << 8 | 1)
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

/// BAR `index` of a function, and what it says of itself.
fn bar(config: &Fickle, index: usize) -> (Bar, String) {
    let bar = config.function().bars[index].unwrap();
    (
        bar,
        bar.reason.map_or_else(String::new, |why| why.to_string()),
    )
}

pub(crate) fn sizes_that_cannot_be() -> String {
    let endpoint = || FakeFunction::endpoint(1, 2);
    let said = [(0, 0xffff_5000), (6, 0xffff_f000), (0xc, 0)].map(|(fixed, mask)| {
        let (bar, why) = bar(&Fickle::honest(endpoint().bar(0, fixed, mask)), 0);
        assert_eq!((bar.size, bar.address), (0, None));
        why
    });
    let [uneven, reserved, nothing] = said;
    assert!(reserved.contains("0b11") && nothing.contains("no power of two"));
    uneven
}

const MEM32: &[AddressRange] = &[AddressRange {
    first: 0xc000_0000,
    last: 0xfebf_ffff,
}];

/// The BARs of two functions, after addresses were given.
fn assigned(one: FakeFunction, other: FakeFunction) -> Vec<Bar> {
    let pci = FakePci::new().with(1, 0, one).with(2, 0, other);
    let mut storage = [Function::default(); 2];
    // SAFETY: there is no device.
    let mut topology =
        unsafe { Topology::enumerate(&pci, &[BusRange::ALL], &mut storage) }.unwrap();
    let apertures = Apertures {
        io: &[],
        mem32: MEM32,
        mem64: &[],
    };
    // SAFETY: there is no device.
    unsafe { assign(&pci, &mut topology, &apertures) };
    // No two answer to one address.
    pci.audit();
    storage.iter().flat_map(|one| one.bars).flatten().collect()
}

pub(crate) fn two_at_one_address() -> String {
    let same = || {
        FakeFunction::endpoint(1, 2)
            .memory_bar(0, 0x1000)
            .at(0, 0xc000_0000)
    };
    let bars = assigned(same(), same());
    let [one, other] = [0, 1].map(|index| bars[index].range().unwrap());
    assert!(!one.overlaps(other));
    "one of them moves".into()
}

pub(crate) fn a_bar_that_takes_no_writes() -> String {
    let function = FakeFunction::endpoint(1, 2).register(0x10, 0xfebd_1000);
    let (bar, why) = bar(&Fickle::honest(function), 0);
    assert_eq!((bar.size, bar.address), (0, None));
    why
}

pub(crate) fn a_size_that_changes() -> String {
    let function = || FakeFunction::endpoint(1, 2).memory_bar(0, 0x1000);
    for seed in 0..64u32 {
        let config = Fickle::new(function(), 0x10, |read, value| match read % 3 {
            0 => value,
            turn => 0xffff_f000 << (turn + read / 3 % 8) & !0xf,
        });
        config.reads.set(seed);
        let bars = config.function().bars;
        for bar in bars.into_iter().flatten() {
            assert!(bar.size == 0 || bar.size.is_power_of_two());
            assert!(bar.address.is_some() != bar.reason.is_some());
        }
    }
    "as it is found, a power of two, or none and a reason".into()
}

pub(crate) fn a_bar_larger_than_memory() -> String {
    let huge = FakeFunction::endpoint(1, 2).memory64_bar(0, 1 << 63, true);
    let small = FakeFunction::endpoint(1, 2).memory_bar(0, 0x1000);
    let bars = assigned(huge, small);
    assert_eq!((bars[0].size, bars[0].address), (1 << 63, None));
    assert!(bars[1].address.is_some(), "the other has its place");
    bars[0].reason.unwrap().to_string()
}

pub(crate) fn a_bar_shorter_than_its_structures() -> String {
    let function = FakeFunction::endpoint(0x1af4, 0x1044)
        .memory64_bar(4, 0x80, true)
        .at(4, BAR)
        .capability(9, &structure(1, 0, 0x100));
    let kind = "common configuration";
    let error = modern(function);
    assert_eq!(error, PciError::NoStructure { kind });
    error.to_string()
}

/// A function whose MSI-X capability, at 0x40, holds these.
fn msix(control: u16, table: u32, pending: u32) -> FakeFunction {
    let mut body = Vec::from(control.to_le_bytes());
    body.extend(table.to_le_bytes());
    body.extend(pending.to_le_bytes());
    bare().capability(0x11, &body).writable(0x40, 0xf800_0000)
}

fn msix_error(function: FakeFunction) -> MsiXError {
    let (config, memory) = (Fickle::honest(function), Memory::new());
    // SAFETY: there is no device.
    let msix = unsafe { MsiX::new(&config.function(), &config, &memory) };
    msix.unwrap_err()
}

pub(crate) fn a_table_in_no_bar() -> String {
    let said = [1, 5, 6, 7].map(|bar| {
        let error = msix_error(msix(2, 0x100 | bar, 0x804));
        let named = matches!(error, MsiXError::NoBar { bar: found, .. } if u32::from(found) == bar);
        assert!(named, "{error}");
        error.to_string()
    });
    said[3].clone()
}

pub(crate) fn a_vector_that_is_never_taken() -> String {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, rng_options(SPLIT));
    let setup = Setup {
        vectors: Vectors::Shared(3),
        ..Setup::new(8, SPLIT)
    };
    let rng = FakeRng::new(device.transport(), &setup, &dma, &mut Polls(10));
    let error = rng.unwrap_err();
    let refused = TransportError::VectorRefused { vector: 3 };
    assert_eq!(error, DeviceError::Transport(refused));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    assert_eq!(dma.live(), 0);
    error.to_string()
}

pub(crate) fn a_table_that_grows() -> String {
    // 3 entries at first, 2048 from then on.
    let config = Fickle::new(msix(2, 0x4, 0x3ff4), 0x40, |_, value| value);
    let (function, memory) = (config.function(), Memory::new());
    // SAFETY: there is no device.
    let msix = unsafe { MsiX::new(&function, &config, &memory) };
    let mut msix = msix.unwrap().unwrap();
    config.pci.change(address(), 0x40, 0x07ff_0000, 0x07ff_0000);
    msix.enable();
    let message = Message {
        address: 0xfee0_0000,
        data: 1,
    };
    // SAFETY: nothing sends it.
    let error = unsafe { msix.set(3, message) }.unwrap_err();
    assert_eq!(error, MsiXError::NoEntry { entry: 3, size: 3 });
    assert_eq!(
        memory.0[6..],
        vec![0; memory.0.len() - 6],
        "behind the three"
    );
    error.to_string()
}

pub(crate) fn a_table_longer_than_its_bar() -> String {
    let error = msix_error(msix(0x7ff, 0x4, 0x3ff4));
    let MsiXError::Outside { len, size, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((len, size), (2048 * 16, LEN));
    error.to_string()
}

pub(crate) fn a_capability_without_room() -> String {
    let function = bare()
        .capability(9, &[])
        .register(0x40, 0xfc09)
        .register(0xfc, 0x0011);
    let error = msix_error(function);
    assert_eq!(error, MsiXError::Truncated { offset: 0xfc });
    error.to_string()
}

pub(crate) fn a_list_that_never_has_it() -> String {
    let function = bare().capability(9, &[]).register(0x40, 0x4009);
    let error = msix_error(function);
    assert!(matches!(error, MsiXError::Capabilities(_)), "{error}");
    error.to_string()
}
