use core::cell::{Cell, RefCell, UnsafeCell};
use core::ptr::NonNull;
use std::boxed::Box;
use std::string::{String, ToString};
use std::vec::Vec;

use pci_types::ConfigRegionAccess;

use super::*;
use crate::pci::fake::{FakeFunction, FakePci};
use crate::pci::{BusRange, Topology};
use crate::transport::Notifier;

/// Where BAR 1 is, and how long.
const BAR1: u64 = 0xfebd_1000;
const LEN: usize = 0x1000;

/// BAR 1 as plain memory: 3 entries at 0x100, whose reserved bits are set, and
/// pending bits at 0x800.
struct Memory {
    dwords: Box<UnsafeCell<[u32; LEN / 4]>>,
    /// What was mapped: the offset in the BAR, and the length.
    mapped: RefCell<Vec<(u64, u64)>>,
    /// Added to where a part is mapped.
    skew: Cell<usize>,
}

impl Memory {
    fn new() -> Self {
        Self {
            dwords: Box::new(UnsafeCell::new([0xffff_fffe; LEN / 4])),
            mapped: RefCell::default(),
            skew: Cell::new(0),
        }
    }

    fn at(&self, offset: usize) -> *mut u32 {
        assert!(offset.is_multiple_of(4) && offset < LEN);
        // SAFETY: inside the memory.
        unsafe { self.dwords.get().cast::<u32>().byte_add(offset) }
    }

    fn read(&self, offset: usize) -> u32 {
        // SAFETY: inside, and nobody holds a reference to it.
        unsafe { self.at(offset).read_volatile() }
    }

    fn write(&self, offset: usize, value: u32) {
        // SAFETY: as in `read`.
        unsafe { self.at(offset).write_volatile(value) }
    }

    /// The four dwords of an entry.
    fn entry(&self, entry: usize) -> [u32; 4] {
        core::array::from_fn(|field| self.read(0x100 + entry * 16 + field * 4))
    }

    /// The mask bits of the three entries and of what would be a fourth.
    fn masks(&self) -> [u32; 4] {
        core::array::from_fn(|entry| self.entry(entry)[3] & 1)
    }
}

// SAFETY: what is mapped is the memory that stands for the BAR, which lives longer
// than the MSI-X in these tests.
unsafe impl MapMmio for Memory {
    fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError> {
        let offset = address
            .checked_sub(BAR1)
            .filter(|offset| offset + len <= LEN as u64)
            .ok_or(MapError { address, len })?;
        self.mapped.borrow_mut().push((offset, len));
        let base = self.dwords.get().cast::<u8>();
        // SAFETY: inside the memory; the skew is for what is refused.
        let part = unsafe { base.add(offset as usize + self.skew.get()) };
        Ok(NonNull::new(part).unwrap())
    }
}

/// Configuration space that notes, at each write of message control, what was
/// written and which entries are masked.
struct Watched<'t> {
    pci: FakePci,
    memory: &'t Memory,
    seen: RefCell<Vec<(u16, [u32; 4])>>,
}

impl<'t> Watched<'t> {
    fn new(memory: &'t Memory, function: FakeFunction) -> Self {
        Self {
            pci: FakePci::new().with(1, 0, function),
            memory,
            seen: RefCell::default(),
        }
    }

    fn function(&self) -> Function {
        let mut storage = [Function::default()];
        // SAFETY: there is no device.
        unsafe { Topology::enumerate(&self.pci, &[BusRange::ALL], &mut storage) }.unwrap();
        storage[0]
    }

    fn msix(&self) -> Result<Option<MsiX<&Self>>, MsiXError> {
        // SAFETY: the memory is the BAR, and outlives the MSI-X.
        unsafe { MsiX::new(&self.function(), self, self.memory) }
    }

    fn control(&self) -> u16 {
        self.pci.read16(PciAddress::new(0, 0, 1, 0), 0x42)
    }
}

impl ConfigRegionAccess for Watched<'_> {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { self.pci.read(address, offset) }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        panic!("{value:#x} written to offset {offset:#x} of {address}")
    }
}

