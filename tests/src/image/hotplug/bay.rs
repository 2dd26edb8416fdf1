//! A slot with the disk that belongs there.

use alloc::string::ToString;
use alloc::vec::Vec;

use doorbell::device::Setup;
use doorbell::device::blk::{self, Blk, ID_LEN};
use doorbell::pci::hotplug::{Indicator, Slot};
use doorbell::pci::{ConfigSpace, Function, PciAddress, SlotEvents};
use doorbell::virtio::{Features, Wait};
use doorbell_kernel::clock::Deadline;
use doorbell_kernel::drive::{self, Mode, Unit};
use doorbell_kernel::machine::{Machine, Pci};
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Stop, ensure, skip};

use crate::witness::Witness;

/// What the disk is called that can be taken out, by the host and by itself, and
/// the other one.
const REMOVABLE: (&str, &[u8]) = ("blk7", b"doorbell-disk7");
const OTHER: &str = "blk8";

/// A slot with the disk that belongs there.
pub(super) struct Bay {
    /// What the host calls the disk.
    pub(super) id: &'static str,
    slot: Slot<&'static dyn ConfigSpace>,
    port: PciAddress,
}

/// The slot with the disk that can be taken out, and the empty one.
pub(super) fn find(machine: &Machine, witness: &Witness) -> Result<(Bay, Bay), Stop> {
    let Some(pci) = &machine.pci else {
        skip!("there is no PCI on this machine");
    };
    let (mut full, mut empty) = (None, None);
    for port in pci.functions.iter().filter(|function| function.hot_plug) {
        let Some(slot) = Slot::new(port, pci.config)? else {
            continue;
        };
        let bay = |id| Bay {
            id,
            slot,
            port: port.address,
        };
        let other = bay(OTHER);
        match other.disk(machine) {
            None if !slot.is_occupied() => empty = Some(other),
            Some(unit) if is_removable(machine, &unit, witness)? => full = Some(bay(REMOVABLE.0)),
            _ => {}
        }
    }
    let Some(full) = full else {
        skip!("no slot of this machine has a disk that may be taken out");
    };
    let empty = empty.ok_or_else(|| Stop::failed("there is no empty slot"))?;
    Ok((full, empty))
}

/// Whether a disk says that it is the one.
fn is_removable(machine: &Machine, unit: &Unit, witness: &Witness) -> Result<bool, Stop> {
    let ways = drive::ways(machine, unit).into_iter();
    let Some((way, _)) = ways.into_iter().find(|(_, usable)| usable.is_ok()) else {
        return Ok(false);
    };
    let opened = drive::open(machine, unit, way, Mode::Polling);
    let mut opened = opened.map_err(Stop::failed)?;
    let mut wait = machine.clock.patience();
    let setup = Setup::new(8, Features::empty());
    let mut blk = Blk::new(&mut *opened.transport, &setup, KernelDma, &mut wait)?;
    let id: [u8; ID_LEN] = blk.device_id(&mut wait)?;
    witness.rang(unit, drive::doorbells(&mut blk));
    Ok(id.starts_with(REMOVABLE.1))
}

impl Bay {
    /// The disk in it, as the last scan found it.
    pub(super) fn disk(&self, machine: &Machine) -> Option<Unit> {
        let pci = machine.pci.as_ref()?;
        let behind = |function: &Function| {
            let parent = function.parent.and_then(|index| pci.functions.get(index));
            parent.is_some_and(|parent| parent.address == self.port)
        };
        let functions = pci.functions.iter().filter(|function| behind(function));
        let places: Vec<_> = functions.map(|own| Some(own.address.to_string())).collect();
        let (units, _) = drive::units(machine);
        let mut units = units.into_iter();
        units.find(|unit| unit.device_type == blk::DEVICE_TYPE && places.contains(&unit.place.bdf))
    }

    /// Looks what is there now. No device is open.
    pub(super) fn scan(&self, machine: &mut Machine) -> Outcome {
        let Machine { pci, acpi, .. } = machine;
        let pci: Option<&mut Pci> = pci.as_mut();
        let pci = pci.ok_or_else(|| Stop::failed("there is no PCI"))?;
        // SAFETY: nothing is open, and so nobody accesses any function but by its
        // configuration.
        unsafe { pci.rescan(acpi) }?;
        Ok(())
    }

    /// Has the host ask for the disk.
    pub(super) fn ask_for(&mut self, machine: &Machine, witness: &Witness) -> Outcome {
        // SAFETY: the port is this kernel's.
        unsafe { self.slot.take_events() };
        self.ask(witness, "unplug")?;
        let button = SlotEvents::ATTENTION_BUTTON_PRESSED;
        self.take(button, machine.clock.patience())?;
        ensure!(
            self.slot.is_occupied() && self.slot.is_powered(),
            "it went before it was let go"
        );
        Ok(())
    }

    /// Switches the slot off, after which the disk is gone.
    ///
    /// # Safety
    ///
    /// What still uses the disk stands that it is gone.
    pub(super) unsafe fn power_off(&mut self, machine: &Machine, witness: &Witness) -> Outcome {
        // SAFETY: the caller's promise.
        unsafe { self.slot.power_off(&mut machine.clock.patience()) }?;
        ensure!(!self.slot.is_occupied(), "it is still there");
        ensure!(!self.slot.is_powered(), "the slot still has power");
        let indicator = self.slot.power_indicator();
        ensure!(indicator == Some(Indicator::Off), "it shows {indicator:?}");
        let changed = SlotEvents::PRESENCE_DETECT_CHANGED;
        self.take(changed, machine.clock.patience())?;
        self.ask(witness, "unplugged")
    }

    /// Has the host put the disk in, and switches the slot on.
    pub(super) fn put_in(&mut self, machine: &mut Machine, witness: &Witness) -> Outcome {
        ensure!(!self.slot.is_occupied(), "there is one already");
        // SAFETY: the port is this kernel's.
        unsafe { self.slot.take_events() };
        self.ask(witness, "plug")?;
        let events = SlotEvents::ATTENTION_BUTTON_PRESSED | SlotEvents::PRESENCE_DETECT_CHANGED;
        self.take(events, machine.clock.patience())?;
        ensure!(self.slot.is_occupied(), "the slot is empty");
        ensure!(!self.slot.is_powered(), "the slot has power already");
        // SAFETY: the port is this kernel's.
        unsafe { self.slot.power_on(&mut machine.clock.patience()) }?;
        ensure!(self.slot.is_powered(), "the slot has no power");
        let indicator = self.slot.power_indicator();
        ensure!(indicator == Some(Indicator::On), "it shows {indicator:?}");
        self.scan(machine)
    }

    fn ask(&self, witness: &Witness, action: &str) -> Outcome {
        let answer = witness.ask(&Default::default(), action, [("id", self.id.into())]);
        answer.map(drop)
    }

    /// Waits until all of `expected` has happened, and forgets it.
    fn take(&mut self, expected: SlotEvents, mut wait: Deadline) -> Outcome {
        while !self.slot.events().contains(expected) {
            let events = self.slot.events();
            ensure!(wait.again(), "{expected:?} is not in {events:?}");
        }
        // SAFETY: the port is this kernel's.
        unsafe { self.slot.take_events() };
        let left = self.slot.events();
        ensure!(left.is_empty(), "{left:?} does not go");
        Ok(())
    }
}
