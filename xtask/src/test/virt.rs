//! The library on a machine without IO ports (`tests/virt`): QEMU's riscv64 `virt`. What
//! the kernel says it rang is compared with what QEMU traced: the doorbells of each
//! device, and the writes to each path's own region of memory or ports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::report::Report;
use super::witness::{doorbells, trace::Trace};
use crate::qemu::launch::{Ended, Launch, launch};
use crate::qemu::{DOORBELL_EVENT, Files};
use crate::record::Record;
use crate::setup::toolchain::VIRT_TARGET;
use crate::setup::{self, SetupArgs};
use crate::virt;

/// A boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The version of virtio-mmio.
    mmio: u8,
}

/// All cases.
pub(crate) const CASES: [Case; 2] = [
    Case {
        name: "riscv64",
        mmio: 2,
    },
    Case {
        name: "riscv64-mmio-v1",
        mmio: 1,
    },
];

/// What is needed: QEMU, and the kernel.
pub(crate) type Needs = Result<(PathBuf, PathBuf), String>;

/// How long the kernel may take: many times what it does.
const PATIENCE: Duration = Duration::from_secs(60);
/// QEMU's trace of each write to a device's registers.
const WRITE_EVENT: &str = "memory_region_ops_write";

/// The paths that the devices of the kernel's runner have, device by device: its
/// interface and its doorbell.
const PCI_PATHS: [(&str, &str); 7] = [
    ("pci-legacy", "pio"),
    ("pci-modern", "pio"),
    ("pci-modern", "mmio"),
    ("pci-modern", "pci-cfg"),
    // Behind the bridge.
    ("pci-legacy", "pio"),
    ("pci-modern", "mmio"),
    ("pci-modern", "pci-cfg"),
];

/// Sets up what is needed, and builds the kernel.
pub(super) fn needs(args: &SetupArgs) -> Result<(PathBuf, PathBuf)> {
    let qemu = setup::qemu_riscv64(args)?;
    let toolchain = setup::target(args, VIRT_TARGET)?;
    Ok((qemu, virt::build(&toolchain)?))
}

/// Runs a case.
pub(super) fn run(case: Case, needs: &Needs, folder: &Path) -> Result<Report> {
    let mut report = Report::default();
    let (qemu, kernel) = match needs {
        Ok(needs) => needs,
        Err(why) => {
            report.fail("", why.as_str());
            return Ok(report);
        }
    };
    let files = Files::new(folder.to_owned())?;
    let traced = files.trace();
    let log = traced.to_str().context("the folder is not UTF-8")?;
    let legacy = if case.mmio == 1 { "on" } else { "off" };
    let version = format!("virtio-mmio.force-legacy={legacy}");
    // As eventfds several doorbells may become one.
    let direct = "virtio-pci.ioeventfd=off";
    let more = [
        "-global",
        version.as_str(),
        "-global",
        direct,
        "-trace",
        DOORBELL_EVENT,
        "-trace",
        WRITE_EVENT,
        "-D",
        log,
    ];
    let command = virt::command_line(qemu, kernel, &more)?;
    let run = Launch::unseen(&command, &files, PATIENCE);
    let ended = launch(&run, &mut |_, _| None)?;
    report.check("", content(&ended));
    let records = &ended.records;
    report.check("paths", paths(records, case.mmio));
    report.check("figures", figures(records));
    let mut trace = Trace::new(traced.clone());
    let counted = trace.read_on();
    let counted = counted.and_then(|()| doorbells::compare(&trace.doorbells, records, true));
    report.check("doorbells", counted);
    let text = std::fs::read_to_string(&traced).context("cannot read QEMU's trace")?;
    report.check("writes", writes(&text, records));
    Ok(report)
}

fn content(ended: &Ended) -> Result<(), String> {
    let verdict = ended
        .records
        .last()
        .and_then(|record| record.text("verdict"));
    if ended.cut.is_none()
        && ended.status == Some(0)
        && ended.malformed.is_empty()
        && verdict == Some("success")
    {
        return Ok(());
    }
    let (cut, status, line) = (ended.cut, ended.status, &ended.last_line);
    Err(format!(
        "QEMU ended with {status:?} ({cut:?}), malformed: {:?}; the kernel said last: {line}{}",
        ended.malformed,
        ended.qemu_said()
    ))
}

fn of_kind<'r>(records: &'r [Record], kind: &'r str) -> impl Iterator<Item = &'r Record> {
    records.iter().filter(move |record| record.kind() == kind)
}