// SAFETY: there is no hardware.
unsafe impl ConfigSpace for Watched<'_> {
    fn size(&self) -> u16 {
        256
    }

    fn method(&self) -> &'static str {
        "fake"
    }

    unsafe fn notifier(&self, _: PciAddress, _: u16, _: u32) -> Option<Notifier> {
        None
    }

    unsafe fn write16(&self, address: PciAddress, offset: u16, value: u16) {
        assert_eq!(offset, 0x42, "nothing else");
        self.seen.borrow_mut().push((value, self.memory.masks()));
        // SAFETY: the caller's promise.
        unsafe { self.pci.write16(address, offset, value) }
    }
}

/// A function whose MSI-X capability, at 0x40, holds these.
fn function(control: u16, table: u32, pending: u32) -> FakeFunction {
    let mut body = Vec::from(control.to_le_bytes());
    body.extend(table.to_le_bytes());
    body.extend(pending.to_le_bytes());
    FakeFunction::endpoint(0x1af4, 0x1042)
        .io_bar(0, 32)
        .memory_bar(1, LEN as u32)
        .memory64_bar(4, 0x4000, true)
        .at(0, 0xc040)
        .at(1, BAR1)
        .capability(0x11, &body)
        .writable(0x40, 0xf800_0000)
}

/// 3 entries in BAR 1; a reserved bit is set.
fn usual() -> FakeFunction {
    function(0x1002, 0x101, 0x801)
}

#[test]
fn the_parts_are_where_the_capability_says() {
    let memory = Memory::new();
    let pci = Watched::new(&memory, usual());
    let msix = pci.msix().unwrap().unwrap();
    assert_eq!(msix.size(), 3);
    assert_eq!(*memory.mapped.borrow(), [(0x100, 48), (0x800, 8)]);
    assert!(pci.seen.borrow().is_empty(), "it is as it was");

    let without = FakeFunction::endpoint(1, 2).capability(9, &[]);
    assert!(Watched::new(&memory, without).msix().unwrap().is_none());

    // The largest there is fits the BAR to the byte.
    let memory = Memory::new();
    let pci = Watched::new(&memory, function(127, 0x801, 0x7f1));
    drop(pci.msix().unwrap());
    assert_eq!(*memory.mapped.borrow(), [(0x800, 0x800), (0x7f0, 16)]);
}

#[test]
fn a_message_is_written_and_its_entry_unmasked() {
    let memory = Memory::new();
    let pci = Watched::new(&memory, usual());
    let mut msix = pci.msix().unwrap().unwrap();
    msix.enable();
    let message = Message {
        address: 0x12_fee0_1000,
        data: 0x4061,
    };
    let others = [memory.entry(0), memory.entry(2)];
    // SAFETY: nothing sends it.
    unsafe { msix.set(1, message) }.unwrap();
    assert_eq!(memory.entry(1), [0xfee0_1000, 0x12, 0x4061, 0xffff_fffe]);
    assert_eq!([memory.entry(0), memory.entry(2)], others);
    msix.mask(1).unwrap();
    assert_eq!(memory.entry(1), [0xfee0_1000, 0x12, 0x4061, !0]);
    msix.unmask(1).unwrap();
    assert_eq!(memory.entry(1), [0xfee0_1000, 0x12, 0x4061, 0xffff_fffe]);
}

#[test]
fn what_cannot_be_a_message_changes_nothing() {
    let memory = Memory::new();
    let pci = Watched::new(&memory, usual());
    let mut msix = pci.msix().unwrap().unwrap();
    let before: Vec<_> = (0..4).map(|entry| memory.entry(entry)).collect();
    let message = |address| Message { address, data: 1 };
    // SAFETY: nothing sends it, and so below.
    let error = unsafe { msix.set(0, message(0xfee0_0002)) }.unwrap_err();
    assert_eq!(
        error.to_string(),
        "an MSI-X message cannot go to 0xfee00002: not a multiple of 4"
    );
    for entry in [3, u16::MAX] {
        // SAFETY: as above.
        let set = unsafe { msix.set(entry, message(0xfee0_0000)) };
        for result in [set, msix.mask(entry), msix.unmask(entry)] {
            assert_eq!(result, Err(MsiXError::NoEntry { entry, size: 3 }));
        }
        let error = msix.is_pending(entry).unwrap_err().to_string();
        assert_eq!(
            error,
            std::format!("there is no MSI-X entry {entry}: there are 3")
        );
    }
    let after: Vec<_> = (0..4).map(|entry| memory.entry(entry)).collect();
    assert_eq!(after, before);
}

