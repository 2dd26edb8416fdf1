//! One experiment in the page.

use maud::{Markup, html};

use super::parts::{self, several};
use crate::experiment::findings::{Column, Table};
use crate::experiment::plan::Labels;
use crate::experiment::report::worlds;
use crate::experiment::set::Experiment;

/// All of it. `id` is unique in the page.
pub(super) fn section(experiment: &Experiment, id: &str) -> Markup {
    let findings = &experiment.findings;
    let notes = worlds::notes(experiment);
    html! {
        section {
            h2 id=(id) {
                span.name { (experiment.name) }
                (parts::inline(&experiment.title))
            }
            dl {
                @if !experiment.claim.is_empty() { dt { "Claim" } dd { (parts::inline(&experiment.claim)) } }
                @if !experiment.false_if.is_empty() {
                    dt { "Shown false if" } dd { (parts::inline(&experiment.false_if)) }
                }
            }
            (verdicts(experiment))
            @for note in &findings.notes { (parts::prose(note)) }
            @for (n, plot) in findings.plots.iter().enumerate() {
                (parts::figure(plot, &format!("{id}-plot-{n}"), &notes))
            }
            @for table in findings.tables.iter().chain(failed(experiment).as_ref()) {
                (parts::table(table, &notes))
            }
            @if let Some(skipped) = skipped(experiment) { (parts::table(&skipped, &[])) }
            (repeat(experiment))
        }
    }
}

fn verdicts(experiment: &Experiment) -> Markup {
    let verdicts = &experiment.findings.verdicts;
    html! {
        @if verdicts.is_empty() {
            p { (parts::answer(None)) " " (without(experiment)) }
        } @else {
            ul.verdicts {
                @for verdict in verdicts {
                    li {
                        (parts::answer(Some(verdict.answer))) " " b { (parts::inline(&verdict.claim)) }
                        (parts::ratio(verdict))
                        p { (parts::inline(&verdict.because)) }
                    }
                }
            }
        }
    }
}

/// Why there is no verdict.
pub(super) fn without(experiment: &Experiment) -> &'static str {
    match experiment.runs.is_empty() {
        true => "Nothing was run.",
        false => "It shows what was seen, and draws no conclusion.",
    }
}

/// The runs that did not pass, with what there is to say about them.
fn failed(experiment: &Experiment) -> Option<Table> {
    let failed = experiment.runs.iter().filter(|run| run.verdict != "pass");
    let rows = failed.map(|run| {
        vec![
            words(&run.cell, &experiment.axes),
            run.boot.to_string(),
            run.verdict.clone(),
            run.message.clone().unwrap_or_default(),
            run.folder.clone(),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let mut columns = ["cell", "boot", "ended", "message", "logs in"].map(Column::words);
    columns[1].figures = true;
    (!rows.is_empty()).then(|| Table {
        title: "Runs that did not pass".into(),
        note: "Their folders are below the set's.".into(),
        columns: columns.into(),
        rows,
    })
}

/// The cells that were not run, by reason.
fn skipped(experiment: &Experiment) -> Option<Table> {
    let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
    for skipped in &experiment.skipped {
        let cell = words(&skipped.cell, &experiment.axes);
        match rows
            .iter_mut()
            .find(|(reason, _)| *reason == skipped.reason)
        {
            Some((_, cells)) => cells.push(cell),
            None => rows.push((&skipped.reason, vec![cell])),
        }
    }
    let row = |(reason, cells): (&str, Vec<String>)| {
        vec![reason.to_owned(), cells.len().to_string(), cells.join("; ")]
    };
    (!rows.is_empty()).then(|| Table {
        title: "Skipped".into(),
        note: format!(
            "{} not run, and why.",
            several(experiment.skipped.len(), "cell")
        ),
        columns: vec![
            Column::words("reason"),
            Column::figures("cells"),
            Column::words("which"),
        ],
        rows: rows.into_iter().map(row).collect(),
    })
}

/// A cell's names, in the order of the axes.
fn words(cell: &Labels, axes: &[String]) -> String {
    let names = axes.iter().filter_map(|axis| cell.get(axis));
    names.cloned().collect::<Vec<_>>().join(", ")
}

/// How to do it again.
fn repeat(experiment: &Experiment) -> Markup {
    let (name, boots) = (&experiment.name, experiment.boots);
    html! {
        h3 { "To repeat it" }
        pre.scroll tabindex="0" { "cargo xtask experiment " (name) " --boots " (boots) }
        p.note {
            "A plan that does not come with doorbell is named by its file: save it as "
            code { (name) ".toml" } ", and name that."
        }
        details {
            summary { "The plan, " (name) ".toml" }
            pre.scroll tabindex="0" { (experiment.plan) }
        }
    }
}