/// A record's path: interface and doorbell.
fn path(record: &Record) -> (&str, &str) {
    let text = |key| record.text(key).unwrap_or_default();
    (text("transport"), text("notify"))
}

/// Whether the kernel came to every path.
fn paths(records: &[Record], mmio: u8) -> Result<(), String> {
    let slot = if mmio == 1 { "mmio-v1" } else { "mmio-v2" };
    let expected: Vec<_> = PCI_PATHS.into_iter().chain([(slot, "mmio")]).collect();
    let found: Vec<_> = of_kind(records, "rang").map(path).collect();
    if found == expected {
        return Ok(());
    }
    Err(format!("the paths are {found:?}, not {expected:?}"))
}

/// Whether each path has figures, of doorbells that all arrived.
fn figures(records: &[Record]) -> Result<(), String> {
    let rows = of_kind(records, "rang").count();
    for case in ["doorbell-idle", "round-trip"] {
        let of_case = |record: &&Record| record.text("case") == Some(case);
        let summaries: Vec<_> = of_kind(records, "summary").filter(of_case).collect();
        if summaries.len() != rows || rows == 0 {
            return Err(format!(
                "{} rows of {case} for {rows} paths",
                summaries.len()
            ));
        }
        for record in summaries {
            let (n, delivered) = (record.number("n"), record.number("delivered"));
            let figure = |key: &str| record.value()[key].as_f64().unwrap_or(f64::NAN);
            let ordered = figure("min") > 0.0
                && figure("min") <= figure("p50")
                && figure("p50") <= figure("max");
            if n.is_none_or(|n| n == 0) || n != delivered || !ordered {
                return Err(format!("not a good row: {}", record.value()));
            }
        }
    }
    Ok(())
}

/// A doorbell's place as QEMU's trace has it: the name of its region begins with the
/// first, and the address has these bits. QEMU counts from the beginning of a region
/// that others lead to: the window to IO space, or the ECAM.
fn place(record: &Record) -> Result<(&'static str, u64, u64), String> {
    let address = record.text("address").and_then(hexadecimal);
    let address = address.ok_or_else(|| format!("no address: {}", record.value()))?;
    match path(record) {
        ("pci-legacy", "pio") => Ok(("virtio-pci'", address, 0xffff)),
        ("pci-modern", "pio") => Ok(("virtio-pci-notify-pio-", address, 0xffff)),
        ("pci-modern", "mmio") => Ok(("virtio-pci-notify-virtio-", address, u64::MAX)),
        ("pci-modern", "pci-cfg") => Ok(("pcie-mmcfg", address, 0x0fff_ffff)),
        ("mmio-v1" | "mmio-v2", "mmio") => Ok(("virtio-mmio'", address, u64::MAX)),
        other => Err(format!("no such path: {other:?}")),
    }
}

/// Whether as many writes of the doorbell's width came to each doorbell as the kernel
/// says that it rang.
fn writes(trace: &str, records: &[Record]) -> Result<(), String> {
    let rang = |record: &Record| record.number("doorbells").unwrap_or_default();
    let rows: Vec<&Record> = of_kind(records, "rang").collect();
    for record in &rows {
        let (name, address, mask) = place(record)?;
        let bytes = record.number("bits").unwrap_or_default() / 8;
        let mut expected = rang(record);
        // The configuration window writes to the doorbell in the memory BAR in its turn.
        if path(record) == ("pci-modern", "mmio") {
            let window = rows.iter().filter(|other| {
                other.address() == record.address() && path(other) == ("pci-modern", "pci-cfg")
            });
            expected += window.map(|other| rang(other)).sum::<u64>();
        }
        let writes = trace.lines().filter_map(Write::parse);
        let hits = writes.filter(|write| {
            write.name.starts_with(name)
                && write.address & mask == address & mask
                && write.bytes == bytes
        });
        let counted = hits.count() as u64;
        if counted != expected || expected == 0 {
            let address = record.address().unwrap_or_default();
            return Err(format!(
                "{address} over {:?}: {expected} doorbells, and QEMU saw {counted} writes there",
                path(record)
            ));
        }
    }
    Ok(())
}

/// A line of the trace: `memory_region_ops_write cpu 0 mr 0x55d1 addr 0x1010 value 0x0
/// size 2 name 'virtio-pci'`, perhaps after a process and a time.
#[derive(Debug, PartialEq, Eq)]
struct Write<'t> {
    address: u64,
    bytes: u64,
    /// With the quote at its end.
    name: &'t str,
}

