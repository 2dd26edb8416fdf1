use std::string::ToString;
use std::vec::Vec;

use pci_types::ConfigRegionAccess;

use super::*;
use crate::pci::fake::{FakeFunction, FakePci};
use crate::pci::{BusRange, Topology};
use crate::transport::Notifier;
use crate::virtio::Polls;

/// Where a fake port has its slot registers.
const CONTROL: u16 = 0x58;
const STATUS: u16 = 0x5a;

/// Slot capabilities as QEMU's `pcie-root-port` has them.
const QEMU: u32 = 0x0008_007b;
/// Status bits: attention button pressed, power fault, presence detect changed,
/// command completed, presence detect state.
const ABP: u16 = 1;
const PFD: u16 = 2;
const PDC: u16 = 8;
const CC: u16 = 0x10;
const PDS: u16 = 0x40;

fn address() -> PciAddress {
    PciAddress::new(0, 0, 1, 0)
}

fn function(pci: &FakePci) -> Function {
    let mut storage = [Function::default()];
    // SAFETY: there is no device.
    unsafe { Topology::enumerate(pci, &[BusRange::ALL], &mut storage) }.unwrap();
    storage[0]
}

/// A port that carries out commands as QEMU's does: at the write it is completed,
/// and a device whose power was switched off is gone.
struct Qemu {
    pci: FakePci,
    completes: bool,
}

impl Qemu {
    fn new(capabilities: u32, control: u16, status: u16) -> Self {
        let qemu = Self {
            pci: FakePci::new().with(1, 0, FakeFunction::slot(4, capabilities)),
            completes: true,
        };
        qemu.set(0xffff, control, status);
        qemu
    }

    /// Changes slot control where `mask` has ones, and sets status bits.
    fn set(&self, mask: u16, control: u16, status: u16) {
        let mask = u32::from(mask) | u32::from(status) << 16;
        let value = u32::from(control) | u32::from(status) << 16;
        self.pci.change(address(), CONTROL, mask, value);
    }

    fn registers(&self) -> [u16; 2] {
        [CONTROL, STATUS].map(|offset| self.pci.read16(address(), offset))
    }

    fn slot(&self) -> Slot<&Self> {
        Slot::new(&function(&self.pci), self).unwrap().unwrap()
    }

    /// What was written to the slot's registers.
    fn written(&self) -> Vec<(u16, u32)> {
        let writes = self.pci.take_writes().into_iter();
        writes
            .map(|(_, offset, value)| (offset, value))
            .filter(|(offset, _)| (CONTROL..=STATUS).contains(offset))
            .collect()
    }
}

impl ConfigRegionAccess for Qemu {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { self.pci.read(address, offset) }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        panic!("{value:#x} written to offset {offset:#x} of {address}")
    }
}

// SAFETY: there is no hardware.
unsafe impl ConfigSpace for Qemu {
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
        unsafe { self.pci.write16(address, offset, value) };
        if offset != CONTROL {
            return;
        }
        if value & 0x700 == 0x700 && self.registers()[1] & PDS != 0 {
            self.pci.change(address, CONTROL, u32::from(PDS) << 16, 0);
            self.set(0, 0, PDC);
        }
        if self.completes {
            self.set(0, 0, CC);
        }
    }
}

#[test]
fn a_slot_says_what_it_has() {
    let qemu = Qemu::new(QEMU, 0x01c0, PDS);
    let slot = qemu.slot();
    assert_eq!(
        slot.capabilities(),
        SlotCapabilities::all() - SlotCapabilities::NO_COMMAND_COMPLETED
    );
    assert!(slot.is_occupied() && slot.is_powered());
    assert_eq!(slot.power_indicator(), Some(Indicator::On));
    assert_eq!(slot.attention_indicator(), Some(Indicator::Off));
    assert!(slot.events().is_empty());

    qemu.set(0xffff, 0x0680, 0);
    qemu.pci.change(address(), CONTROL, u32::from(PDS) << 16, 0);
    assert!(!slot.is_occupied() && !slot.is_powered());
    assert_eq!(slot.power_indicator(), Some(Indicator::Blink));
    assert_eq!(slot.attention_indicator(), Some(Indicator::Blink));

    // Fields of what a slot does not have mean nothing.
    let bare = Qemu::new(0x40, 0x0680, 0);
    let slot = bare.slot();
    assert_eq!(slot.capabilities(), SlotCapabilities::HOT_PLUG_CAPABLE);
    assert!(slot.is_powered());
    assert_eq!(
        (slot.power_indicator(), slot.attention_indicator()),
        (None, None)
    );
    assert!(qemu.written().is_empty() && bare.written().is_empty());
}

