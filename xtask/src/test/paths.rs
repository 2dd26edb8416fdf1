//! The paths that a machine with the default devices must have: what a guest
//! leaves out, no witness of what it says would miss.

use serde_json::Value;

use crate::qemu::devices::Group;
use crate::qemu::{Machine, Options};

/// An interface, a way to ring and a way to interrupt, by the records' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    transport: &'static str,
    notify: &'static str,
    interrupts: &'static str,
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, {}, {}",
            self.transport, self.notify, self.interrupts
        )
    }
}

/// A kind of device that the guest has a driver for.
pub(super) struct Kind {
    group: Group,
    /// What the devices' IDs begin with.
    pub(super) prefix: &'static str,
    /// Its name in records.
    name: &'static str,
    /// Whether it has more queues than the window in configuration space rings.
    several_queues: bool,
    /// Whether QEMU gives it MSI-X.
    msix: bool,
    /// Whether the main job times it.
    timed: bool,
}

/// All of them.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        group: Group::Disks,
        prefix: "blk",
        name: "virtio-blk",
        several_queues: false,
        msix: true,
        timed: true,
    },
    Kind {
        group: Group::Entropy,
        prefix: "rng",
        name: "virtio-rng",
        several_queues: false,
        msix: true,
        timed: true,
    },
    Kind {
        group: Group::Net,
        prefix: "net",
        name: "virtio-net",
        several_queues: true,
        msix: true,
        timed: false,
    },
    Kind {
        group: Group::Console,
        prefix: "con",
        name: "virtio-console",
        several_queues: true,
        msix: true,
        timed: false,
    },
    Kind {
        group: Group::Balloon,
        prefix: "balloon",
        name: "virtio-balloon",
        several_queues: true,
        msix: false,
        timed: false,
    },
];

/// The kinds that a machine has.
pub(super) fn kinds(options: &Options) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| options.has(kind.group))
}

/// What is timed of a path that is polled.
const POLLED: [&str; 3] = ["doorbell-idle", "doorbell-request", "round-trip"];

/// What is timed of one that interrupts, and how much less often.
const INTERRUPTED: [&str; 2] = ["to-handler", "to-wake-up"];
const DEARER: u64 = 5;

const POLLING: &str = "polling";
const LINE: [&str; 2] = [POLLING, "line"];
const MSIX: [&str; 2] = ["msix-shared", "msix-per-queue"];
const CONFIG_WINDOW: &str = "pci-cfg";

/// The interfaces of a transitional device on a machine's root bus, each with the ways
/// to ring; `several_queues`: for which the window in configuration space has no room.
pub(super) fn ways(
    machine: Machine,
    mmio_version: u8,
    several_queues: bool,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let ways: &[_] = match (machine, mmio_version) {
        (Machine::Q35 | Machine::Pc, _) => &[
            ("pci-legacy", "pio"),
            ("pci-modern", "mmio"),
            ("pci-modern", "pio"),
            ("pci-modern", CONFIG_WINDOW),
        ],
        (Machine::Microvm, 1) => &[("mmio-v1", "mmio")],
        (Machine::Microvm, _) => &[("mmio-v2", "mmio")],
    };
    let ways = ways.iter().copied();
    ways.filter(move |(_, notify)| *notify != CONFIG_WINDOW || !several_queues)
}

/// The paths that a machine has to a device of this kind.
fn of(kind: &Kind, machine: Machine, mmio_version: u8) -> Vec<Path> {
    let vectors = kind.msix && machine != Machine::Microvm;
    let modes = LINE.iter().chain(MSIX.iter().filter(|_| vectors));
    let ways = ways(machine, mmio_version, kind.several_queues);
    ways.flat_map(|(transport, notify)| {
        modes.clone().map(move |&interrupts| Path {
            transport,
            notify,
            interrupts,
        })
    })
    .collect()
}

fn is(record: &Value, key: &str, text: &str) -> bool {
    record[key].as_str() == Some(text)
}

/// Whether a record is of this kind of device over this path, but for the interrupts.
fn is_over(record: &Value, kind: &Kind, path: &Path) -> bool {
    is(record, "device", kind.name)
        && is(record, "transport", path.transport)
        && is(record, "notify", path.notify)
}

