//! `io-space`: how many devices have IO space, by where they are and who assigns it.
//!
//! A device counts where the guest's own records say so: it was found, one of its BARs is
//! an IO BAR with an address, and it was brought up and served a request by its legacy or
//! its modern interface.

use std::collections::BTreeSet;

use crate::experiment::findings::{Answer, Column, Findings, Line, Plot, Table, Verdict};
use crate::experiment::set::{Experiment, Run, has_io};

/// "A dozen": so many, and no more, the claim lets have IO space.
const DOZEN: usize = 16;
/// "Hundreds": as many must have it.
const HUNDRED: usize = 100;
/// How a run is said to have ended of which firmware gave up.
const GAVE_UP: &str = "firmware-gave-up";
/// The conventional place; all others lead through PCI Express ports.
const CONVENTIONAL: &str = "PCI bridges";
/// Places in which each device has a port of its own.
const PORTS: [&str; 2] = ["root ports", "switch"];

/// What became of a run's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    firmware: String,
    place: String,
    model: String,
    count: usize,
    /// What firmware said when it gave up, before any guest.
    stopped: Option<String>,
    found: usize,
    io: usize,
    legacy: usize,
    modern: usize,
}

impl Seen {
    fn of(run: &Run) -> Option<Self> {
        let of = |axis: &str| run.label(axis).to_owned();
        let works = |transport: &str| {
            let devices = run.of_kind("device");
            let devices = devices.filter(|device| device["transport"] == transport);
            devices
                .filter_map(|device| device["bdf"].as_str())
                .collect::<BTreeSet<_>>()
                .len()
        };
        let ended = run.of_kind("end").next().is_some();
        let gave_up = run.verdict == GAVE_UP;
        if !ended && !gave_up {
            // A time-out, or QEMU's end, says nothing of IO space.
            return None;
        }
        let said = run.of_kind("firmware").next();
        let said = said.and_then(|record| record["said"].as_str());
        let stopped = gave_up.then(|| said.unwrap_or("without a word").to_owned());
        Some(Self {
            firmware: of("firmware"),
            place: of("place"),
            model: of("model"),
            count: run.label("count").parse().ok()?,
            stopped,
            found: run.virtio_functions().count(),
            io: run
                .virtio_functions()
                .filter(|function| has_io(function))
                .count(),
            legacy: works("pci-legacy"),
            modern: works("pci-modern"),
        })
    }
}

pub(super) fn analyse(experiment: &Experiment) -> Findings {
    let seen: Vec<Seen> = experiment.runs.iter().filter_map(Seen::of).collect();
    if seen.is_empty() {
        return Findings::default();
    }
    let mut firmwares: Vec<&str> = seen.iter().map(|seen| seen.firmware.as_str()).collect();
    firmwares.dedup();
    let mut findings = Findings::default();
    for firmware in firmwares {
        let own: Vec<&Seen> = seen
            .iter()
            .filter(|seen| seen.firmware == firmware)
            .collect();
        findings.verdicts.extend(runs_out(firmware, &own));
        findings.verdicts.extend(has_hundreds(firmware, &own));
        findings.verdicts.extend(do_without(firmware, &own));
        findings.plots.push(plot(firmware, &own));
    }
    findings.tables.push(table(&seen));
    let untold = experiment.runs.len() - seen.len();
    if untold > 0 {
        findings.notes.push(format!(
            "{untold} boots ended without a word of the guest's or firmware's about IO space, as by \
             a time-out, and count for nothing."
        ));
    }
    findings.notes.push(
        "Under seabios firmware assigns; under qboot nobody does before the guest, so that it is \
         this guest's own assignment. What is counted does not depend on speed: one boot tells."
            .into(),
    );
    findings
}

fn who(firmware: &str) -> &str {
    match firmware {
        "qboot" => "the guest's own assignment (qboot)",
        other => other,
    }
}

/// The claim about ports: does IO space run out, and at which count?
fn runs_out(firmware: &str, seen: &[&Seen]) -> Option<Verdict> {
    let mut parts = Vec::new();
    let mut answers = Vec::new();
    for place in PORTS {
        let mut own: Vec<_> = seen
            .iter()
            .filter(|seen| seen.place == place && seen.model == "transitional")
            .collect();
        own.sort_by_key(|seen| seen.count);
        let lacks = |seen: &&&Seen| seen.stopped.is_some() || seen.io < seen.count;
        let Some(first) = own.iter().find(|seen| lacks(seen)) else {
            if let Some(last) = own.last() {
                answers.push(last.count <= DOZEN);
                parts.push(format!("{place}: all of {} have it", last.count));
            }
            continue;
        };
        // The most that ever had it.
        let most = own.iter().map(|seen| seen.io).max().unwrap_or(0);
        answers.push(most <= DOZEN);
        let enough = own.iter().take_while(|seen| !lacks(seen)).last();
        let enough = enough.map_or(0, |seen| seen.count);
        let then = match &first.stopped {
            Some(said) => format!(
                "with {} no guest starts at all (\"{}\")",
                first.count,
                said.rsplit("; ").next().unwrap_or(said)
            ),
            None => format!(
                "of {} only {} have it, {} work by the legacy interface and {} by the modern one",
                first.count, first.io, first.legacy, first.modern
            ),
        };
        parts.push(format!("{place}: all of {enough} have it, {then}"));
    }
    let answer = match answers.as_slice() {
        [] => return None,
        all if all.iter().all(|holds| *holds) => Answer::Holds,
        _ => Answer::DoesNotHold,
    };
    Some(Verdict {
        claim: format!(
            "By {}, IO space runs out after about a dozen PCI Express devices with a port each.",
            who(firmware)
        ),
        answer,
        ratio: None,
        because: format!("{}.", parts.join("; ")),
    })
}

