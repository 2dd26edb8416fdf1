//! A set in the terminal: verdicts first, then tables.

use std::fmt::Write;

use crate::experiment::findings::{Table, Verdict};
use crate::experiment::set::{Experiment, Set};

/// The whole set, as text.
pub(crate) fn render(set: &Set) -> String {
    let mut text = String::new();
    for experiment in &set.experiments {
        one(experiment, &mut text);
    }
    text
}

fn one(experiment: &Experiment, text: &mut String) {
    let _ = writeln!(text, "\n== {}: {}", experiment.name, experiment.title);
    for verdict in &experiment.findings.verdicts {
        let _ = writeln!(text, "{}", line(verdict));
    }
    for note in &experiment.findings.notes {
        let _ = writeln!(text, "{note}");
    }
    for table in &experiment.findings.tables {
        let _ = writeln!(text, "\n{}", self::table(table));
    }
}

fn line(verdict: &Verdict) -> String {
    let ratio = verdict.ratio.map_or(String::new(), |ratio| {
        let level = ratio.level * 100.0;
        format!(
            " Ratio {}, {level:.0} % of {} boots.",
            ratio.words(),
            ratio.n
        )
    });
    let answer = verdict.answer.words().to_uppercase();
    format!("{answer}: {} {}{ratio}", verdict.claim, verdict.because)
}

/// A table, as text.
pub(crate) fn table(table: &Table) -> String {
    let mut widths: Vec<usize> = table
        .columns
        .iter()
        .map(|column| column.name.chars().count())
        .collect();
    for row in &table.rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = format!("{}. {}\n", table.title, table.note);
    let names: Vec<String> = table
        .columns
        .iter()
        .map(|column| column.name.clone())
        .collect();
    for row in std::iter::once(&names).chain(&table.rows) {
        let cells = row.iter().zip(&table.columns).zip(&widths);
        let cells = cells.map(|((cell, column), &width)| match column.figures {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
