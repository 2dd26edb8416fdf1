//! What a guest sees and can use of a virtio device, by the model and the address that a
//! management tool gives libvirt.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::experiment::findings::{Answer, Column, Findings, Table, Verdict};
use crate::experiment::set::{Experiment, Run};

/// libvirt's models.
const PLAIN: &str = "virtio";
const TRANSITIONAL: &str = "virtio-transitional";
const MODERN: &str = "virtio-non-transitional";
/// The address's name where libvirt chooses it.
const CHOSEN: &str = "libvirt's choice";

/// A device of one run.
struct Device<'a> {
    run: &'a Run,
    name: &'a str,
    /// Its `pci` record.
    pci: &'a Value,
    legacy: bool,
    modern: bool,
}

impl Device<'_> {
    /// The numbers of the BARs of a kind.
    fn bars(&self, kind: &str) -> String {
        let bars = self.pci["bars"].as_array().into_iter().flatten();
        let bars = bars.filter(|bar| bar["kind"].as_str().is_some_and(|of| of.starts_with(kind)));
        let bars = bars.map(|bar| format!("BAR{}, {} B", bar["bar"], bar["size"]));
        let list = bars.collect::<Vec<_>>().join("; ");
        if list.is_empty() { "none".into() } else { list }
    }

    fn has_io(&self) -> bool {
        self.bars("io") != "none"
    }

    /// In words, for a verdict.
    fn place(&self) -> String {
        let [machine, address] = ["machine", "address"].map(|axis| self.run.label(axis));
        format!("{} on {machine}, {address}", self.name)
    }
}

pub(super) fn analyse(experiment: &Experiment) -> Findings {
    let devices: Vec<Device<'_>> = experiment.runs.iter().flat_map(devices).collect();
    let both = |device: &Device<'_>| device.legacy && device.modern;
    Findings {
        verdicts: vec![
            holds_for_all(
                "libvirt's plain `virtio` gives a guest the legacy and the modern interface, on \
                 every machine.",
                of_model(&devices, PLAIN, Some(CHOSEN)),
                both,
            ),
            holds_for_all(
                "libvirt's `virtio-transitional` gives a guest both interfaces, wherever the \
                 device is.",
                of_model(&devices, TRANSITIONAL, None),
                both,
            ),
            holds_for_all(
                "libvirt's `virtio-non-transitional` takes no IO space, and modern guests work.",
                of_model(&devices, MODERN, None),
                |device| !device.has_io() && !device.legacy && device.modern,
            ),
            valid(experiment),
            same_devices(experiment),
        ],
        tables: table(&devices).into_iter().collect(),
        notes: vec![
            "Each run's folder has the domain.xml, with direct kernel boot of the unikernel, and, \
             where libvirt's tools are there, libvirt.cmd, what libvirt makes of it. What works was seen by booting the same \
             devices. The models and where they are put: libvirt's documentation, formatdomain, \
             \"Virtio transitional devices\"."
                .into(),
        ],
        ..Findings::default()
    }
}

/// The virtio devices that the guest found, each with what it could do with them.
fn devices(run: &Run) -> Vec<Device<'_>> {
    let devices = run.virtio_functions().map(|pci| {
        let driven = || {
            run.of_kind("device")
                .filter(|record| record["bdf"] == pci["bdf"])
        };
        // A guest that failed may have used what it then failed on.
        let by = |transport: &str| {
            run.passed() && driven().any(|record| record["transport"] == transport)
        };
        let name = driven().find_map(|record| record["device"].as_str());
        Device {
            run,
            name: name.unwrap_or("a device that nothing drives"),
            pci,
            legacy: by("pci-legacy"),
            modern: by("pci-modern"),
        }
    });
    devices.collect()
}

fn of_model<'a>(
    devices: &'a [Device<'a>],
    model: &str,
    address: Option<&str>,
) -> Vec<&'a Device<'a>> {
    let fits = |device: &&Device<'_>| {
        device.run.label("model") == model
            && address.is_none_or(|address| device.run.label("address") == address)
    };
    devices.iter().filter(fits).collect()
}

/// A claim that one device can show false.
fn holds_for_all(
    claim: &str,
    devices: Vec<&Device<'_>>,
    holds: impl Fn(&Device<'_>) -> bool,
) -> Verdict {
    let not: BTreeSet<String> = devices
        .iter()
        .filter(|device| !holds(device))
        .map(|device| {
            let word = |works| if works { "works" } else { "does not" };
            let (legacy, modern, io) =
                (word(device.legacy), word(device.modern), device.bars("io"));
            let place = device.place();
            format!("{place}: legacy {legacy}, modern {modern}, IO BARs: {io}")
        })
        .collect();
    let (answer, because) = match (devices.len(), not.is_empty()) {
        (0, _) => (
            Answer::CannotBeToldHere,
            "No such device was booted.".into(),
        ),
        (_, false) => {
            let list = not.into_iter().collect::<Vec<_>>().join("; ");
            (Answer::DoesNotHold, format!("Not so: {list}."))
        }
        (n, true) => {
            let places: BTreeSet<String> = devices.iter().map(|device| device.place()).collect();
            let list = places.into_iter().collect::<Vec<_>>().join("; ");
            (Answer::Holds, format!("So in all {n} cases: {list}."))
        }
    };
    Verdict {
        claim: claim.into(),
        answer,
        ratio: None,
        because,
    }
}

/// What libvirt said of each run's domain.
fn words(experiment: &Experiment) -> Vec<(String, &Value)> {
    let words = experiment.runs.iter().filter_map(|run| {
        let labels = ["machine", "model", "address"].map(|axis| run.label(axis));
        Some((labels.join(", "), run.of_kind("libvirt").last()?))
    });
    words.collect()
}

/// The version of libvirt, as the first says that knows it.
fn version<'a>(words: &[(String, &'a Value)]) -> &'a str {
    let mut versions = words
        .iter()
        .filter_map(|(_, word)| word["version"].as_str());
    versions.next().unwrap_or("of unknown version")
}

