//! What the host is told, so that it can look for itself, and what it is asked for.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::virtio::Wait as _;
use doorbell_kernel::clock::Clock;
use doorbell_kernel::drive::Unit;
use doorbell_kernel::machine::Machine;
use doorbell_kernel::platform::serial;
use doorbell_kernel::record::{Argument, DeviceRecord, Place, Record};
use doorbell_tests::{Stop, skip};

/// The word on the command line that says that a host is watching.
const WORD: &str = "witness";

/// How long the host may take for an answer, in milliseconds: longer than it gives
/// itself for anything.
const ANSWER_MS: u64 = 100_000;

/// The host, if it watches.
pub(crate) struct Witness {
    watching: bool,
    clock: Clock,
}

impl Witness {
    /// Whether a host watches, by the command line.
    pub(crate) fn new(machine: &Machine) -> Self {
        let mut words = machine.boot.command_line().split_whitespace();
        Self {
            watching: words.any(|word| word == WORD),
            clock: machine.clock,
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

    /// Has the host do something with the device at `place` (or with none), and returns
    /// what it answers. A test that needs an answer is skipped where nobody watches, and
    /// fails with the host's reason where the answer is no.
    pub(crate) fn ask<const N: usize>(
        &self,
        place: &Place,
        action: &str,
        arguments: [(&str, Argument<'_>); N],
    ) -> Result<String, Stop> {
        self.ask_while(place, action, arguments, || {})
    }

    /// The same, with something to do until the answer comes.
    pub(crate) fn ask_while<const N: usize>(
        &self,
        place: &Place,
        action: &str,
        arguments: [(&str, Argument<'_>); N],
        mut meanwhile: impl FnMut(),
    ) -> Result<String, Stop> {
        if !self.watching {
            skip!("no host watches that could answer `{action}`");
        }
        Record::Ask {
            action,
            place: place.clone(),
            arguments: BTreeMap::from(arguments),
        }
        .emit();
        let mut line = Vec::new();
        let mut patience = self.clock.wait_ms(ANSWER_MS);
        loop {
            match serial::read_byte() {
                Some(b'\n') => break,
                Some(byte) => line.push(byte),
                None if patience.again() => meanwhile(),
                None => return Err(Stop::failed(format_args!("no answer to `{action}`"))),
            }
        }
        let line = String::from_utf8_lossy(&line);
        match line.split_once(' ') {
            Some(("ok", answer)) => Ok(answer.to_string()),
            Some(("no", reason)) => Err(Stop::failed(format_args!("{action}: {reason}"))),
            _ => Err(Stop::failed(format_args!(
                "the answer to `{action}` is \"{line}\""
            ))),
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

    /// Says of which sectors of a disk zeros were made.
    pub(crate) fn zeroed(&self, unit: &Unit, sector: u64, count: u64) {
        let (place, device) = (unit.place.clone(), unit.name());
        Record::Zeroed {
            place,
            device,
            sector,
            count,
        }
        .emit();
    }
}
