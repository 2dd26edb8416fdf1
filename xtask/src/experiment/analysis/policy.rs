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
/// The vendor of virtio devices (virtio 1.2, 4.1.2).
const VENDOR: &str = "1af4";

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
            same_devices(experiment),
        ],
        tables: table(&devices).into_iter().collect(),
        notes: vec![
            "Each run's folder has the domain.xml, with direct kernel boot of the unikernel, and \
             libvirt.cmd, what libvirt makes of it. What works was seen by booting the same \
             devices. The models and where they are put: libvirt's documentation, formatdomain, \
             \"Virtio transitional devices\"."
                .into(),
        ],
        ..Findings::default()
    }
}

/// The virtio devices that the guest found, each with what it could do with them.
fn devices(run: &Run) -> Vec<Device<'_>> {
    let functions = run.of_kind("pci").filter(|pci| pci["vendor"] == VENDOR);
    let devices = functions.map(|pci| {
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

/// Whether what was booted is what libvirt makes of the domains.
fn same_devices(experiment: &Experiment) -> Verdict {
    let words = || {
        let runs = experiment.runs.iter();
        runs.filter_map(|run| Some((run, run.of_kind("libvirt").last()?)))
    };
    let named = |run: &Run| {
        let labels = ["machine", "model", "address"].map(|axis| run.label(axis));
        labels.join(", ")
    };
    let list = |names: Vec<String>| names.join("; ");
    let bad = words().filter(|(_, word)| word["valid"] == false || word["agrees"] == false);
    let bad: Vec<String> = bad
        .map(|(run, word)| match word["valid"] == false {
            true => format!("{}: the domain is not valid", named(run)),
            false => {
                let (theirs, ours) = (&word["translated"], &word["booted"]);
                format!(
                    "{}: libvirt has {theirs}, and booted was {ours}",
                    named(run)
                )
            }
        })
        .collect();
    let agreed = words().filter(|(_, word)| word["agrees"] == true).count();
    let all = words().count();
    let mut versions = words().filter_map(|(_, word)| word["version"].as_str());
    let version = versions.next().unwrap_or("of unknown version");
    let why = words().find_map(|(_, word)| word["why"].as_str());
    let (answer, because) = match (bad.is_empty(), agreed) {
        (false, _) => (Answer::DoesNotHold, format!("{}.", list(bad))),
        (true, agreed) if agreed > 0 && agreed == all => (
            Answer::Holds,
            format!("libvirt {version} makes the same devices at the same places of all {all}."),
        ),
        _ => {
            let why = why.unwrap_or("nothing was booted");
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
        claim: "The domains are valid, and libvirt makes of them the devices that were booted."
            .into(),
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
mod tests {
    use serde_json::json;

    use super::*;

    fn run(machine: &str, model: &str, address: &str, works: &[&str], io: bool) -> Run {
        let cell = [("machine", machine), ("model", model), ("address", address)];
        let mut bars = vec![json!({"bar": 4, "kind": "mem64", "size": 16384})];
        if io {
            bars.insert(0, json!({"bar": 0, "kind": "io", "size": 32}));
        }
        let mut records = vec![
            json!({"kind": "pci", "vendor": "8086", "bdf": "0000:00:00.0", "bars": []}),
            json!({"kind": "pci", "vendor": "1af4", "device": "1005", "revision": 0,
                   "bdf": "0000:00:01.0", "bars": bars}),
        ];
        records.extend(works.iter().map(|transport| {
            json!({"kind": "device", "device": "virtio-rng", "bdf": "0000:00:01.0",
                   "transport": transport})
        }));
        Run {
            cell: cell
                .map(|(axis, value)| (axis.to_owned(), value.to_owned()))
                .into(),
            verdict: "pass".into(),
            records,
            ..Run::default()
        }
    }

    fn found(runs: Vec<Run>) -> Findings {
        analyse(&Experiment {
            runs,
            ..Experiment::default()
        })
    }

    const BOTH: [&str; 2] = ["pci-legacy", "pci-modern"];

    #[test]
    fn one_machine_without_the_legacy_interface_is_enough() {
        let pc = run("pc", PLAIN, CHOSEN, &BOTH, true);
        assert_eq!(found(vec![pc.clone()]).verdicts[0].answer, Answer::Holds);
        let q35 = run("q35", PLAIN, CHOSEN, &["pci-modern"], false);
        let verdicts = found(vec![pc, q35]).verdicts;
        assert_eq!(verdicts[0].answer, Answer::DoesNotHold);
        let because = &verdicts[0].because;
        assert!(because.contains("virtio-rng on q35"), "{because}");
        assert!(
            because.contains("legacy does not, modern works"),
            "{because}"
        );
        assert!(!because.contains("on pc"), "{because}");
        // Where a person gave the address, it is not the tool's choice.
        let given = run("q35", PLAIN, "bus 0", &["pci-modern"], false);
        assert_eq!(
            found(vec![given]).verdicts[0].answer,
            Answer::CannotBeToldHere
        );
    }

    #[test]
    fn each_model_is_held_to_what_it_is_for() {
        let answer = |run: Run, n: usize| found(vec![run]).verdicts[n].answer;
        let legacy = &BOTH[..1];
        assert_eq!(
            answer(run("q35", TRANSITIONAL, "bus 0", &BOTH, true), 1),
            Answer::Holds
        );
        let half = run("q35", TRANSITIONAL, "bus 0", legacy, true);
        assert_eq!(answer(half, 1), Answer::DoesNotHold);
        assert_eq!(
            answer(run("q35", MODERN, CHOSEN, &BOTH[1..], false), 2),
            Answer::Holds
        );
        let with_io = run("q35", MODERN, CHOSEN, &BOTH[1..], true);
        assert_eq!(answer(with_io, 2), Answer::DoesNotHold);
        let mut failed = run("q35", TRANSITIONAL, CHOSEN, &BOTH, true);
        failed.verdict = "fail".into();
        assert_eq!(answer(failed, 1), Answer::DoesNotHold);
    }

    #[test]
    fn libvirts_word_counts_where_it_has_one() {
        let with = |word: Value| {
            let mut run = run("q35", PLAIN, CHOSEN, &BOTH, true);
            run.records.push(word);
            found(vec![run]).verdicts.remove(3)
        };
        let word = |valid: bool, agrees: Option<bool>| {
            json!({"kind": "libvirt", "valid": valid, "agrees": agrees, "version": "9.0.0",
                   "booted": ["a"], "translated": ["b"], "why": "virsh: no driver"})
        };
        let verdict = with(word(true, Some(true)));
        assert_eq!(verdict.answer, Answer::Holds);
        assert!(verdict.because.contains("9.0.0"), "{}", verdict.because);
        let verdict = with(word(true, Some(false)));
        assert_eq!(verdict.answer, Answer::DoesNotHold);
        assert!(
            verdict.because.contains("libvirt has [\"b\"]"),
            "{}",
            verdict.because
        );
        let verdict = with(word(false, Some(true)));
        assert_eq!(verdict.answer, Answer::DoesNotHold);
        let verdict = with(word(true, None));
        assert_eq!(verdict.answer, Answer::CannotBeToldHere);
        assert!(verdict.because.contains("no driver"), "{}", verdict.because);
        assert_eq!(
            found(Vec::new()).verdicts[3].answer,
            Answer::CannotBeToldHere
        );
    }

    #[test]
    fn the_table_has_a_row_a_device_and_boots_that_agree_share_it() {
        let runs = vec![
            run("pc", PLAIN, CHOSEN, &BOTH, true),
            run("pc", PLAIN, CHOSEN, &BOTH, true),
            run("q35", MODERN, CHOSEN, &BOTH[1..], false),
        ];
        let findings = found(runs);
        let rows = &findings.tables[0].rows;
        assert_eq!(rows.len(), 2);
        let row = [
            "virtio-rng",
            "1af4:1005 rev 0",
            "BAR0, 32 B",
            "BAR4, 16384 B",
            "works",
            "works",
        ];
        assert_eq!(rows[0][4..], row);
        assert_eq!(rows[1][6], "none");
        assert_eq!(rows[1][8], "-");
    }
}