/// Each sentence once.
fn list(sentences: impl Iterator<Item = String>) -> String {
    let once: BTreeSet<String> = sentences.collect();
    once.into_iter().collect::<Vec<_>>().join("; ")
}

/// Whether the domains are as libvirt's schema has them. Whether the devices work is not
/// this question.
fn valid(experiment: &Experiment) -> Verdict {
    let words = words(experiment);
    let (all, version) = (words.len(), version(&words));
    let doubts = |valid: Value| {
        let of = words.iter().filter(move |(_, word)| word["valid"] == valid);
        of.map(|(name, word)| (name, word["doubt"].as_str().unwrap_or("no reason is known")))
    };
    let invalid = list(doubts(false.into()).map(|(name, doubt)| format!("{name}: {doubt}")));
    let unknown = list(doubts(Value::Null).map(|(_, doubt)| doubt.to_owned()));
    let (answer, because) = match () {
        () if !invalid.is_empty() => (
            Answer::DoesNotHold,
            format!("libvirt {version} takes these for not valid: {invalid}."),
        ),
        () if all == 0 => (Answer::CannotBeToldHere, "There are no domains.".into()),
        () if !unknown.is_empty() => (
            Answer::CannotBeToldHere,
            format!(
                "{} of {all} domains were not validated: {unknown}.",
                doubts(Value::Null).count()
            ),
        ),
        () => (
            Answer::Holds,
            format!("All {all} are, by the schema of libvirt {version}."),
        ),
    };
    Verdict {
        claim: "The domains are valid.".into(),
        answer,
        ratio: None,
        because,
    }
}

/// Whether what was booted is what libvirt makes of the domains.
fn same_devices(experiment: &Experiment) -> Verdict {
    let words = words(experiment);
    let (all, version) = (words.len(), version(&words));
    let unlike = words.iter().filter(|(_, word)| word["agrees"] == false);
    let unlike = list(unlike.map(|(name, word)| {
        let (theirs, ours) = (&word["translated"], &word["booted"]);
        format!("{name}: libvirt has {theirs}, and booted was {ours}")
    }));
    let agreed = words.iter().filter(|(_, word)| word["agrees"] == true);
    let agreed = agreed.count();
    let (answer, because) = match () {
        () if !unlike.is_empty() => (Answer::DoesNotHold, format!("{unlike}.")),
        () if agreed > 0 && agreed == all => (
            Answer::Holds,
            format!("libvirt {version} makes the same devices at the same places of all {all}."),
        ),
        () => {
            let mut why = words.iter().filter_map(|(_, word)| word["why"].as_str());
            let why = why.next().unwrap_or("nothing was booted");
            (
                Answer::CannotBeToldHere,
                format!(
                    "libvirt translated {agreed} of {all} domains ({why}). That they give the \
                     devices that were booted is this project's reading of libvirt's \
                     documentation."
                ),
            )
        }
    };
    Verdict {
        claim: "libvirt makes of the domains the devices that were booted.".into(),
        answer,
        ratio: None,
        because,
    }
}

fn table(devices: &[Device<'_>]) -> Option<Table> {
    const COLUMNS: [&str; 10] = [
        "machine",
        "model",
        "address",
        "placement",
        "device",
        "PCI ID",
        "IO BAR",
        "memory BARs",
        "legacy",
        "modern",
    ];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for device in devices {
        let word = |works| if works { "works" } else { "-" };
        let labels = ["machine", "model", "address", "placement"];
        let mut row = labels
            .map(|axis| device.run.label(axis).to_owned())
            .to_vec();
        let part = |key: &str| device.pci[key].as_str().unwrap_or("?").to_owned();
        let id = format!(
            "{}:{} rev {}",
            part("vendor"),
            part("device"),
            device.pci["revision"]
        );
        row.extend([
            device.name.to_owned(),
            id,
            device.bars("io"),
            device.bars("mem"),
            word(device.legacy).to_owned(),
            word(device.modern).to_owned(),
        ]);
        // Boots of one cell that agree are one row.
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    (!rows.is_empty()).then(|| Table {
        title: "What each choice gives a guest".into(),
        note: "As the unikernel found the devices and drove them. A small memory BAR1 holds \
               MSI-X; the modern interface is in BAR4."
            .into(),
        columns: COLUMNS.map(Column::words).into(),
        rows,
    })
}

#[cfg(test)]
mod tests;