impl<'t> Write<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let (_, rest) = line.split_once(WRITE_EVENT)?;
        let after = |key: &str| {
            let (_, rest) = rest.split_once(key)?;
            rest.split_whitespace().next()
        };
        Some(Self {
            address: hexadecimal(after(" addr ")?)?,
            bytes: after(" size ")?.parse().ok()?,
            name: rest.split_once(" name '")?.1,
        })
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rang(fields: &str, doorbells: u64) -> Record {
        let text = format!(r#"{{"v":1,"kind":"rang","doorbells":{doorbells},{fields}}}"#);
        Record::parse(&text).unwrap()
    }

    const PIO: &str =
        r#""bdf":"a","transport":"pci-legacy","notify":"pio","address":"0x3001010","bits":16"#;
    const MEMORY: &str =
        r#""bdf":"a","transport":"pci-modern","notify":"mmio","address":"0x40203000","bits":16"#;
    const WINDOW: &str =
        r#""bdf":"a","transport":"pci-modern","notify":"pci-cfg","address":"0x301000d8","bits":32"#;
    const TRACE: &str = "\
        memory_region_ops_write cpu 0 mr 0x55 addr 0x1010 value 0x0 size 2 name 'virtio-pci'\n\
        7@1.5:memory_region_ops_write cpu 0 mr 0x55 addr 0x1010 value 0x0 size 2 name 'virtio-pci'\n\
        memory_region_ops_write cpu 0 mr 0x55 addr 0x1012 value 0x0 size 1 name 'virtio-pci'\n\
        memory_region_ops_write cpu 0 mr 0x56 addr 0x40203000 value 0x0 size 2 name 'virtio-pci-notify-virtio-rng'\n\
        memory_region_ops_write cpu 0 mr 0x57 addr 0x1000d8 value 0x0 size 4 name 'pcie-mmcfg-mmio'\n\
        memory_region_ops_write cpu 0 mr 0x56 addr 0x40203000 value 0x0 size 2 name 'virtio-pci-notify-virtio-rng'\n\
        virtio_queue_notify vdev 0x66aa n 0 vq 0x7f00\n";

    #[test]
    fn each_doorbell_is_a_write_to_its_place() {
        let honest = [rang(PIO, 2), rang(MEMORY, 1), rang(WINDOW, 1)];
        assert_eq!(writes(TRACE, &honest), Ok(()));
        let one_more = [rang(PIO, 3)];
        let error = writes(TRACE, &one_more).unwrap_err();
        assert!(error.contains("3 doorbells, and QEMU saw 2"), "{error}");
        // By the other interface, by another width, or never.
        let other = PIO.replace("legacy", "modern");
        assert!(writes(TRACE, &[rang(&other, 2)]).is_err());
        assert!(writes(TRACE, &[rang(&PIO.replace("16", "32"), 2)]).is_err());
        assert!(writes("", &[rang(PIO, 0)]).is_err());
        // The window's share is not the memory BAR's own.
        assert!(writes(TRACE, &[rang(MEMORY, 1)]).is_err());
    }

    #[test]
    fn every_path_must_be_there() {
        let all: Vec<Record> = PCI_PATHS
            .into_iter()
            .chain([("mmio-v2", "mmio")])
            .map(|(transport, notify)| {
                let path = format!(r#""transport":"{transport}","notify":"{notify}""#);
                rang(&path, 1)
            })
            .collect();
        assert_eq!(paths(&all, 2), Ok(()));
        assert!(paths(&all, 1).is_err() && paths(&all[1..], 2).is_err());
    }

    #[test]
    fn a_doorbell_that_did_not_arrive_is_no_figure() {
        let row = |case: &str, delivered: u64, min: f64| {
            let text = format!(
                r#"{{"v":1,"kind":"summary","case":"{case}","n":9,"delivered":{delivered},"min":{min},"p50":5.0,"max":6.0}}"#
            );
            Record::parse(&text).unwrap()
        };
        let rows = |delivered, min| {
            let trip = row("round-trip", delivered, min);
            [rang(PIO, 1), row("doorbell-idle", 9, 4.0), trip]
        };
        assert_eq!(figures(&rows(9, 4.0)), Ok(()));
        assert!(figures(&rows(8, 4.0)).is_err(), "one is lost");
        assert!(figures(&rows(9, 5.5)).is_err() && figures(&rows(9, -1.0)).is_err());
        assert!(figures(&rows(9, 4.0)[..2]).is_err(), "a row is missing");
        assert!(figures(&[]).is_err());
    }
}
