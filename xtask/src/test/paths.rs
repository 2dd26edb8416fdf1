//! The paths that a machine with the default devices must have: what a guest
//! leaves out, no witness of what it says would miss.

use serde_json::Value;

use crate::qemu::Machine;

/// An interface and a way to ring, by the records' names.
pub(super) type Path = (&'static str, &'static str);

/// The kinds of device, each of which has every path.
const DEVICES: [&str; 2] = ["virtio-blk", "virtio-rng"];

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

/// Whether the guest brought both kinds of device up over every path.
///
/// # Errors
/// The first path that has no `device` record.
pub(super) fn driven<'r>(
    paths: &[Path],
    records: impl Iterator<Item = &'r Value> + Clone,
) -> Result<(), String> {
    for (device, &(transport, notify)) in DEVICES
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

/// Whether the guest timed both kinds of device over every path, `at_least` so
/// often, and every doorbell arrived.
///
/// # Errors
/// The first row that is not there, is too short or lost something.
pub(super) fn timed<'r>(
    paths: &[Path],
    at_least: u64,
    records: impl Iterator<Item = &'r Value> + Clone,
) -> Result<(), String> {
    for device in DEVICES {
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
        assert_eq!(driven(&paths, both.iter()), Ok(()));
        assert!(driven(&paths, both[..1].iter()).is_err());
        assert!(driven(&of(Machine::Microvm, 1), both.iter()).is_err());
        assert!(driven(&of(Machine::Q35, 2), both.iter()).is_err());
    }

    #[test]
    fn a_row_must_be_there_and_whole() {
        let paths = of(Machine::Microvm, 2);
        let rows = |n: u64, delivered: u64| -> Vec<Value> {
            let all = DEVICES
                .iter()
                .flat_map(|device| CASES.map(|case| (device, case)));
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
