//! `devices`: brings each virtio device up over each of its interfaces, uses it,
//! and shows what was negotiated.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;

use super::{Command, fail};
use crate::drive::{self, Mode, Unit, Way};
use crate::machine::Machine;
use crate::println;
use crate::record::Record;

/// Tries every device over every interface.
pub(super) const COMMAND: Command = Command {
    name: "devices",
    usage: "",
    about: "brings up each virtio device over each interface, and uses it",
    defaults: &[],
    parse: |arguments| {
        arguments.none()?;
        Ok(Box::new(devices))
    },
};

fn devices(machine: &Machine) -> u32 {
    let (units, problems) = drive::units(machine);
    for (place, problem) in &problems {
        let at = place.at();
        fail("virtio-mmio", format!("{at}: {problem}"));
    }
    if units.is_empty() {
        println!("There is no virtio device.");
    }
    let mut failures = problems.len() as u32;
    for unit in &units {
        println!("{} {}", unit.at(), unit.name());
        if !unit.has_driver() {
            skip(unit, "this version has no driver for it".to_string());
            continue;
        }
        let ways = drive::ways(machine, unit);
        if ways.is_empty() {
            // As of one that is gone since it was found.
            let what = format!("{} at {}", unit.name(), unit.at());
            fail(&what, "the device shows no interface".to_string());
            failures += 1;
        }
        for (way, usable) in ways {
            match usable {
                Ok(()) => failures += u32::from(!try_way(machine, unit, way)),
                Err(reason) => skip(unit, format!("{}: {reason}", name(way))),
            }
        }
    }
    failures
}

fn skip(unit: &Unit, reason: alloc::string::String) {
    println!("  skipped: {reason}");
    Record::Skip {
        case: "device",
        place: unit.place.clone(),
        reason,
    }
    .emit();
}

/// A way's name: interface and notification.
pub fn name(way: Way) -> &'static str {
    use doorbell::transport::pci_modern::NotifyChoice;
    match way {
        Way::Legacy => "pci-legacy, pio",
        Way::Modern(NotifyChoice::Preferred | NotifyChoice::Nth(_)) => "pci-modern",
        Way::Modern(NotifyChoice::Memory) => "pci-modern, mmio",
        Way::Modern(NotifyChoice::Io) => "pci-modern, pio",
        Way::Modern(NotifyChoice::ConfigWindow) => "pci-modern, pci-cfg",
        Way::Mmio => "virtio-mmio",
    }
}

fn try_way(machine: &Machine, unit: &Unit, way: Way) -> bool {
    let mode = Mode::Polling;
    let result = drive::open(machine, unit, way, mode).and_then(|mut opened| {
        let path = opened.path();
        drive::with_device(&mut opened, drive::FEATURES, |driven, listener| {
            let about = driven
                .exercise(listener)
                .map_err(|error| error.to_string())?;
            let driver = driven.driver();
            Ok(drive::device_record(unit, path, mode, driver, about))
        })
    });
    match result {
        Ok(record) => {
            let queue = record.queues.first().map_or(0, |queue| queue.size);
            println!(
                "  {:<11}{:<8} queue of {queue}; {}",
                record.transport, record.notify, record.about
            );
            println!("    features: {}", record.features.join(" "));
            Record::Device(record).emit();
            true
        }
        Err(error) => {
            fail(
                &format!("{} at {} over {}", unit.name(), unit.at(), name(way)),
                error,
            );
            false
        }
    }
}
