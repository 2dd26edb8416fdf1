//! What the host is told, so that it can look for itself.

use alloc::string::ToString;

use doorbell_kernel::drive::Unit;
use doorbell_kernel::machine::Machine;
use doorbell_kernel::platform::serial;
use doorbell_kernel::record::{DeviceRecord, Record};

/// The word on the command line that says that a host is watching.
const WORD: &str = "witness";

/// The host, if it watches.
pub(crate) struct Witness {
    watching: bool,
}

impl Witness {
    /// Whether a host watches, by the command line.
    pub(crate) fn new(machine: &Machine) -> Self {
        let mut words = machine.boot.command_line().split_whitespace();
        Self {
            watching: words.any(|word| word == WORD),
        }
    }

    /// Shows the PCI functions.
    pub(crate) fn pci(&self, machine: &Machine) {
        let Some(pci) = &machine.pci else { return };
        for function in &pci.functions {
            Record::Pci(doorbell_kernel::commands::pci_record(pci, function)).emit();
        }
        self.checkpoint("pci");
    }

    /// Shows a device that is up, and waits until the host has looked at it.
    pub(crate) fn device(&self, name: &str, record: DeviceRecord) {
        Record::Device(record).emit();
        self.checkpoint(name);
    }

    fn checkpoint(&self, name: &str) {
        if !self.watching {
            return;
        }
        Record::Checkpoint { name }.emit();
        while serial::read_byte().is_none() {
            core::hint::spin_loop();
        }
    }

    /// Says how often a device's doorbell was rung.
    pub(crate) fn rang(&self, unit: &Unit, doorbells: u64) {
        let (place, device) = (unit.place.clone(), unit.name());
        Record::Rang {
            place,
            device,
            doorbells,
        }
        .emit();
    }

    /// Says what was written to a disk.
    pub(crate) fn wrote(&self, unit: &Unit, sector: u64, count: u64, seed: u64) {
        let (place, device) = (unit.place.clone(), unit.name().to_string());
        Record::Wrote {
            place,
            device,
            sector,
            count,
            seed,
        }
        .emit();
    }
}