/// The claim about conventional PCI.
fn has_hundreds(firmware: &str, seen: &[&Seen]) -> Option<Verdict> {
    let own = seen.iter().filter(|seen| {
        seen.place == CONVENTIONAL && seen.model == "transitional" && seen.count >= HUNDRED
    });
    let own: Vec<_> = own.collect();
    let most = own.iter().max_by_key(|seen| seen.count)?;
    let all = |seen: &&&&Seen| seen.stopped.is_none() && seen.io == seen.count;
    let holds = own.iter().any(|seen| all(&seen));
    let because = match &most.stopped {
        Some(said) => format!("With {} devices: {said}.", most.count),
        None => format!(
            "Of {} devices {} have IO space, and {} work by the legacy interface.",
            most.count, most.io, most.legacy
        ),
    };
    Some(Verdict {
        claim: format!(
            "By {}, conventional PCI has IO space for a hundred devices and more.",
            who(firmware)
        ),
        answer: if holds {
            Answer::Holds
        } else {
            Answer::DoesNotHold
        },
        ratio: None,
        because,
    })
}

/// What the argument came to: devices that need no IO space.
fn do_without(firmware: &str, seen: &[&Seen]) -> Option<Verdict> {
    let own = seen
        .iter()
        .filter(|seen| PORTS.contains(&seen.place.as_str()) && seen.model == "non-transitional");
    let most = own
        .max_by_key(|seen| seen.count)
        .filter(|seen| seen.count > DOZEN)?;
    let holds = most.stopped.is_none() && most.modern == most.count;
    Some(Verdict {
        claim: format!(
            "By {}, devices without an IO BAR work behind ports where IO space has run out.",
            who(firmware)
        ),
        answer: if holds {
            Answer::Holds
        } else {
            Answer::DoesNotHold
        },
        ratio: None,
        because: match &most.stopped {
            Some(said) => format!("With {} devices: {said}.", most.count),
            None => format!("Of {} devices {} work.", most.count, most.modern),
        },
    })
}

fn plot(firmware: &str, seen: &[&Seen]) -> Plot {
    let mut lines: Vec<Line> = Vec::new();
    for one in seen.iter().filter(|seen| seen.model == "transitional") {
        let at = lines.iter().position(|line| line.name == one.place);
        let at = at.unwrap_or_else(|| {
            lines.push(Line {
                name: one.place.clone(),
                points: Vec::new(),
            });
            lines.len() - 1
        });
        lines[at].points.push((one.count as f64, one.io as f64));
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Plot::Lines {
        title: format!("IO BARs with an address, against devices ({firmware})"),
        note: "Transitional devices; 0 where firmware gave up and no guest started.".into(),
        x: "devices".into(),
        y: "IO BARs with an address".into(),
        log_x: false,
        log_y: false,
        lines,
    }
}

fn table(seen: &[Seen]) -> Table {
    let rows = seen.iter().map(|seen| {
        let Seen {
            found,
            io,
            legacy,
            modern,
            ..
        } = seen;
        let figures = match &seen.stopped {
            Some(_) => ["-"; 4].map(str::to_owned),
            None => [found, io, legacy, modern].map(ToString::to_string),
        };
        let mut row = vec![
            seen.firmware.clone(),
            seen.place.clone(),
            seen.model.clone(),
            seen.count.to_string(),
        ];
        row.extend(figures);
        row.push(seen.stopped.clone().unwrap_or_default());
        row
    });
    Table {
        title: "Devices".into(),
        note: "How many were found, have an IO BAR with an address, and served a request by each \
               interface."
            .into(),
        columns: vec![
            Column::words("assigned by"),
            Column::words("place"),
            Column::words("model"),
            Column::figures("devices"),
            Column::figures("found"),
            Column::figures("IO"),
            Column::figures("legacy"),
            Column::figures("modern"),
            Column::words("what stopped the guest"),
        ],
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests;