#[test]
fn nothing_is_sent_before_all_entries_are_masked() {
    let memory = Memory::new();
    let pci = Watched::new(&memory, usual());
    let mut msix = pci.msix().unwrap().unwrap();
    msix.enable();
    // Reserved bit 12 and the size stay as they are.
    assert_eq!(
        pci.seen.take(),
        [(0xd002, [0, 0, 0, 0]), (0x9002, [1, 1, 1, 0])]
    );
    assert!(is_enabled(&pci, msix.function).unwrap());
    msix.disable();
    assert_eq!(pci.control(), 0x1002);
    assert!(!is_enabled(&pci, msix.function).unwrap());
    msix.enable();
    drop(msix);
    assert_eq!(pci.control(), 0x1002, "nobody listens");
}

#[test]
fn pending_bits_are_a_bit_an_entry() {
    let memory = Memory::new();
    let pci = Watched::new(&memory, function(64, 0x101, 0x801));
    let msix = pci.msix().unwrap().unwrap();
    assert_eq!(*memory.mapped.borrow(), [(0x100, 65 * 16), (0x800, 16)]);
    memory.write(0x800, 1 << 31);
    memory.write(0x804, 1);
    memory.write(0x808, 1);
    let pending = (0..65).filter(|entry| msix.is_pending(*entry).unwrap());
    assert_eq!(pending.collect::<Vec<_>>(), [31, 32, 64]);
}

#[test]
fn each_lie_has_its_error() {
    fn error(function: FakeFunction) -> String {
        let memory = Memory::new();
        let error = Watched::new(&memory, function).msix().unwrap_err();
        error.to_string()
    }
    for (table, pending, said) in [
        (
            0x000,
            0x801,
            "the MSI-X table is in BAR0, which is no memory BAR",
        ),
        (
            0x102,
            0x801,
            "the MSI-X table is in BAR2, which is no memory BAR",
        ),
        (
            0x105,
            0x801,
            "the MSI-X table is in BAR5, which is no memory BAR",
        ),
        (
            0x106,
            0x801,
            "the MSI-X table is in BAR6, which is no memory BAR",
        ),
        (
            0x101,
            0x807,
            "the MSI-X pending bit array is in BAR7, which is no memory BAR",
        ),
        (
            0x104,
            0x801,
            "the MSI-X table is in BAR4, which has no address: not assigned",
        ),
        (
            0xfd9,
            0x801,
            "the MSI-X table at BAR1+0xfd8, 48 bytes, is not inside the BAR's 0x1000",
        ),
        (
            0x101,
            0xffff_fff9,
            "the MSI-X pending bit array at BAR1+0xfffffff8, 8 bytes, is not inside the BAR's 0x1000",
        ),
    ] {
        assert_eq!(error(function(2, table, pending)), said);
    }
    assert_eq!(
        error(function(0x7ff, 1, 0x801)),
        "the MSI-X table at BAR1+0x0, 32768 bytes, is not inside the BAR's 0x1000"
    );
    assert_eq!(
        error(usual().at(1, 0xfec0_0000)),
        "cannot map 48 bytes of device memory at 0xfec00100"
    );
    let loops = FakeFunction::endpoint(1, 2)
        .capability(9, &[])
        .register(0x40, 0x4009);
    assert_eq!(
        error(loops),
        "the capability list of 0000:00:01.0 comes back to offset 0x040"
    );
    let at_the_end = FakeFunction::endpoint(1, 2)
        .capability(9, &[])
        .register(0x40, 0xfc09)
        .register(0xfc, 0x0011);
    assert_eq!(
        error(at_the_end),
        "the MSI-X capability at offset 0x0fc does not fit there"
    );
    let memory = Memory::new();
    memory.skew.set(2);
    assert_eq!(
        Watched::new(&memory, usual()).msix().unwrap_err(),
        MsiXError::Misaligned {
            part: Part::Table,
            address: BAR1 + 0x100
        }
    );
}
