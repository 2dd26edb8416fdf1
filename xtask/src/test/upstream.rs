//! What a guest must have shown of the drivers of the crate `virtio-drivers`: that each
//! drove its device over every path, or was refused where it must be.

use super::paths;
use crate::qemu::devices::Group;
use crate::qemu::{Machine, Options};
use crate::record::Record;

/// What becomes of a driver at a legacy PCI interface, which fixes the sizes of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Legacy {
    /// QEMU's device has no such interface.
    None,
    /// The sizes are the driver's.
    Driven,
    /// They are not.
    Refused,
}

/// A kind of device that upstream has a driver for.
struct Kind {
    group: Group,
    /// Its name in records, without `virtio-`.
    name: &'static str,
    several_queues: bool,
    legacy: Legacy,
}

/// All of them.
const KINDS: [Kind; 9] = [
    Kind {
        group: Group::Disks,
        name: "blk",
        several_queues: false,
        legacy: Legacy::Refused,
    },
    Kind {
        group: Group::KnownEntropy,
        name: "rng",
        several_queues: false,
        legacy: Legacy::Driven,
    },
    Kind {
        group: Group::Net,
        name: "net",
        several_queues: true,
        legacy: Legacy::Driven,
    },
    Kind {
        group: Group::Console,
        name: "console",
        several_queues: true,
        legacy: Legacy::Refused,
    },
    Kind {
        group: Group::Share,
        name: "9p",
        several_queues: false,
        legacy: Legacy::Refused,
    },
    Kind {
        group: Group::Gpu,
        name: "gpu",
        several_queues: true,
        legacy: Legacy::None,
    },
    Kind {
        group: Group::Keyboard,
        name: "input",
        several_queues: true,
        legacy: Legacy::None,
    },
    Kind {
        group: Group::Sound,
        name: "sound",
        several_queues: true,
        legacy: Legacy::None,
    },
    Kind {
        group: Group::Vsock,
        name: "vsock",
        several_queues: true,
        legacy: Legacy::None,
    },
];

/// What must become of a kind's device over one path.
struct Expected {
    kind: &'static Kind,
    transport: &'static str,
    notify: &'static str,
    refused: bool,
}

/// All of a machine's.
fn expected(options: &Options) -> impl Iterator<Item = Expected> {
    let (machine, version): (Machine, u8) = (options.machine, options.mmio_version);
    let kinds = KINDS.iter().filter(|kind| options.has(kind.group));
    kinds.flat_map(move |kind| {
        let ways = paths::ways(machine, version, kind.several_queues);
        ways.filter_map(move |(transport, notify)| {
            let legacy = match transport {
                "pci-legacy" => kind.legacy,
                _ => Legacy::Driven,
            };
            (legacy != Legacy::None).then_some(Expected {
                kind,
                transport,
                notify,
                refused: legacy == Legacy::Refused,
            })
        })
    })
}

impl Expected {
    /// Whether `record` shows it: a device that is up, or the test of the refusal.
    fn is_shown_by(&self, record: &Record) -> bool {
        let Self {
            kind,
            transport,
            notify,
            refused,
        } = self;
        if *refused {
            let name = record.text("name").unwrap_or_default();
            return record.kind() == "test"
                && record.text("result") == Some("pass")
                && name.starts_with(&format!("upstream/{}/", kind.name))
                && name.contains(&format!("/{transport}-{notify}/"))
                && name.ends_with("/is refused");
        }
        record.kind() == "device"
            && record.text("device") == Some(&format!("virtio-{}", kind.name))
            && record.text("transport") == Some(transport)
            && record.text("notify") == Some(notify)
    }
}

/// Whether the records show all that must be.
///
/// # Errors
/// The first that is missing.
pub(super) fn driven(options: &Options, records: &[Record]) -> Result<(), String> {
    for expected in expected(options) {
        if !records.iter().any(|record| expected.is_shown_by(record)) {
            let what = if expected.refused {
                "refused"
            } else {
                "driven by upstream"
            };
            let (transport, notify) = (expected.transport, expected.notify);
            return Err(format!(
                "no {} was {what} over {transport}, {notify}",
                expected.kind.name
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::tests::options;

    fn with_all(machine: Machine) -> Options {
        Options {
            groups: KINDS.iter().map(|kind| kind.group).collect(),
            ..options(machine)
        }
    }

    /// The record that shows what is expected.
    fn record(expected: &Expected) -> Record {
        let Expected {
            kind,
            transport,
            notify,
            ..
        } = expected;
        let name = kind.name;
        let text = if expected.refused {
            format!(
                r#""kind":"test","result":"pass","name":"upstream/{name}/0000:00:01.0/{transport}-{notify}/as shipped/is refused""#
            )
        } else {
            format!(
                r#""kind":"device","device":"virtio-{name}","transport":"{transport}","notify":"{notify}""#
            )
        };
        Record::parse(&format!(r#"{{"v":1,{text}}}"#)).unwrap()
    }

    #[test]
    fn what_is_left_out_is_missed() {
        for (machine, count) in [(Machine::Q35, 26), (Machine::Pc, 26), (Machine::Microvm, 9)] {
            let options = with_all(machine);
            let all: Vec<Record> = expected(&options)
                .map(|expected| record(&expected))
                .collect();
            assert_eq!(all.len(), count);
            assert_eq!(driven(&options, &all), Ok(()));
            for left_out in 0..all.len() {
                let mut others = all.clone();
                others.remove(left_out);
                assert!(driven(&options, &others).is_err(), "{left_out}");
            }
        }
    }

    #[test]
    fn a_refusal_must_be_one_and_pass() {
        let mut options = with_all(Machine::Q35);
        options.groups = vec![Group::Share];
        let mut all: Vec<Record> = expected(&options)
            .map(|expected| record(&expected))
            .collect();
        assert_eq!(driven(&options, &all), Ok(()));
        let failed = r#"{"v":1,"kind":"test","result":"fail","name":"upstream/9p/a/pci-legacy-pio/as shipped/is refused"}"#;
        all[0] = Record::parse(failed).unwrap();
        let error = driven(&options, &all).unwrap_err();
        assert_eq!(error, "no 9p was refused over pci-legacy, pio");
        let came_up = r#"{"v":1,"kind":"device","device":"virtio-9p","transport":"pci-legacy","notify":"pio"}"#;
        all[0] = Record::parse(came_up).unwrap();
        assert!(driven(&options, &all).is_err());
    }
}
