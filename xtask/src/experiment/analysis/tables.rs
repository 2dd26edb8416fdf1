//! What was seen, without a conclusion: every figure that the guest's records hold, and how
//! the runs ended.

use std::collections::BTreeMap;

use serde_json::Value;

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
    const NAMES: [&str; 7] = [
        "case",
        "device",
        "bdf",
        "subtest",
        "transport",
        "notify",
        "interrupts",
    ];
    let values = ["min", "p50", "p90", "p99"].map(|name| (name, name));
    gather(
        experiment,
        "summary",
        &NAMES,
        &values,
        "Figures",
        "Cycles an operation",
    )
}

/// Each load that the guest put on a device: medians over boots.
pub(super) fn loads(experiment: &Experiment) -> Option<Table> {
    const NAMES: [&str; 6] = ["workload", "what", "driver", "depth", "transport", "notify"];
    let values = [
        ("cycles", "/cycles/p50"),
        ("doorbells", "doorbells"),
        ("interrupts", "interrupts_came"),
        ("a second", "per_second"),
    ];
    gather(experiment, "load", &NAMES, &values, "Loads", "Of a request")
}

/// A row for each cell and each name that records of a kind have, with the medians of
/// their values. What is the same in all rows is said in the note instead.
fn gather(
    experiment: &Experiment,
    kind: &str,
    names: &[&str],
    values: &[(&str, &str)],
    title: &str,
    note: &str,
) -> Option<Table> {
    let value = |record: &Value, path: &str| match path.starts_with('/') {
        true => record.pointer(path).and_then(Value::as_f64),
        false => record[path].as_f64(),
    };
    let word = |record: &Value, name: &str| match &record[name] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "-".to_owned(),
    };
    let mut rows = Vec::new();
    for runs in cells(experiment) {
        let labels = experiment.axes.iter();
        let labels: Vec<String> = labels.map(|axis| runs[0].label(axis).to_owned()).collect();
        let mut found: Vec<(Vec<String>, Vec<Vec<f64>>)> = Vec::new();
        for record in runs.iter().flat_map(|run| run.of_kind(kind)) {
            let name: Vec<String> = names.iter().map(|name| word(record, name)).collect();
            let at = found.iter().position(|(known, _)| *known == name);
            let at = at.unwrap_or_else(|| {
                found.push((name, vec![Vec::new(); values.len()]));
                found.len() - 1
            });
            for (into, (_, path)) in found[at].1.iter_mut().zip(values) {
                into.extend(value(record, path));
            }
        }
        for (name, values) in found {
            let mut row = labels.clone();
            row.extend(name);
            row.extend(values.iter().map(|values| {
                let median = stats::median(values);
                median.map_or("-".into(), |of| match of.abs() < 10.0 {
                    true => format!("{of:.4}"),
                    false => format!("{of:.0}"),
                })
            }));
            rows.push(row);
        }
    }
    let words = experiment
        .axes
        .iter()
        .map(String::as_str)
        .chain(names.iter().copied());
    let mut columns: Vec<Column> = words.map(Column::words).collect();
    columns.extend(values.iter().map(|(name, _)| Column::figures(*name)));
    let note = format!("{note}; medians over the boots.");
    let table = Table {
        title: title.into(),
        note,
        columns,
        rows,
    };
    (!table.rows.is_empty()).then(|| without_constants(table))
}

/// Takes out the columns of words that say the same in all rows, and says it in the note.
fn without_constants(mut table: Table) -> Table {
    if table.rows.len() < 2 {
        return table;
    }
    let mut said = Vec::new();
    for at in (0..table.columns.len()).rev() {
        let first = &table.rows[0][at];
        let constant = table.rows.iter().all(|row| row[at] == *first);
        if table.columns[at].figures || !constant {
            continue;
        }
        if first != "-" {
            said.push(format!("{} {first}", table.columns[at].name));
        }
        table.columns.remove(at);
        for row in &mut table.rows {
            row.remove(at);
        }
    }
    said.reverse();
    if !said.is_empty() {
        table.note = format!("{} In all rows: {}.", table.note, said.join(", "));
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_of_different_names_stay_apart_and_what_is_the_same_is_said_once() {
        let control = |subtest: &str, min: f64| {
            json!({"kind": "summary", "case": "testdev", "device": "pci-testdev",
                "subtest": subtest, "min": min, "p50": min, "p90": min, "p99": min})
        };
        let load = |depth: u64| {
            json!({"kind": "load", "workload": "blk", "driver": "ours", "depth": depth,
                "cycles": {"p50": 1700.4}, "doorbells": 0.0147, "interrupts_came": 0.0})
        };
        let experiment = Experiment {
            axes: vec!["machine".into()],
            runs: vec![Run {
                cell: [("machine".to_owned(), "q35".to_owned())].into(),
                records: vec![
                    control("mmio-no-eventfd", 113.0),
                    control("mmio-wildcard-eventfd", 963.0),
                    load(1),
                    load(16),
                ],
                ..Run::default()
            }],
            ..Experiment::default()
        };
        let table = figures(&experiment).unwrap();
        assert_eq!(table.columns[0].name, "subtest");
        assert_eq!(table.rows[0][..2], ["mmio-no-eventfd", "113"]);
        assert_eq!(table.rows[1][..2], ["mmio-wildcard-eventfd", "963"]);
        let said = "In all rows: machine q35, case testdev, device pci-testdev.";
        assert!(table.note.ends_with(said), "{}", table.note);
        let table = loads(&experiment).unwrap();
        assert_eq!(table.rows[1], ["16", "1700", "0.0147", "0.0000", "-"]);
        assert!(figures(&Experiment::default()).is_none());
    }
}
