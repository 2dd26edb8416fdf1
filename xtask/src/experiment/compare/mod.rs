//! `cargo xtask compare A B`: what changed between two result sets, and whether it is
//! noise. [`rows`] finds the figures that both have, [`mod@judge`] says which differ.

mod judge;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use self::judge::{Judged, judge};
use super::findings::{Column, Table};
use super::report::terminal;
use super::set::{Experiment, Set};
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
        changed = true;
    }
    let pairs = rows::pairs(old, new);
    if pairs.is_empty() {
        println!("No figures that both have.");
        return changed;
    }
    let judged = judge(&pairs);
    for (accelerator, factor) in &judged.together {
        println!(
            "Under {accelerator} all figures together are {factor:.2} times those before: another \
             state of the host, or a change that touches all. Each is judged beyond that."
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

/// The verdicts that changed.
fn verdicts(old: &Experiment, new: &Experiment) -> Vec<String> {
    let pairs = old.findings.verdicts.iter().filter_map(|before| {
        let mut all = new.findings.verdicts.iter();
        let after = all.find(|after| after.claim == before.claim)?;
        (before.answer != after.answer).then(|| {
            let (was, is) = (before.answer.words(), after.answer.words());
            format!(
                "CHANGED: {} Before: {was}; after: {is}. {}",
                before.claim, after.because
            )
        })
    });
    pairs.collect()
}

/// The cells that end otherwise now.
fn outcomes(old: &Experiment, new: &Experiment) -> Vec<String> {
    let mut lines = Vec::new();
    let ends = |experiment: &Experiment, like: &super::set::Run| {
        let same = experiment.runs.iter().filter(|run| run.cell == like.cell);
        let mut ends: Vec<String> = same.map(|run| run.verdict.clone()).collect();
        ends.sort();
        ends.dedup();
        ends.join(" or ")
    };
    for run in old.runs.iter().filter(|run| run.boot == 0) {
        let (was, is) = (ends(old, run), ends(new, run));
        if was != is && !is.is_empty() {
            let cell: Vec<&str> = run.cell.values().map(String::as_str).collect();
            lines.push(format!(
                "CHANGED: {}: {was} before, {is} after",
                cell.join(", ")
            ));
        }
    }
    lines
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