/// Whether the guest brought these kinds of device up over every path.
///
/// # Errors
/// The first path that has no `device` record.
pub(super) fn driven<'r>(
    kinds: impl Iterator<Item = &'static Kind>,
    machine: Machine,
    mmio_version: u8,
    records: impl Iterator<Item = &'r Value> + Clone,
) -> Result<(), String> {
    for kind in kinds {
        for path in of(kind, machine, mmio_version) {
            let found = records.clone().any(|record| {
                is(record, "kind", "device")
                    && is_over(record, kind, &path)
                    && is(record, "interrupts", path.interrupts)
            });
            if !found {
                return Err(format!("no {} was driven over {path}", kind.name));
            }
        }
    }
    Ok(())
}

/// Whether the guest timed each kind of device that it times over every path, `at_least` so
/// often (interrupts less often), and every doorbell and interrupt arrived.
///
/// # Errors
/// The first row that is not there, is too short or lost something.
pub(super) fn timed<'r>(
    machine: Machine,
    mmio_version: u8,
    at_least: u64,
    records: impl Iterator<Item = &'r Value> + Clone,
) -> Result<(), String> {
    for kind in KINDS.iter().filter(|kind| kind.timed) {
        for path in of(kind, machine, mmio_version) {
            let polled = path.interrupts == POLLING;
            let (cases, at_least): (&[_], _) = if polled {
                (&POLLED, at_least)
            } else {
                (&INTERRUPTED, at_least / DEARER)
            };
            for case in cases {
                let row = format!("{case} of {} over {path}", kind.name);
                let summary = records.clone().find(|record| {
                    let mode = record["interrupts"].as_str().unwrap_or(POLLING);
                    is(record, "kind", "summary")
                        && is(record, "case", case)
                        && is_over(record, kind, &path)
                        && mode == path.interrupts
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

    /// A device record of each path of a microvm.
    fn devices() -> Vec<Value> {
        let all = KINDS.iter().flat_map(|kind| {
            let paths = of(kind, Machine::Microvm, 2);
            paths.into_iter().map(move |path| (kind, path))
        });
        all.map(|(kind, path)| {
            json!({
                "kind": "device", "device": kind.name, "transport": path.transport,
                "notify": path.notify, "interrupts": path.interrupts,
            })
        })
        .collect()
    }

    #[test]
    fn a_path_that_is_left_out_is_missed() {
        let all = devices();
        assert_eq!(all.len(), 2 * KINDS.len());
        let driven = |machine, version, records: &[Value]| {
            driven(KINDS.iter(), machine, version, records.iter())
        };
        assert_eq!(driven(Machine::Microvm, 2, &all), Ok(()));
        for left_out in 0..all.len() {
            let mut others = all.clone();
            others.remove(left_out);
            assert!(driven(Machine::Microvm, 2, &others).is_err(), "{left_out}");
        }
        assert!(driven(Machine::Microvm, 1, &all).is_err());
        assert!(driven(Machine::Q35, 2, &all).is_err());
    }

    #[test]
    fn a_window_that_rings_one_queue_is_not_asked_of_several() {
        for kind in KINDS {
            let paths = of(kind, Machine::Q35, 2);
            let window = paths.iter().any(|path| path.notify == CONFIG_WINDOW);
            assert_eq!(window, !kind.several_queues, "{}", kind.name);
            let modes = if kind.msix { 4 } else { 2 };
            assert_eq!(paths.len(), modes * if window { 4 } else { 3 });
        }
    }

    #[test]
    fn a_row_must_be_there_and_whole() {
        let rows = |n: u64, lost: u64| -> Vec<Value> {
            let mut rows = Vec::new();
            for kind in KINDS.iter().filter(|kind| kind.timed) {
                for case in POLLED {
                    rows.push(json!({
                        "kind": "summary", "case": case, "device": kind.name,
                        "transport": "mmio-v2", "notify": "mmio", "n": n, "delivered": n - lost,
                    }));
                }
                for case in INTERRUPTED {
                    rows.push(json!({
                        "kind": "summary", "case": case, "device": kind.name,
                        "transport": "mmio-v2", "notify": "mmio", "interrupts": "line",
                        "n": n / DEARER, "delivered": n / DEARER - lost,
                    }));
                }
            }
            rows
        };
        let timed = |at_least, rows: &[Value]| timed(Machine::Microvm, 2, at_least, rows.iter());
        assert_eq!(timed(40, &rows(40, 0)), Ok(()));
        assert!(timed(45, &rows(40, 0)).is_err());
        assert!(timed(40, &rows(40, 1)).is_err());
        let all = rows(40, 0);
        for left_out in 0..all.len() {
            let mut others = all.clone();
            others.remove(left_out);
            assert!(timed(40, &others).is_err(), "{left_out}");
        }
    }
}
