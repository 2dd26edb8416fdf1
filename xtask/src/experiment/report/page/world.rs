//! What a set was measured on, and how.

use maud::{Markup, html};
use serde_json::Value;

use super::parts::{self, several};
use crate::experiment::findings::{Column, Table};
use crate::experiment::report::figures::figure;
use crate::experiment::set::{Experiment, Run, Set};
use crate::experiment::stats;

/// What the host's values are called for people, in order.
const NAMES: [(&str, &str); 8] = [
    ("host_cpu", "Host CPU"),
    ("cpus", "CPUs of the host"),
    ("hardware_virtualization", "Hardware virtualization"),
    ("host_kernel", "Host kernel"),
    ("qemu", "QEMU"),
    ("tool", "doorbell"),
    ("built_by", "Guest built with"),
    ("image_sha256", "Guest image, SHA-256"),
];
/// What a run without a note ran on.
const HARDWARE: &str = "KVM with hardware virtualization";

/// What it was measured on.
pub(super) fn world(set: &Set) -> Markup {
    let known = NAMES
        .iter()
        .map(|(key, name)| (*name, set.host.get(key).unwrap_or(&Value::Null)));
    let others = set.host.as_object().into_iter().flatten();
    let others = others
        .filter(|(key, _)| NAMES.iter().all(|(name, _)| name != key))
        .map(|(key, value)| (key.as_str(), value));
    let accelerators = count(runs(set).map(|run| run.note.as_deref().unwrap_or(HARDWARE)));
    let guests = guests(set);
    html! {
        section {
            h2 id="world" { "The world it was measured in" }
            dl {
                @for (name, value) in known.chain(others) {
                    dt { (name) } dd { (words(value)) }
                }
                @for (accelerator, runs) in accelerators {
                    dt { "Accelerator" }
                    dd { (accelerator) " (" (several(runs, "run")) ")" }
                }
                dt { "From" } dd { (set.begun) }
                dt { "To" } dd { (set.ended) }
            }
            @if !guests.rows.is_empty() { (parts::table(&guests, &[])) }
        }
    }
}

fn runs(set: &Set) -> impl Iterator<Item = &Run> {
    set.experiments
        .iter()
        .flat_map(|experiment| &experiment.runs)
}

/// How often each comes, in the order in which they come first.
fn count<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<(T, usize)> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for one in all {
        match counts.iter_mut().find(|(known, _)| *known == one) {
            Some((_, times)) => *times += 1,
            None => counts.push((one, 1)),
        }
    }
    counts
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "not known".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What the guests say of where they ran.
fn guests(set: &Set) -> Table {
    const KEYS: [&str; 4] = ["cpu", "hypervisor", "tsc_source", "tsc_step"];
    let names = ["CPU", "hypervisor", "TSC measured by", "TSC step, cycles"];
    let mut columns: Vec<Column> = names.map(Column::words).into();
    columns.extend([Column::figures("TSC, MHz"), Column::figures("runs")]);
    let worlds = || runs(set).flat_map(|run| run.of_kind("world"));
    let rows = count(worlds().map(|world| KEYS.map(|key| words(&world[key]))));
    let rows = rows.into_iter().map(|(row, times)| {
        let same = worlds().filter(|world| KEYS.map(|key| words(&world[key])) == row);
        let frequencies: Vec<f64> = same.filter_map(|world| world["tsc_hz"].as_f64()).collect();
        let megahertz = stats::median(&frequencies).map(|hz| figure(hz / 1e6));
        let frequency = megahertz.unwrap_or_else(|| "-".into());
        let times = times.to_string();
        row.into_iter().chain([frequency, times]).collect()
    });
    Table {
        title: "The guests".into(),
        note: "As they see themselves; the TSC's frequency is the median of the runs.".into(),
        columns,
        rows: rows.collect(),
    }
}

/// How it was measured.
pub(super) fn method(set: &Set) -> Markup {
    let level = stats::LEVEL * 100.0;
    html! {
        section {
            h2 id="method" { "The method" }
            p {
                "An experiment is a file that names machines, devices, accelerators and guest \
                 commands. Each of their combinations is a cell. A boot of a cell starts QEMU \
                 anew. Cells take turns: each is booted once, then all of them again, so that \
                 what drifts on the host meets all alike. Where time is measured, one guest runs \
                 at once."
            }
            p {
                "Intervals are bootstrapped from boots: a boot gives one value, boots are drawn \
                 with replacement " (stats::DRAWS) " times, and the interval holds the middle "
                (format!("{level:.0} %")) " of what comes out. Fewer than " (stats::FEWEST)
                " boots give no interval. Verdicts are computed from the runs' data."
            }
            p {
                "Figures of TCG, and of KVM on a CPU without hardware virtualization, are not \
                 hardware's. They bear a mark, and no verdict about hardware is drawn from them."
            }
            ul { @for experiment in &set.experiments { li { (extent(experiment)) } } }
        }
    }
}

/// How much was done.
fn extent(experiment: &Experiment) -> Markup {
    let cells = count(experiment.runs.iter().map(|run| &run.cell)).len();
    let (boots, runs) = (experiment.boots, experiment.runs.len());
    let skipped = experiment.skipped.len();
    html! {
        code { (experiment.name) } ": "
        (several(cells, "cell")) ", " (several(boots as usize, "boot")) " each, "
        (several(runs, "run")) " done, " (several(skipped, "cell")) " skipped"
    }
}
