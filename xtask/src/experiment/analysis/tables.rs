//! What was seen, without a conclusion: every figure that the guest's records hold, and how
//! the runs ended.

use std::collections::BTreeMap;

use crate::experiment::findings::{Column, Table};
use crate::experiment::set::{Experiment, Run};
use crate::experiment::stats;

/// How the runs of each cell ended.
pub(super) fn runs(experiment: &Experiment) -> Option<Table> {
    let mut columns: Vec<Column> = experiment.axes.iter().map(Column::words).collect();
    columns.extend([Column::words("ended"), Column::figures("ms")]);
    let mut rows = Vec::new();
    for runs in cells(experiment) {
        let mut row: Vec<String> = experiment
            .axes
            .iter()
            .map(|axis| runs[0].label(axis).to_owned())
            .collect();
        let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
        for run in &runs {
            *ends.entry(&run.verdict).or_default() += 1;
        }
        let ends: Vec<String> = ends
            .iter()
            .map(|(verdict, times)| format!("{times} {verdict}"))
            .collect();
        let took: Vec<f64> = runs.iter().map(|run| run.took_ms).collect();
        let took = stats::median(&took).map_or("-".into(), |ms| format!("{ms:.0}"));
        row.extend([ends.join(", "), took]);
        rows.push(row);
    }
    for skipped in &experiment.skipped {
        let label = |axis: &String| skipped.cell.get(axis).cloned().unwrap_or_default();
        let mut row: Vec<String> = experiment.axes.iter().map(label).collect();
        row.extend([format!("skipped: {}", skipped.reason), "-".into()]);
        rows.push(row);
    }
    (!rows.is_empty()).then(|| Table {
        title: "Runs".into(),
        note: "How the boots of each cell ended, and the median of what they took.".into(),
        columns,
        rows,
    })
}

/// The runs of each cell, in order.
pub(super) fn cells(experiment: &Experiment) -> Vec<Vec<&Run>> {
    let mut cells: Vec<Vec<&Run>> = Vec::new();
    for run in &experiment.runs {
        match cells.iter_mut().find(|cell| cell[0].cell == run.cell) {
            Some(cell) => cell.push(run),
            None => cells.push(vec![run]),
        }
    }
    cells
}

/// Each distribution that the guest measured: medians over boots.
pub(super) fn figures(experiment: &Experiment) -> Option<Table> {
    const NAMES: [&str; 6] = ["case", "device", "transport", "notify", "interrupts", "bdf"];
    const VALUES: [&str; 4] = ["min", "p50", "p90", "p99"];
    let mut columns: Vec<Column> = experiment.axes.iter().map(Column::words).collect();
    columns.extend(NAMES.map(Column::words));
    columns.extend(VALUES.map(Column::figures));
    let mut rows = Vec::new();
    for runs in cells(experiment) {
        let labels = experiment
            .axes
            .iter()
            .map(|axis| runs[0].label(axis).to_owned());
        let labels: Vec<String> = labels.collect();
        let mut found: Vec<(Vec<String>, [Vec<f64>; 4])> = Vec::new();
        for summary in runs.iter().flat_map(|run| run.of_kind("summary")) {
            let name = NAMES.map(|name| summary[name].as_str().unwrap_or("-").to_owned());
            let values = VALUES.map(|value| summary[value].as_f64());
            let at = found.iter().position(|(known, _)| known[..] == name);
            let at = at.unwrap_or_else(|| {
                found.push((name.to_vec(), Default::default()));
                found.len() - 1
            });
            for (into, value) in found[at].1.iter_mut().zip(values) {
                into.extend(value);
            }
        }
        for (name, values) in found {
            let mut row = labels.clone();
            row.extend(name);
            let medians = values.iter().map(|values| stats::median(values));
            row.extend(medians.map(|median| median.map_or("-".into(), |of| format!("{of:.0}"))));
            rows.push(row);
        }
    }
    (!rows.is_empty()).then(|| Table {
        title: "Figures".into(),
        note: "Cycles an operation; medians over the boots.".into(),
        columns,
        rows,
    })
}
