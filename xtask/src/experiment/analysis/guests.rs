//! Whether a memory BAR breaks existing guests: each policy with each device model in each
//! place (all axes but `model`), and the four options of the argument with those whom each
//! breaks.

use super::probes::{self, Outcome, Probe, Rows, Shape};
use crate::experiment::findings::{Answer, Column, Findings, Table, Verdict};
use crate::experiment::set::Experiment;

/// An option of the argument.
struct Choice {
    what: &'static str,
    shape: Shape,
    /// As what it is put to the test.
    claim: &'static str,
    /// The devices that guests work with before it is taken.
    before: Shape,
}

const CHOICES: [Choice; 4] = [
    Choice {
        what: "1: keep the IO BAR alone",
        shape: Shape::IoOnly,
        claim: "An IO BAR alone leaves out guests that work with a memory BAR beside it.",
        before: Shape::Both,
    },
    Choice {
        what: "2: a memory BAR beside the IO BAR, same ID",
        shape: Shape::Both,
        claim: "Adding a memory BAR beside the IO BAR breaks existing guests.",
        before: Shape::IoOnly,
    },
    Choice {
        what: "3: a memory BAR instead of the IO BAR, same ID",
        shape: Shape::MemoryOldId,
        claim: "Taking the IO BAR away under the same device ID breaks existing guests.",
        before: Shape::IoOnly,
    },
    Choice {
        what: "4: a new device with a new ID",
        shape: Shape::MemoryNewId,
        claim: "A new device ID breaks existing guests.",
        before: Shape::IoOnly,
    },
];

/// What stands for option 3, if there is no such device.
const NEAREST: &str = "No device here has an old ID and no IO BAR, and QEMU has no such model: \
                       in its place stands one with both BARs whose IO decoding is off.";

/// The option that the argument ended with, which the experiment is about.
const MAIN: usize = 1;

pub(super) fn analyse(experiment: &Experiment) -> Findings {
    let probes = probes::read(experiment);
    let mut verdicts: Vec<Verdict> = CHOICES.iter().map(|own| verdict(own, &probes)).collect();
    let main = verdicts.remove(MAIN);
    verdicts.insert(0, main);
    Findings {
        verdicts,
        tables: vec![summary(&probes), matrix(experiment, &probes)],
        notes: probes::silent(experiment).into_iter().collect(),
        ..Findings::default()
    }
}

/// The devices that an option stands for, and whether others stand in for them.
fn devices(probes: &[Probe], shape: Shape) -> (Vec<&Probe>, bool) {
    let of = |shape, io| {
        let own = probes.iter();
        let own = own.filter(move |probe| probe.shape == shape && probe.io == io);
        own.collect::<Vec<_>>()
    };
    match (of(shape, true), shape) {
        (own, Shape::MemoryOldId) if own.is_empty() => (of(Shape::Both, false), true),
        (own, _) => (own, false),
    }
}

/// Those after a change that were before it: the same guest with the same kind of device in
/// the same place, where that worked.
fn affected<'p>(before: &[&Probe], after: &[&'p Probe]) -> Vec<&'p Probe> {
    let worked = |probe: &&&Probe| {
        let mut same = before.iter().filter(|before| before.with(probe));
        same.any(|before| before.outcome.works())
    };
    after.iter().filter(worked).copied().collect()
}

fn verdict(choice: &Choice, probes: &[Probe]) -> Verdict {
    let (before, _) = devices(probes, choice.before);
    let (after, nearest) = devices(probes, choice.shape);
    let affected = affected(&before, &after);
    let mixed = before.iter().chain(&after);
    let mixed = mixed
        .filter(|probe| probe.outcome == Outcome::Mixed)
        .count();
    let stopped = |probe: &&&Probe| matches!(probe.outcome, Outcome::Stopped(_));
    let broken = affected.iter().any(|probe| stopped(&probe));
    let answer = match () {
        // What stands in shows who would break, and not that they do.
        () if nearest => Answer::CannotBeToldHere,
        () if broken => Answer::Holds,
        () if mixed > 0 || affected.is_empty() => Answer::CannotBeToldHere,
        () => Answer::DoesNotHold,
    };
    let mut because = match () {
        () if affected.is_empty() => {
            "No guest was seen with the devices before and after, in one place.".to_owned()
        }
        () => by_policy(choice.before, &affected),
    };
    if mixed > 0 {
        because += &format!(" In {mixed} cases boots disagree.");
    }
    if nearest && !affected.is_empty() {
        because = format!("{because} {NEAREST}");
    }
    Verdict {
        claim: choice.claim.to_owned(),
        answer,
        ratio: None,
        because,
    }
}

