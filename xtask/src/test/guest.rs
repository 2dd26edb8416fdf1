//! The guest tests, on every machine with every firmware, before witnesses.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::World;
use super::cells::{Cell, PORTS, Set};
use super::report::Report;
use super::witness::{Places, Witness, disks, same};
use super::{paths, upstream};
use crate::qemu::devices::{self, Group, others};
use crate::qemu::input::Input;
use crate::qemu::launch::{Echo, Ended, Launch, launch};
use crate::qemu::outcome::Outcome;
use crate::qemu::{self, Files};
use crate::record::Record;
use crate::{folder, results};

/// How long a guest may be silent, and how long it may take: many times what it
/// does, because others run beside it.
const SILENCE: Duration = Duration::from_secs(120);
const TOTAL: Duration = Duration::from_secs(600);
/// The word on the guest's command line that turns checkpoints on.
const WITNESS: &str = "witness";

/// Boots the test image on one cell and adds up what it and its witnesses say.
pub(super) fn run(cell: &Cell, world: &World, dir: &Path) -> Result<Report> {
    let mut report = Report::default();
    let reason = cell.impossible().map(str::to_owned);
    if let Some(reason) = reason.or_else(|| cell.missing()) {
        report.skip("", reason);
        return Ok(report);
    }
    let image = match &world.tests {
        Ok(image) => image,
        Err(why) => {
            report.fail("", why.as_str());
            return Ok(report);
        }
    };
    let mut options = cell.options();
    options.groups.retain(|group| {
        let missing = others::missing(*group, &world.qemu);
        missing.is_none_or(|why| {
            report.skip(&format!("{group:?}"), why);
            false
        })
    });
    let files = Files::new(dir.to_owned())?;
    folder::fill(&options, &files)?;
    let words = format!("{WITNESS} {}", cell.set.words());
    let words = words.trim_end();
    let kernel = Some(image.path.as_path());
    let command = qemu::command_line(&world.qemu, kernel, &options, &files, words, true)?;
    let launch_it = Launch {
        command: &command,
        files: &files,
        firmware: None,
        silence: Some(SILENCE),
        total: Some(TOTAL),
        input: Input::Answers,
        echo: Echo::Nobody,
    };
    let mut witness = Witness::new(&options, &files);
    let ended = launch(&launch_it, &mut |record, before| {
        witness.observe(record, before)
    })?;
    folder::close(&options, &files);

    let outcome = Outcome::of(&ended);
    let world = results::world(image, &options, &world.qemu, &command, &ended.records);
    results::write(&files.results(), &results::results(world, &ended, &outcome))?;
    read(&ended, &outcome, &mut report);
    witness.finish();
    witness.doorbells(&ended.records);
    if cell.set == Set::Ports {
        let result = io_space(&ended.records, PORTS.into(), SEABIOS_WINDOWS);
        witness.report.check("io space", result);
    } else if cell.set == Set::Upstream {
        let result = upstream::driven(&options, &ended.records);
        witness.report.check("every path", result);
        if options.has(Group::Sound) {
            let result = witness.peers.sounds.heard(&files);
            witness.report.check("sound", result);
        }
    } else {
        let records = ended.records.iter().map(Record::value);
        let (machine, version) = (options.machine, options.mmio_version);
        let result = paths::driven(paths::kinds(&options), machine, version, records);
        witness.report.check("every path", result);
    }
    witness
        .report
        .check("every device", undriven(&witness.places, &ended.records));
    let result = rings(options.packed, &ended.records);
    witness.report.check("packed rings", result);
    for disk in devices::disks(&options) {
        let path = files.disk(disk.n);
        let now = witness.peers.blocks.bytes(&disk);
        let result = disks::compare(&path, &disk, now, &witness.places, &ended.records);
        witness.report.check(&disk.node(), result);
        // Gigabytes add up; a disk that was right is of no interest.
        if witness.report.failed() == 0 && outcome == Outcome::Pass {
            let _ = std::fs::remove_file(path);
        }
    }
    report.add(witness.report);
    Ok(report)
}

