//! The paths that a machine with the default devices must have: what a guest
//! leaves out, no witness of what it says would miss.

use serde_json::Value;

use crate::qemu::devices::Group;
use crate::qemu::{Machine, Options};

/// An interface and a way to ring, by the records' names.
pub(super) type Path = (&'static str, &'static str);

/// A kind of device that the guest has a driver for, and that has every path.
pub(super) struct Kind {
    group: Group,
    /// What the devices' IDs begin with.
    pub(super) prefix: &'static str,
    /// Its name in records.
    name: &'static str,
    /// Whether the main job times it.
    timed: bool,
}

/// All of them.
pub(super) const KINDS: [Kind; 2] = [
    Kind {
        group: Group::Disks,
        prefix: "blk",
        name: "virtio-blk",
        timed: true,
    },
    Kind {
        group: Group::Entropy,
        prefix: "rng",
        name: "virtio-rng",
        timed: true,
    },
];

/// The kinds that a machine has, by their names in records.
pub(super) fn kinds(options: &Options) -> Vec<&'static str> {
    let kinds = KINDS.iter().filter(|kind| options.has(kind.group));
    kinds.map(|kind| kind.name).collect()
}

/// The cases that are timed of each path.
const CASES: [&str; 3] = ["doorbell-idle", "doorbell-request", "round-trip"];

const PCI: [Path; 4] = [
    ("pci-legacy", "pio"),
    ("pci-modern", "mmio"),
    ("pci-modern", "pio"),
    ("pci-modern", "pci-cfg"),
];

/// The paths of a machine.
pub(super) fn of(machine: Machine, mmio_version: u8) -> Vec<Path> {
    match (machine, mmio_version) {
        (Machine::Q35 | Machine::Pc, _) => PCI.to_vec(),
        (Machine::Microvm, 1) => vec![("mmio-v1", "mmio")],
        (Machine::Microvm, _) => vec![("mmio-v2", "mmio")],
    }
}

fn is(record: &Value, key: &str, text: &str) -> bool {
    record[key].as_str() == Some(text)
}

/// Whether the guest brought these kinds of device up over every path.
///
/// # Errors
/// The first path that has no `device` record.
pub(super) fn driven<'r>(
    kinds: &[&str],
    paths: &[Path],
    records: impl Iterator<Item = &'r Value> + Clone,
) -> Result<(), String> {
    for (device, &(transport, notify)) in kinds
        .iter()
        .flat_map(|device| paths.iter().map(move |path| (device, path)))
    {
        let found = records.clone().any(|record| {
            is(record, "kind", "device")
                && is(record, "device", device)
                && is(record, "transport", transport)
                && is(record, "notify", notify)
        });
        if !found {
            return Err(format!("no {device} was driven over {transport}, {notify}"));
        }
    }
    Ok(())
}

/// Whether the guest timed each kind of device that it times over every path, `at_least` so
/// often, and every doorbell arrived.
///
/// # Errors
/// The first row that is not there, is too short or lost something.
pub(super) fn timed<'r>(
    paths: &[Path],
    at_least: u64,
    records: impl Iterator<Item = &'r Value> + Clone,
) -> Result<(), String> {
    for device in KINDS.iter().filter(|kind| kind.timed).map(|kind| kind.name) {
        for case in CASES {
            for &(transport, notify) in paths {
                let row = format!("{case} of {device} over {transport}, {notify}");
                let summary = records.clone().find(|record| {
                    is(record, "kind", "summary")
                        && is(record, "case", case)
                        && is(record, "device", device)
                        && is(record, "transport", transport)
                        && is(record, "notify", notify)
                });
                let summary = summary.ok_or_else(|| format!("there is no row {row}"))?;
                let number = |key: &str| summary[key].as_u64().unwrap_or_default();
                if number("n") < at_least || number("delivered") != number("n") {
                    return Err(format!(
                        "{row}: n is {}, delivered {}",
                        summary["n"], summary["delivered"]
                    ));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_that_is_left_out_is_missed() {
        let paths = of(Machine::Microvm, 2);
        let record = |kind: &str, device: &str| json!({"kind": kind, "device": device, "transport": "mmio-v2", "notify": "mmio"});
        let both = [
            record("device", "virtio-blk"),
            record("device", "virtio-rng"),
        ];
        let driven = |paths: &[Path], records| driven(&KINDS.map(|kind| kind.name), paths, records);
        assert_eq!(driven(&paths, both.iter()), Ok(()));
        assert!(driven(&paths, both[..1].iter()).is_err());
        assert!(driven(&of(Machine::Microvm, 1), both.iter()).is_err());
        assert!(driven(&of(Machine::Q35, 2), both.iter()).is_err());
    }

    #[test]
    fn a_row_must_be_there_and_whole() {
        let paths = of(Machine::Microvm, 2);
        let rows = |n: u64, delivered: u64| -> Vec<Value> {
            let all = KINDS
                .iter()
                .flat_map(|kind| CASES.map(|case| (kind.name, case)));
            all.map(|(device, case)| {
                json!({
                    "kind": "summary", "case": case, "device": device,
                    "transport": "mmio-v2", "notify": "mmio", "n": n, "delivered": delivered,
                })
            })
            .collect()
        };
        assert_eq!(timed(&paths, 40, rows(40, 40).iter()), Ok(()));
        assert!(timed(&paths, 41, rows(40, 40).iter()).is_err());
        assert!(timed(&paths, 40, rows(40, 39).iter()).is_err());
        assert!(timed(&paths, 40, rows(40, 40)[1..].iter()).is_err());
    }
}