/// How many of these work, policy by policy, in a sentence.
fn by_policy(before: Shape, affected: &[&Probe]) -> String {
    let before = match before {
        Shape::Both => "an IO BAR and a memory BAR",
        _ => "an IO BAR alone",
    };
    let owned: Vec<Probe> = affected.iter().copied().cloned().collect();
    let policies = probes::names(&owned, |probe| &probe.policy);
    let each = policies.iter().map(|policy| {
        let of_policy = affected.iter().filter(|probe| probe.policy == *policy);
        format!(
            "{policy} {}",
            tally(&of_policy.copied().collect::<Vec<_>>())
        )
    });
    let each = each.collect::<Vec<_>>().join("; ");
    format!("Of the guests that work with {before} in the same place, {each}.")
}

/// `works in 4 of 4 cases (legacy, pio)`, `works in 0 of 4 cases (no: device-id)`.
fn tally(probes: &[&Probe]) -> String {
    let works = probes.iter().filter(|probe| probe.outcome.works()).count();
    let mut how: Vec<String> = Vec::new();
    for probe in probes {
        let words = probe.outcome.words();
        if !how.contains(&words) {
            how.push(words);
        }
    }
    format!(
        "works in {works} of {} cases ({})",
        probes.len(),
        how.join("; ")
    )
}

/// The four options, and who breaks under each.
fn summary(probes: &[Probe]) -> Table {
    let policies = probes::names(probes, |probe| &probe.policy);
    let mut columns = vec![Column::words("option"), Column::words("seen with")];
    columns.extend(policies.iter().map(Column::words));
    columns.extend(["who breaks", "who is left out"].map(Column::words));
    let (io_only, _) = devices(probes, Shape::IoOnly);
    let (mut rows, mut stood_in) = (Vec::new(), false);
    for choice in &CHOICES {
        let (seen, nearest) = devices(probes, choice.shape);
        stood_in |= nearest && !seen.is_empty();
        let owned: Vec<Probe> = seen.iter().copied().cloned().collect();
        let mut models = probes::names(&owned, |probe| &probe.model).join(", ");
        if nearest && !seen.is_empty() {
            models += " (IO off)";
        }
        let of = |policy: &str, probes: &[&Probe]| -> Vec<Probe> {
            let own = probes.iter().filter(|probe| probe.policy == policy);
            own.map(|probe| (*probe).clone()).collect()
        };
        let affected = affected(&io_only, &seen);
        let works = |probes: &[Probe]| probes.iter().all(|probe| probe.outcome.works());
        let (mut broken, mut left_out) = (Vec::new(), Vec::new());
        for policy in &policies {
            if !works(&of(policy, &affected)) {
                broken.push(policy.as_str());
            } else if !works(&of(policy, &seen)) {
                left_out.push(policy.as_str());
            }
        }
        let list = |names: Vec<&str>| match (seen.is_empty(), names.is_empty()) {
            (true, _) => "not seen".to_owned(),
            (false, true) => "nobody".to_owned(),
            (false, false) => names.join(", "),
        };
        let mut row = vec![choice.what.to_owned(), models];
        for policy in &policies {
            let own = of(policy, &seen);
            row.push(match own.is_empty() {
                true => "-".into(),
                false => tally(&own.iter().collect::<Vec<_>>()),
            });
        }
        row.extend([list(broken), list(left_out)]);
        rows.push(row);
    }
    Table {
        title: "The four options".into(),
        note: format!(
            "A case is a device in a place. A guest breaks that works with an IO BAR alone and \
             no more; one that never worked with that is left out. {}",
            if stood_in { NEAREST } else { "" }
        ),
        columns,
        rows,
    }
}

fn matrix(experiment: &Experiment, probes: &[Probe]) -> Table {
    let on: Vec<Probe> = probes.iter().filter(|probe| probe.io).cloned().collect();
    let policies = probes::names(&on, |probe| &probe.policy);
    let rows = Rows::new(experiment, &on);
    let mut columns = rows.columns();
    columns.extend(policies.iter().map(Column::words));
    let table = rows.iter().map(|(cells, of_row)| {
        let mut row = cells.to_vec();
        row.extend(policies.iter().map(|policy| {
            let own = of_row.iter().filter(|probe| probe.policy == *policy);
            probes::together(own.copied(), |probe| probe.outcome.words())
        }));
        row
    });
    Table {
        title: "What works for whom".into(),
        note: format!(
            "By which interface and doorbell, or what stops the guest. {} {}",
            rows.note,
            probes::legend(experiment)
        ),
        columns,
        rows: table.collect(),
    }
}

#[cfg(test)]
mod tests;