/// Whether every device that QEMU has, and that the guest has a driver for, was
/// driven.
fn undriven(places: &Places, records: &[Record]) -> Result<(), String> {
    let ours = |id: &str| paths::KINDS.iter().any(|kind| id.starts_with(kind.prefix));
    let driven = |address: &str| {
        let devices = records.iter().filter(|record| record.kind() == "device");
        devices
            .into_iter()
            .any(|record| record.address() == Some(address))
    };
    match places
        .iter()
        .find(|(address, id)| ours(id) && !driven(address))
    {
        None => Ok(()),
        Some((address, id)) => Err(format!("{id} at {address} was not driven")),
    }
}

/// Whether every device was driven by packed rings where it offers them, but over
/// legacy interfaces, and by split ones elsewhere.
fn rings(offered: bool, records: &[Record]) -> Result<(), String> {
    for record in records.iter().filter(|record| record.kind() == "device") {
        let transport = record.text("transport").unwrap_or_default();
        let modern = matches!(transport, "pci-modern" | "mmio-v2");
        let features = record.value()["features"].as_array().into_iter().flatten();
        let packed = features
            .into_iter()
            .any(|name| name == "VIRTIO_F_RING_PACKED");
        let address = record.address().unwrap_or_default();
        same(
            &format!("packed rings of {address} over {transport}"),
            offered && modern,
            packed,
        )?;
    }
    Ok(())
}

/// How many windows of 4 KiB SeaBIOS places in q35's IO space before it gives up.
const SEABIOS_WINDOWS: usize = 14;

/// Transitional devices behind more ports than IO space has windows for: all are
/// found and were driven, as many as fit have an IO BAR, `at_least` or all of
/// them, and the others say why not.
fn io_space(records: &[Record], count: usize, at_least: usize) -> Result<(), String> {
    let functions = records.iter().filter(|record| record.kind() == "pci");
    let devices: Vec<&Record> = functions
        .filter(|record| record.text("vendor") == Some("1af4"))
        .collect();
    same("devices", devices.len(), count)?;
    let mut with_io = 0;
    for device in &devices {
        let address = device.address().unwrap_or_default();
        let bar = &device.value()["bars"][0];
        let driven = |transport| {
            records.iter().any(|record| {
                let here = record.kind() == "device" && record.address() == Some(address);
                here && record.text("transport") == Some(transport)
            })
        };
        let assigned = bar["address"].is_string();
        with_io += usize::from(assigned);
        if bar["kind"] != "io" || assigned == bar["reason"].is_string() {
            return Err(format!("{address}: its BAR0 is {bar}"));
        }
        same(
            &format!("{address} has IO and was driven through it"),
            assigned,
            driven("pci-legacy"),
        )?;
        if !driven("pci-modern") {
            return Err(format!("{address} was not driven through memory"));
        }
    }
    if with_io >= at_least.min(count) {
        Ok(())
    } else {
        Err(format!("{with_io} of {count} devices have an IO BAR"))
    }
}

