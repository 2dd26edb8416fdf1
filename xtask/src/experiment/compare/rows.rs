//! The figures that two runs of an experiment have in common: one value a boot each.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::experiment::set::{Experiment, Run};

/// What names a distribution of costs.
const SUMMARY: [&str; 7] = [
    "case",
    "device",
    "bdf",
    "transport",
    "notify",
    "interrupts",
    "subtest",
];
/// What names a load.
const LOAD: [&str; 5] = ["workload", "what", "driver", "transport", "notify"];

/// What a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A time that has no driver and no device in it: it shows how fast the host was.
    Control,
    Time,
    /// A number of things, which a slow host does not scale.
    Count,
}

/// A figure in both.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    /// The cell and the row, for people.
    pub(super) name: String,
    pub(super) accelerator: String,
    pub(super) kind: Kind,
    /// A value a boot.
    pub(super) before: Vec<f64>,
    pub(super) after: Vec<f64>,
}

impl Pair {
    /// Digits after the point that tell such values apart.
    pub(super) fn digits(&self) -> usize {
        match self.before.iter().copied().fold(0.0, f64::max) {
            most if most < 10.0 => 4,
            most if most < 100.0 => 1,
            _ => 0,
        }
    }
}

/// The values of an experiment, by accelerator and name.
type Values = BTreeMap<(String, String), (Kind, Vec<f64>)>;

/// The figures that both have.
pub(super) fn pairs(old: &Experiment, new: &Experiment) -> Vec<Pair> {
    let mut after = values(new);
    let pairs = values(old).into_iter().filter_map(|(key, (kind, before))| {
        let (_, after) = after.remove(&key)?;
        let (accelerator, name) = key;
        Some(Pair {
            name,
            accelerator,
            kind,
            before,
            after,
        })
    });
    pairs.collect()
}

fn values(experiment: &Experiment) -> Values {
    let mut values = Values::new();
    for run in &experiment.runs {
        for record in &run.records {
            for (name, kind, value) in figures(record) {
                let cell = cell(experiment, run);
                let key = (
                    run.label("accelerator").to_owned(),
                    format!("{cell}: {name}"),
                );
                values
                    .entry(key)
                    .or_insert((kind, Vec::new()))
                    .1
                    .push(value);
            }
        }
    }
    values
}

fn cell(experiment: &Experiment, run: &Run) -> String {
    let labels = experiment.axes.iter().map(|axis| run.label(axis));
    labels.collect::<Vec<_>>().join(" ")
}

/// A record's figures, each with its name. Of a distribution the fastest sample counts,
/// which a busy host disturbs least.
fn figures(record: &Value) -> Vec<(String, Kind, f64)> {
    let named = |keys: &[&str], what: &str| {
        let words = keys.iter().filter_map(|key| record[*key].as_str());
        let words = words.chain([what]).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(" ")
    };
    let mut found = Vec::new();
    let mut add = |keys: &[&str], what: String, kind, value: &Value| {
        let value = value.as_f64();
        if let Some(value) = value.filter(|value| value.is_finite() && *value > 0.0) {
            found.push((named(keys, &what), kind, value));
        }
    };
    match record["kind"].as_str() {
        Some("summary") => {
            let control = matches!(record["case"].as_str(), Some("baseline" | "testdev"));
            let kind = if control { Kind::Control } else { Kind::Time };
            add(&SUMMARY, "min".into(), kind, &record["min"]);
        }
        Some("load") => {
            let depth = &record["depth"];
            for (what, kind, value) in [
                ("cycles", Kind::Time, &record["cycles"]["p50"]),
                ("doorbells", Kind::Count, &record["doorbells"]),
                ("interrupts", Kind::Count, &record["interrupts_came"]),
            ] {
                add(&LOAD, format!("depth {depth} {what}"), kind, value);
            }
        }
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn experiment(boots: &[Value]) -> Experiment {
        let runs = boots.iter().enumerate().map(|(boot, record)| Run {
            cell: [("accelerator".to_owned(), "tcg".to_owned())].into(),
            boot: boot as u32,
            records: vec![record.clone()],
            ..Run::default()
        });
        Experiment {
            axes: vec!["accelerator".into()],
            runs: runs.collect(),
            ..Experiment::default()
        }
    }

    #[test]
    fn figures_are_matched_by_cell_and_row() {
        let idle = |min: f64, notify: &str| {
            json!({"kind": "summary", "case": "doorbell-idle", "device": "virtio-rng",
                "notify": notify, "min": min})
        };
        let old = experiment(&[idle(3.0, "pio"), idle(4.0, "pio"), idle(9.0, "mmio")]);
        let new = experiment(&[idle(5.0, "pio"), json!({"kind": "end"})]);
        let pairs = pairs(&old, &new);
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].name, "tcg: doorbell-idle virtio-rng pio min");
        assert_eq!(pairs[0].before, [3.0, 4.0]);
        assert_eq!(pairs[0].after, [5.0]);
    }

    #[test]
    fn a_load_has_three_figures_and_none_that_is_nothing() {
        let load = json!({"kind": "load", "workload": "blk", "driver": "ours", "depth": 16,
            "cycles": {"p50": 1700.5}, "doorbells": 0.01, "interrupts_came": 0.0});
        let found = figures(&load);
        let name = "blk ours depth 16 cycles".to_owned();
        assert_eq!(found[0], (name, Kind::Time, 1700.5));
        assert_eq!(found[1].1, Kind::Count);
        assert_eq!(found.len(), 2);
    }
}
