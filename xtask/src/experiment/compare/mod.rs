//! `cargo xtask compare A B`: what changed between two result sets, and whether it is
//! noise. [`rows`] finds the figures that both have, [`mod@judge`] says which differ.

mod judge;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use self::judge::{Judged, judge};
use super::analysis;
use super::findings::{Column, Table};
use super::report::terminal;
use super::set::{Experiment, Run, Set, has_io};
use crate::say;
use crate::usage::BadUsage;

/// The exit status when something changed.
const CHANGED: u8 = 3;

/// The exit statuses, for --help.
pub(crate) const EXIT_STATUS_HELP: &str = "\
Exit status:
    0  nothing changed but by noise
    1  a set cannot be read
    2  bad usage, or the two have no experiment in common
    3  something changed";

/// The options of `compare`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// A folder that `cargo xtask experiment` left
    before: PathBuf,
    /// Another
    after: PathBuf,
    /// Show also what did not change
    #[arg(long, short)]
    all: bool,
}

/// `cargo xtask compare`.
///
/// # Errors
/// When a set cannot be read, or the two have nothing in common.
pub(crate) fn main(args: &CompareArgs) -> Result<ExitCode> {
    let (before, after) = (Set::read(&args.before)?, Set::read(&args.after)?);
    for set in [(&args.before, &before), (&args.after, &after)] {
        if !set.1.complete {
            let folder = set.0.display();
            say::note(format!("{folder} was interrupted: what it has is compared"));
        }
    }
    print!("{}", worlds(&before, &after));
    let (mut common, mut changed) = (0, false);
    for old in &before.experiments {
        let Some(new) = after.experiments.iter().find(|new| new.name == old.name) else {
            continue;
        };
        common += 1;
        changed |= one(old, new, args.all);
    }
    if common == 0 {
        let names = |set: &Set| {
            let names = set
                .experiments
                .iter()
                .map(|experiment| experiment.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let (before, after) = (names(&before), names(&after));
        return Err(BadUsage(format!(
            "the sets have no experiment in common: the first has {before}, the second {after}"
        ))
        .into());
    }
    Ok(match changed {
        true => ExitCode::from(CHANGED),
        false => ExitCode::SUCCESS,
    })
}

/// In what the worlds of two sets differ.
fn worlds(before: &Set, after: &Set) -> String {
    let (Some(old), Some(new)) = (before.host.as_object(), after.host.as_object()) else {
        return String::new();
    };
    let differ = old
        .iter()
        .filter(|(key, value)| new.get(*key) != Some(value));
    let lines = differ.map(|(key, value)| {
        let other = new.get(key).cloned().unwrap_or_default();
        format!("{key}: {value} before, {other} after\n")
    });
    lines.collect()
}

/// Compares and shows one experiment. Says whether something changed.
fn one(old: &Experiment, new: &Experiment, all: bool) -> bool {
    println!("\n== {}: {}", old.name, old.title);
    let mut changed = false;
    for line in verdicts(old, new).into_iter().chain(outcomes(old, new)) {
        println!("{line}");
        changed |= line.starts_with(CHANGED_LINE);
    }
    let pairs = rows::pairs(old, new);
    if pairs.is_empty() {
        let cells = cells(new).len();
        println!("No timed figures. {cells} cells after; what is not named above is as before.");
        return changed;
    }
    let judged = judge(&pairs);
    for (accelerator, factor) in &judged.controls {
        println!(
            "Under {accelerator} the controls (an idle port, pci-testdev) take {factor:.2} times \
             what they did: another state of the host. Times are judged beyond that."
        );
    }
    let real = judged.rows.iter().filter(|row| row.real).count();
    changed |= real > 0;
    println!(
        "{} figures: {real} changed, {} differ by no more than noise, {} have too few boots to \
         tell.",
        judged.rows.len(),
        judged.rows.len() - real - judged.few(),
        judged.few()
    );
    if let Some(table) = table(&judged, all) {
        println!("\n{}", terminal::table(&table, terminal::width()));
    }
    changed
}

/// The verdicts that differ, drawn from the data by this tool for both. One that follows
/// from timed figures differs as they do: those are judged, and this is a remark.
fn verdicts(old: &Experiment, new: &Experiment) -> Vec<String> {
    let (before, after) = (analysis::analyse(old), analysis::analyse(new));
    let timed = old
        .runs
        .iter()
        .any(|run| run.of_kind("summary").next().is_some())
        || old
            .runs
            .iter()
            .any(|run| run.of_kind("load").next().is_some());
    let pairs = before.verdicts.iter().filter_map(|before| {
        let mut all = after.verdicts.iter();
        let after = all.find(|after| after.claim == before.claim)?;
        (before.answer != after.answer).then(|| {
            let (was, is) = (before.answer.words(), after.answer.words());
            let word = if timed { "Verdict" } else { CHANGED_LINE };
            let (claim, because) = (&before.claim, &after.because);
            format!("{word}: {claim} Before: {was}; after: {is}. {because}")
        })
    });
    pairs.collect()
}

/// What a line begins with that tells of a change.
const CHANGED_LINE: &str = "CHANGED";

/// The cells that end otherwise now, that show other devices, or that one set lacks.
fn outcomes(old: &Experiment, new: &Experiment) -> Vec<String> {
    let (before, after) = (cells(old), cells(new));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let lines = names.into_iter().filter_map(|name| {
        let none = "not run".to_owned();
        let was = before.get(name).unwrap_or(&none);
        let is = after.get(name).unwrap_or(&none);
        (was != is).then(|| format!("{CHANGED_LINE}: {name}: {was} before, {is} after"))
    });
    lines.collect()
}

/// How each cell ended, and what was seen of its devices, in words.
fn cells(experiment: &Experiment) -> BTreeMap<String, String> {
    let mut cells: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for run in &experiment.runs {
        let labels = experiment.axes.iter().map(|axis| run.label(axis));
        let name = labels.collect::<Vec<_>>().join(", ");
        cells.entry(name).or_default().insert(seen(run));
    }
    let words = |seen: BTreeSet<String>| seen.into_iter().collect::<Vec<_>>().join(" or ");
    cells
        .into_iter()
        .map(|(name, seen)| (name, words(seen)))
        .collect()
}

/// How a run ended, and how many devices worked by which interface.
fn seen(run: &Run) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for record in &run.records {
        let kind = record["kind"].as_str().unwrap_or_default();
        let what = match kind {
            "device" => record["transport"].as_str().map(str::to_owned),
            "probe" | "real-guest" => {
                let policy = record["policy"].as_str().unwrap_or("guest");
                let by = record["transport"]
                    .as_str()
                    .or(record["interface"].as_str());
                let works = record["works"] == true;
                Some(format!(
                    "{policy} {}",
                    by.filter(|_| works).unwrap_or("stopped")
                ))
            }
            "pci" => has_io(record).then(|| "IO".to_owned()),
            _ => None,
        };
        if let Some(what) = what {
            *counts.entry(what).or_default() += 1;
        }
    }
    let counts = counts.iter().map(|(what, count)| format!("{count} {what}"));
    let counts = counts.collect::<Vec<_>>().join(", ");
    match counts.as_str() {
        "" => run.verdict.clone(),
        counts => format!("{} ({counts})", run.verdict),
    }
}

fn table(judged: &Judged<'_>, all: bool) -> Option<Table> {
    let rows = judged.rows.iter().filter(|row| row.real || all).map(|row| {
        let pair = row.pair;
        vec![
            if row.real { "changed" } else { row.why }.to_owned(),
            pair.name.clone(),
            format!("{:.*}", pair.digits(), row.before),
            format!("{:.*}", pair.digits(), row.after),
            row.ratio.map_or("-".into(), |ratio| ratio.words()),
            format!("{:.0} %", 100.0 * row.noise),
        ]
    });
    let rows: Vec<_> = rows.collect();
    (!rows.is_empty()).then(|| Table {
        title: "Figures".into(),
        note: "Medians over boots; the ratio after / before with its interval; and what boots of \
               one set differ by."
            .into(),
        columns: vec![
            Column::words("is it real"),
            Column::words("what"),
            Column::figures("before"),
            Column::figures("after"),
            Column::figures("ratio"),
            Column::figures("noise"),
        ],
        rows,
    })
}
