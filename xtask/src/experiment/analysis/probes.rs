//! What the guest's command `probe` recorded: for each place, model, device and policy
//! whether it works. All boots of a cell are one [`Probe`], or it says that they disagree.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::experiment::findings::Column;
use crate::experiment::plan::Labels;
use crate::experiment::set::{Experiment, Run};

#[cfg(test)]
pub(super) mod fixture;

/// The axis that says which device it is; all others say where.
const MODEL: &str = "model";
/// The axes that a matrix has in any case.
const SHOWN: [&str; 2] = ["machine", "placement"];
/// Bridges with a PCI Express link below, as `PortType` of the library has them.
const LINKS: [&str; 2] = ["root port", "downstream port"];
/// The device IDs of devices with a legacy interface end before this one.
const NEW_IDS: u32 = 0x1040;

/// What came of a device in the hands of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It served a request.
    Works { transport: String, notify: String },
    /// What stopped it, a word for each interface that was tried.
    Stopped(Vec<String>),
    /// Its boots disagree.
    Mixed,
}

impl Outcome {
    fn of(record: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        if record["works"] == true {
            return Self::Works {
                transport: text(&record["transport"]),
                notify: text(&record["notify"]),
            };
        }
        let reasons = tried(record).map(|tried| text(&tried["reason"]));
        Self::Stopped(reasons.collect())
    }

    pub(super) fn works(&self) -> bool {
        matches!(self, Self::Works { .. })
    }

    /// For a cell of a table.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Works { transport, notify } => {
                format!("{}, {notify}", transport.trim_start_matches("pci-"))
            }
            Self::Stopped(reasons) if reasons.is_empty() => "no".into(),
            Self::Stopped(reasons) => format!("no: {}", reasons.join(", ")),
            Self::Mixed => "boots disagree".into(),
        }
    }
}

/// Which interfaces a device has, and under which ID: the options of the argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The IO BAR alone.
    IoOnly,
    /// The IO BAR, and a memory BAR beside it, under the old ID.
    Both,
    /// A memory BAR alone, under the old ID.
    MemoryOldId,
    /// A memory BAR alone, under a new ID.
    MemoryNewId,
    /// No interface at all, or no PCI device.
    Other,
}

impl Shape {
    fn of(record: &Value) -> Self {
        let offers = |name: &str| {
            let offers = record["offers"].as_array();
            offers.is_some_and(|offers| offers.iter().any(|offer| offer == name))
        };
        let id = record["pci_id"].as_str().and_then(|id| id.split_once(':'));
        let id = id.and_then(|(_, device)| u32::from_str_radix(device, 16).ok());
        match (offers("legacy"), offers("modern"), id) {
            (true, false, _) => Self::IoOnly,
            (true, true, _) => Self::Both,
            (false, true, Some(id)) if id < NEW_IDS => Self::MemoryOldId,
            (false, true, Some(_)) => Self::MemoryNewId,
            _ => Self::Other,
        }
    }
}

/// A notification structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doorbell {
    bar: u64,
    pub(super) space: String,
    /// What makes it useless.
    pub(super) reason: Option<String>,
}

/// All boots' records of one device, in one cell, for one policy.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    /// The names on all axes but the model's.
    pub(super) place: Labels,
    pub(super) model: String,
    /// Its kind, and its address, since there may be several.
    pub(super) device: String,
    at: String,
    pub(super) policy: String,
    /// Whether IO decoding was left on.
    pub(super) io: bool,
    pub(super) shape: Shape,
    /// Whether it is in a PCI Express slot.
    pub(super) slot: bool,
    /// What PCI Express calls it; none if it says that it is conventional PCI.
    pub(super) port: Option<String>,
    pub(super) outcome: Outcome,
    pub(super) doorbells: Vec<Doorbell>,
}

impl Probe {
    fn of(run: &Run, record: &Value) -> Self {
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let mut place = run.cell.clone();
        let model = place.remove(MODEL).unwrap_or_default();
        let doorbells = tried(record).filter_map(|tried| tried["doorbells"].as_array());
        let doorbells = doorbells.flatten().map(|doorbell| Doorbell {
            bar: doorbell["bar"].as_u64().unwrap_or_default(),
            space: doorbell["space"].as_str().unwrap_or_default().to_owned(),
            reason: doorbell["reason"].as_str().map(str::to_owned),
        });
        Self {
            place,
            model,
            device: text("device"),
            at: text("bdf") + &text("mmio"),
            policy: text("policy"),
            io: record["io"] == true,
            shape: Shape::of(record),
            slot: LINKS.contains(&text("below").as_str()),
            port: record["port"].as_str().map(str::to_owned),
            outcome: Outcome::of(record),
            doorbells: doorbells.collect(),
        }
    }

    /// Whether these are boots of the same.
    fn same(&self, other: &Self) -> bool {
        self.with(other) && self.model == other.model && self.at == other.at && self.io == other.io
    }

    /// Whether it is the same kind of device for the same guest in the same place.
    pub(super) fn with(&self, other: &Self) -> bool {
        self.place == other.place && self.device == other.device && self.policy == other.policy
    }

    /// Where it is, in words.
    pub(super) fn words(&self) -> String {
        let place: Vec<&str> = self.place.values().map(String::as_str).collect();
        format!("{} on {}", self.device, place.join(", "))
    }

    /// Its doorbells, in the device's order of preference; empty if it has none.
    pub(super) fn doorbell_words(&self) -> String {
        let words = self.doorbells.iter().map(|doorbell| {
            let Doorbell { bar, space, .. } = doorbell;
            let state = doorbell.reason.as_deref().unwrap_or("usable");
            format!("BAR{bar} {space}: {state}")
        });
        words.collect::<Vec<_>>().join("; ")
    }
}

