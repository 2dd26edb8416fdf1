//! A set in the terminal: verdicts first, then tables.

use super::{worlds, wrap};
use crate::experiment::findings::{Table, Verdict};
use crate::experiment::set::{Experiment, Set};

/// No column of words is made narrower, except where its cells are.
const NARROWEST: usize = 12;
/// Between columns.
const GAP: &str = "  ";

/// The width of the terminal that stdout is, in characters; `None` if it is none: a file
/// has lines of any length.
pub(crate) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// The whole set, as text; nothing is wider than `width` if that can be helped.
pub(crate) fn render(set: &Set, width: Option<usize>) -> String {
    let partial = "INTERRUPTED: not all runs were done; what follows is of those that were.";
    let partial = (!set.complete).then(|| partial.to_owned());
    let lines = set.experiments.iter().flat_map(|one| of(one, width));
    let lines = partial.into_iter().chain(lines);
    lines.map(|line| line + "\n").collect()
}

fn of(experiment: &Experiment, width: Option<usize>) -> Vec<String> {
    let findings = &experiment.findings;
    let title = format!("== {}: {}", experiment.name, experiment.title);
    let words = [String::new(), title].into_iter();
    let words = words.chain(findings.verdicts.iter().map(line));
    let words = words.chain(findings.notes.iter().cloned());
    let mut all: Vec<String> = words.flat_map(|words| fitted(&words, width)).collect();
    let notes = worlds::notes(experiment);
    for table in &findings.tables {
        all.push(String::new());
        all.extend(captioned(table, &notes, width));
    }
    all
}

/// A table of its own, as text.
pub(crate) fn table(table: &Table, width: Option<usize>) -> String {
    let lines = captioned(table, &[], width).into_iter();
    lines.map(|line| line + "\n").collect()
}

fn captioned(table: &Table, notes: &[String], width: Option<usize>) -> Vec<String> {
    let mut all = fitted(&caption(table, notes), width);
    all.extend(lines(table, width));
    all
}

/// A paragraph in lines of the width; its own lines stay.
fn fitted(paragraph: &str, width: Option<usize>) -> Vec<String> {
    let lines = paragraph.lines().chain(paragraph.is_empty().then_some(""));
    match width {
        // What is indented is no prose.
        Some(width) => lines
            .flat_map(|line| match line.starts_with(' ') {
                true => vec![line.to_owned()],
                false => wrap::lines(line, width),
            })
            .collect(),
        None => lines.map(str::to_owned).collect(),
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

/// A table's title and note, and the world of its figures if that is not hardware.
fn caption(table: &Table, notes: &[String]) -> String {
    let (marks, note) = worlds::of(&table.note, notes);
    let marks = marks.iter().map(|mark| format!("{mark}."));
    let stop = if table.title.ends_with(['.', '?', '!']) {
        ""
    } else {
        "."
    };
    let parts = [format!("{}{stop}", table.title), note]
        .into_iter()
        .chain(marks);
    let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// The lines of a table. Cells of words are broken where it would be too wide.
fn lines(table: &Table, width: Option<usize>) -> Vec<String> {
    let names: Vec<String> = table
        .columns
        .iter()
        .map(|column| column.name.clone())
        .collect();
    let rows = || std::iter::once(&names).chain(&table.rows);
    let mut widths = vec![0; names.len()];
    for row in rows() {
        for (width, cell) in widths.iter_mut().zip(row) {
            let longest = cell.lines().map(|line| line.chars().count()).max();
            *width = (*width).max(longest.unwrap_or(0));
        }
    }
    if let Some(width) = width {
        let words = table.columns.iter().map(|column| !column.figures);
        shrink(&mut widths, &words.collect::<Vec<_>>(), width);
    }
    let mut lines = Vec::new();
    for row in rows() {
        let cells: Vec<Vec<String>> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| broken(cell, width))
            .collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0);
        for n in 0..height {
            let cells = cells.iter().zip(&table.columns).zip(&widths);
            let cells = cells.map(|((cell, column), &width)| {
                let cell = cell.get(n).map_or("", String::as_str);
                match column.figures {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                }
            });
            let line = cells.collect::<Vec<_>>().join(GAP);
            lines.push(line.trim_end().to_owned());
        }
    }
    lines
}

/// The lines of a cell: its own, and those broken that are too long.
fn broken(cell: &str, width: usize) -> Vec<String> {
    cell.lines()
        .flat_map(|line| match line.chars().count() <= width {
            true => vec![line.to_owned()],
            false => wrap::lines(line, width),
        })
        .collect()
}

/// Takes from the widest columns of words until all fit, or none can give more.
fn shrink(widths: &mut [usize], words: &[bool], all: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > all {
        let giving = widths.iter_mut().zip(words);
        let giving = giving.filter(|(width, words)| **words && **width > NARROWEST);
        let Some((widest, _)) = giving.max_by_key(|(width, _)| **width) else {
            return;
        };
        *widest -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::findings::Column;
    use crate::experiment::set::Run;

    fn table() -> Table {
        Table {
            title: "Runs".into(),
            note: "How they ended.".into(),
            columns: vec![
                Column::words("machine"),
                Column::words("ended"),
                Column::figures("ms"),
            ],
            rows: vec![
                ["q35", "5 pass", "1403"].map(str::to_owned).into(),
                [
                    "microvm",
                    "skipped: it has no PCI bus to plug the device in",
                    "-",
                ]
                .map(str::to_owned)
                .into(),
            ],
        }
    }

    #[test]
    fn a_table_is_as_wide_as_it_is_in_a_file_and_broken_in_a_terminal() {
        let wide = lines(&table(), None);
        assert_eq!(wide.len(), 3);
        assert_eq!(wide[1].split_whitespace().last(), Some("1403"));
        let narrow = lines(&table(), Some(40));
        assert!(
            narrow.iter().all(|line| line.chars().count() <= 40),
            "{narrow:#?}"
        );
        assert_eq!(
            narrow[2..],
            [
                "microvm  skipped: it has no PCI        -",
                "         bus to plug the device in",
            ]
        );
    }

    #[test]
    fn figures_are_never_broken() {
        let mut table = table();
        table.columns[1].figures = true;
        let narrow = lines(&table, Some(20));
        assert_eq!(narrow.len(), 3);
    }

    #[test]
    fn every_table_says_what_its_figures_are_not() {
        let mut set = Set::new(serde_json::json!({}));
        let mut experiment = Experiment {
            runs: vec![Run {
                note: Some("TCG: not hardware's".into()),
                ..Run::default()
            }],
            ..Experiment::default()
        };
        experiment.findings.tables = vec![table(), table()];
        set.experiments = vec![experiment];
        let text = render(&set, None);
        let captions = text.matches("Runs. How they ended. TCG: not hardware's.");
        assert_eq!(captions.count(), 2, "{text}");
    }
}