/// What the guest says of its own tests, and how it ended.
fn read(ended: &Ended, outcome: &Outcome, report: &mut Report) {
    let before = report.failed();
    let mut tests = 0;
    for record in ended
        .records
        .iter()
        .filter(|record| record.kind() == "test")
    {
        tests += 1;
        let name = record.text("name").unwrap_or("(a test without a name)");
        let reason = record.text("reason").unwrap_or("no reason given");
        match record.text("result") {
            Some("pass") => report.passed += 1,
            Some("skip") => report.skip(name, reason),
            Some("fail") => report.fail(name, reason),
            other => report.fail(name, format!("its result is {other:?}")),
        }
    }
    if tests == 0 {
        report.fail("", "the guest ran no test");
    }
    // A guest with failed tests ends with a failure; that is one thing, not two.
    let known = *outcome == Outcome::Fail && report.failed() > before;
    if let (Some(message), false) = (outcome.explain(ended), known) {
        report.fail("", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::launch::tests::ended;

    fn total(tests: &[(&str, &str)], outcome: &Outcome) -> String {
        let mut ended = ended();
        for (name, result) in tests {
            let text = format!(r#"{{"v":1,"kind":"test","name":"{name}","result":"{result}"}}"#);
            ended.records.push(Record::parse(&text).unwrap());
        }
        let mut report = Report::default();
        read(&ended, outcome, &mut report);
        report.total()
    }

    #[test]
    fn a_device_without_io_says_why_and_is_driven_all_the_same() {
        let bar = |value: &str| format!(r#""bars":[{{"bar":0,"kind":"io","size":32,{value}}}]"#);
        let pci = |bdf: &str, bar: &str| {
            format!(r#"{{"v":1,"kind":"pci","bdf":"{bdf}","vendor":"1af4",{bar}}}"#)
        };
        let device = |bdf: &str, transport: &str| {
            format!(r#"{{"v":1,"kind":"device","bdf":"{bdf}","transport":"{transport}"}}"#)
        };
        let with = bar(r#""address":"0x1000","reason":null"#);
        let without = bar(r#""address":null,"reason":"no IO space left""#);
        let neither = bar(r#""address":null,"reason":null"#);
        let records = |second: &str, driven: &[(&str, &str)]| {
            let mut texts = vec![pci("a", &with), pci("b", second)];
            texts.extend(driven.iter().map(|(bdf, transport)| device(bdf, transport)));
            let records = texts.iter().map(|text| Record::parse(text).unwrap());
            records.collect::<Vec<_>>()
        };
        let all = [
            ("a", "pci-legacy"),
            ("a", "pci-modern"),
            ("b", "pci-modern"),
        ];
        assert_eq!(io_space(&records(&without, &all), 2, 1), Ok(()));
        assert!(io_space(&records(&without, &all), 2, 2).is_err());
        assert!(io_space(&records(&without, &all), 3, 1).is_err());
        assert!(io_space(&records(&neither, &all), 2, 1).is_err());
        assert!(io_space(&records(&without, &all[1..]), 2, 1).is_err());
        assert!(io_space(&records(&without, &all[..2]), 2, 1).is_err());
    }

    #[test]
    fn a_device_that_the_guest_leaves_out_is_missed() {
        let places = Places::from(
            [("a", "blk0"), ("b", "rng0"), ("c", "bridge1")]
                .map(|(address, id)| (address.to_owned(), id.to_owned())),
        );
        let device = |bdf: &str| {
            Record::parse(&format!(r#"{{"v":1,"kind":"device","bdf":"{bdf}"}}"#)).unwrap()
        };
        assert_eq!(undriven(&places, &[device("a"), device("b")]), Ok(()));
        let error = undriven(&places, &[device("a")]).unwrap_err();
        assert_eq!(error, "rng0 at b was not driven");
    }

    #[test]
    fn the_rings_are_of_the_kind_that_is_offered() {
        let device = |transport: &str, features: &str| {
            let device = format!(r#""kind":"device","bdf":"a","transport":"{transport}""#);
            Record::parse(&format!(r#"{{"v":1,{device},"features":[{features}]}}"#)).unwrap()
        };
        let packed = r#""VIRTIO_F_EVENT_IDX","VIRTIO_F_RING_PACKED""#;
        let split = r#""VIRTIO_F_EVENT_IDX""#;
        for modern in ["pci-modern", "mmio-v2"] {
            for legacy in ["pci-legacy", "mmio-v1"] {
                let right = [device(modern, packed), device(legacy, split)];
                assert_eq!(rings(true, &right), Ok(()));
                assert!(rings(false, &right).is_err());
                assert!(rings(true, &[device(legacy, packed)]).is_err());
            }
            assert!(rings(true, &[device(modern, split)]).is_err());
            assert_eq!(rings(false, &[device(modern, split)]), Ok(()));
        }
    }

    #[test]
    fn guest_tests_are_counted_and_a_death_is_one_more_failure() {
        let tests = [("a", "pass"), ("b", "fail"), ("c", "skip"), ("d", "what")];
        assert_eq!(
            total(&tests, &Outcome::Fail),
            "1 passed, 2 failed, 1 skipped"
        );
        assert_eq!(
            total(&tests, &Outcome::Panic),
            "1 passed, 3 failed, 1 skipped"
        );
        assert_eq!(
            total(&tests[..1], &Outcome::Pass),
            "1 passed, 0 failed, 0 skipped"
        );
        assert_eq!(
            total(&tests[..1], &Outcome::Fail),
            "1 passed, 1 failed, 0 skipped"
        );
        assert_eq!(total(&[], &Outcome::Pass), "0 passed, 1 failed, 0 skipped");
    }
}