fn tried(record: &Value) -> impl Iterator<Item = &Value> {
    record["tried"].as_array().into_iter().flatten()
}

/// What was recorded, in the order of the runs.
pub(super) fn read(experiment: &Experiment) -> Vec<Probe> {
    let mut probes: Vec<Probe> = Vec::new();
    for run in &experiment.runs {
        for record in run.of_kind("probe") {
            let probe = Probe::of(run, record);
            match probes.iter_mut().find(|known| known.same(&probe)) {
                Some(known) if known.outcome == probe.outcome => {}
                Some(known) => known.outcome = Outcome::Mixed,
                None => probes.push(probe),
            }
        }
    }
    probes
}

/// What is to be said of runs that recorded nothing, if there are any.
pub(super) fn silent(experiment: &Experiment) -> Option<String> {
    let silent = experiment
        .runs
        .iter()
        .filter(|run| run.of_kind("probe").next().is_none());
    let silent = silent.count();
    let boots = if silent == 1 { "boot" } else { "boots" };
    (silent > 0).then(|| {
        format!("{silent} {boots} ended before a device was tried: they count for nothing here.")
    })
}

/// The words for what stops a guest, each with a sentence that the guest said.
pub(super) fn legend(experiment: &Experiment) -> String {
    let mut words: BTreeMap<&str, &str> = BTreeMap::new();
    let records = experiment.runs.iter().flat_map(|run| run.of_kind("probe"));
    for tried in records.flat_map(tried) {
        if let (Some(reason), Some(message)) = (tried["reason"].as_str(), tried["message"].as_str())
        {
            words.entry(reason).or_insert(message);
        }
    }
    let mut legend = String::new();
    for (word, sentence) in words {
        let _ = write!(legend, " {word}: {sentence}.");
    }
    legend.trim_start().to_owned()
}

/// The names that `of` gives, each once, in order.
pub(super) fn names(probes: &[Probe], of: impl Fn(&Probe) -> &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for probe in probes {
        if !names.iter().any(|known| known == of(probe)) {
            names.push(of(probe).to_owned());
        }
    }
    names
}

/// The rows of a matrix: a place and a model each, without the axes that change nothing.
pub(super) struct Rows<'p> {
    axes: Vec<String>,
    /// What is to be said of the axes that are left out.
    pub(super) note: String,
    rows: Vec<(Vec<String>, Vec<&'p Probe>)>,
}

impl<'p> Rows<'p> {
    pub(super) fn new(experiment: &Experiment, probes: &'p [Probe]) -> Self {
        let mut axes = experiment.axes.clone();
        axes.retain(|axis| axis != MODEL);
        let mut note = String::new();
        for axis in experiment.axes.iter().filter(|axis| *axis != MODEL) {
            let kept: Vec<_> = axes.iter().filter(|kept| *kept != axis).cloned().collect();
            if SHOWN.contains(&axis.as_str()) || !agree(probes, &kept) {
                continue;
            }
            axes = kept;
            let values = names(probes, |probe| label(probe, axis)).join(" and ");
            let _ = write!(note, " The same for {axis} {values}.");
        }
        let mut rows: Vec<(Vec<String>, Vec<&Probe>)> = Vec::new();
        for probe in probes {
            let row = row(probe, &axes);
            match rows.iter_mut().find(|(known, _)| *known == row) {
                Some((_, of_row)) => of_row.push(probe),
                None => rows.push((row, vec![probe])),
            }
        }
        let note = note.trim_start().to_owned();
        Self { axes, note, rows }
    }

    /// The first columns of each row.
    pub(super) fn columns(&self) -> Vec<Column> {
        let axes = self.axes.iter().map(String::as_str);
        axes.chain([MODEL]).map(Column::words).collect()
    }

    /// Each row: its first cells, and what there is for the others.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[String], &[&'p Probe])> {
        self.rows
            .iter()
            .map(|(cells, probes)| (&cells[..], &probes[..]))
    }
}

fn label<'p>(probe: &'p Probe, axis: &str) -> &'p str {
    probe.place.get(axis).map_or("", String::as_str)
}

fn row(probe: &Probe, axes: &[String]) -> Vec<String> {
    let place = axes.iter().map(|axis| label(probe, axis));
    place
        .chain([probe.model.as_str()])
        .map(str::to_owned)
        .collect()
}

/// Whether these axes tell all that makes a difference.
fn agree(probes: &[Probe], axes: &[String]) -> bool {
    let mut known: BTreeMap<_, &Probe> = BTreeMap::new();
    probes.iter().all(|probe| {
        let key = (row(probe, axes), &probe.device, &probe.policy, probe.io);
        let first = known.entry(key).or_insert(probe);
        first.outcome == probe.outcome && first.doorbells == probe.doorbells
    })
}

/// What devices came to, for a cell of a table: one answer, or one for each device.
pub(super) fn together<'p>(
    probes: impl Iterator<Item = &'p Probe>,
    words: impl Fn(&Probe) -> String,
) -> String {
    let mut answers: Vec<(String, String)> = Vec::new();
    for probe in probes {
        let answer = (probe.device.clone(), words(probe));
        if !answers.contains(&answer) {
            answers.push(answer);
        }
    }
    let Some((_, first)) = answers.first() else {
        return "-".into();
    };
    if answers.iter().all(|(_, answer)| answer == first) {
        return first.clone();
    }
    let each = answers
        .iter()
        .map(|(device, answer)| format!("{device} {answer}"));
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