#[test]
fn only_ports_with_a_slot_have_one() {
    let slot = |function: FakeFunction| {
        let pci = FakePci::new().with(1, 0, function);
        Slot::new(&self::function(&pci), &pci).map(|slot| slot.is_some())
    };
    assert_eq!(slot(FakeFunction::slot(4, QEMU)), Ok(true));
    assert_eq!(
        slot(FakeFunction::slot(6, QEMU)),
        Ok(true),
        "a downstream port"
    );
    assert_eq!(
        slot(FakeFunction::slot(5, QEMU)),
        Ok(false),
        "an upstream port"
    );
    assert_eq!(slot(FakeFunction::bridge()), Ok(false));
    assert_eq!(
        slot(FakeFunction::root_port()),
        Ok(false),
        "not implemented"
    );
    let at_the_end = FakeFunction::bridge()
        .capability(9, &[])
        .register(0x40, 0xe809)
        .register(0xe8, 0x0142_0010);
    assert_eq!(
        slot(at_the_end).unwrap_err().to_string(),
        "the PCI Express capability of 0000:00:01.0 at offset 0x0e8 has no room for a slot"
    );
}

#[test]
fn taking_events_clears_those_that_were_seen_and_commands_nothing() {
    let qemu = Qemu::new(QEMU, 0x01c0, PDS | ABP | PDC);
    let mut slot = qemu.slot();
    let seen = SlotEvents::ATTENTION_BUTTON_PRESSED | SlotEvents::PRESENCE_DETECT_CHANGED;
    assert_eq!(slot.events(), seen);
    assert_eq!(qemu.registers(), [0x01c0, PDS | ABP | PDC], "still there");
    // SAFETY: there is no device, and so below.
    assert_eq!(unsafe { slot.take_events() }, seen);
    assert_eq!(qemu.registers(), [0x01c0, PDS]);
    // SAFETY: as above.
    assert!(unsafe { slot.take_events() }.is_empty());
    assert_eq!(qemu.written(), [(STATUS, u32::from(ABP | PDC))]);
}

#[test]
fn a_device_is_let_go_and_another_taken() {
    // The completion of an earlier command, and a fault that is not ours to clear.
    let qemu = Qemu::new(QEMU, 0x01c5, PDS | CC | PFD);
    let mut slot = qemu.slot();
    // SAFETY: there is no device, and so below.
    assert_eq!(unsafe { slot.power_off(&mut Polls(1)) }, Ok(()));
    assert!(!slot.is_occupied() && !slot.is_powered());
    assert_eq!(slot.power_indicator(), Some(Indicator::Off));
    assert_eq!(qemu.registers(), [0x07c5, PDC | PFD]);
    let cc = u32::from(CC);
    assert_eq!(
        qemu.written(),
        [(STATUS, cc), (CONTROL, 0x07c5), (STATUS, cc)],
        "one command, whose other fields are as they were"
    );
    qemu.set(0, 0, PDS | ABP);
    // SAFETY: as above.
    assert_eq!(unsafe { slot.power_on(&mut Polls(1)) }, Ok(()));
    assert!(slot.is_occupied() && slot.is_powered());
    assert_eq!(qemu.written(), [(CONTROL, 0x01c5), (STATUS, cc)]);
}

#[test]
fn without_an_indicator_power_is_switched_alone() {
    let qemu = Qemu::new(QEMU & !0x10, 0x0000, PDS);
    // SAFETY: there is no device.
    assert_eq!(unsafe { qemu.slot().power_off(&mut Polls(1)) }, Ok(()));
    assert_eq!(qemu.registers()[0], 0x0400);
}

#[test]
fn a_slot_that_cannot_or_does_not_is_an_error() {
    let off = |qemu: &Qemu| {
        // SAFETY: there is no device.
        let error = unsafe { qemu.slot().power_off(&mut Polls(3)) }.unwrap_err();
        error.to_string()
    };
    let rigid = Qemu::new(QEMU & !0x40, 0, PDS);
    assert_eq!(
        off(&rigid),
        "the slot of 0000:00:01.0 does not support hot-plug"
    );
    let plain = Qemu::new(QEMU & !2, 0, PDS);
    assert_eq!(
        off(&plain),
        "the slot of 0000:00:01.0 has no power controller"
    );
    assert!(rigid.written().is_empty() && plain.written().is_empty());

    let mut silent = Qemu::new(QEMU, 0x01c0, PDS);
    silent.completes = false;
    assert_eq!(
        off(&silent),
        "the slot of 0000:00:01.0 does not complete the command 0x07c0"
    );
    // Unless it said that it never does.
    let mut at_once = Qemu::new(QEMU | 1 << 18, 0x01c0, PDS);
    at_once.completes = false;
    // SAFETY: there is no device.
    assert_eq!(unsafe { at_once.slot().power_off(&mut Polls(1)) }, Ok(()));
    assert_eq!(at_once.written(), [(CONTROL, 0x07c0)]);
}

#[test]
fn a_port_that_is_gone_is_empty_and_says_so() {
    let qemu = Qemu::new(QEMU, 0x01c0, PDS | ABP);
    let mut slot = qemu.slot();
    qemu.pci.change(address(), CONTROL, !0, !0);
    assert!(!slot.is_occupied());
    // SAFETY: there is no device, and so below.
    assert!(unsafe { slot.take_events() }.is_empty());
    // SAFETY: as above.
    let error = unsafe { slot.power_on(&mut Polls(3)) }.unwrap_err();
    assert_eq!(error.to_string(), "the port 0000:00:01.0 no longer answers");
    assert!(qemu.written().is_empty());
}
