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

/// A figure in both.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    /// The cell and the row, for people.
    pub(super) name: String,
    pub(super) accelerator: String,
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
type Values = BTreeMap<(String, String), Vec<f64>>;

/// The figures that both have.
pub(super) fn pairs(old: &Experiment, new: &Experiment) -> Vec<Pair> {
    let mut after = values(new);
    let pairs = values(old).into_iter().filter_map(|(key, before)| {
        let after = after.remove(&key)?;
        let (accelerator, name) = key;
        Some(Pair {
            name,
            accelerator,
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
            for (name, value) in figures(record) {
                let cell = cell(experiment, run);
                let key = (
                    run.label("accelerator").to_owned(),
                    format!("{cell}: {name}"),
                );
                values.entry(key).or_default().push(value);
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
fn figures(record: &Value) -> Vec<(String, f64)> {
    let named = |keys: &[&str], what: &str| {
        let words = keys.iter().filter_map(|key| record[*key].as_str());
        words
            .chain([what])
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut found = Vec::new();
    let mut add = |keys: &[&str], what: String, value: &Value| {
        if let Some(value) = value
            .as_f64()
            .filter(|value| value.is_finite() && *value > 0.0)
        {
            found.push((named(keys, &what), value));
        }
    };
    match record["kind"].as_str() {
        Some("summary") => add(&SUMMARY, "min".into(), &record["min"]),
        Some("load") => {
            let depth = &record["depth"];
            add(
                &LOAD,
                format!("depth {depth} cycles"),
                &record["cycles"]["p50"],
            );
            add(
                &LOAD,
                format!("depth {depth} doorbells"),
                &record["doorbells"],
            );
            add(
                &LOAD,
                format!("depth {depth} interrupts"),
                &record["interrupts_came"],
            );
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
        assert_eq!(found[0], ("blk ours depth 16 cycles".to_owned(), 1700.5));
        assert_eq!(found.len(), 2);
    }
}
