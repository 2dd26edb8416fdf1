//! Whether guests that nobody here wrote break when a device has a memory BAR with the
//! modern interface, and which interface they take.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::experiment::findings::{Answer, Column, Findings, Table, Verdict};
use crate::experiment::schema::File;
use crate::experiment::set::{Experiment, Run};

/// The models' names in the experiment's file; there may be more that begin with the
/// second.
const LEGACY: &str = "legacy only";
const TRANSITIONAL: &str = "transitional";
const MODERN: &str = "non-transitional";

/// The verdict of a run whose guest says itself that it failed. Any other end without its
/// proof tells nothing of the guest: the host may have been too busy.
const FAILED: &str = "fail";

/// One guest at one place.
struct Spot<'a> {
    guest: &'a str,
    machine: &'a str,
    placement: &'a str,
    runs: Vec<&'a Run>,
}

pub(super) fn analyse(experiment: &Experiment) -> Findings {
    let spots = spots(experiment);
    Findings {
        verdicts: vec![
            survives(
                &spots,
                "Adding a memory BAR with the modern interface breaks these guests.",
                "a transitional one",
                |model| model.starts_with(TRANSITIONAL),
            ),
            survives(
                &spots,
                "A device with a new ID and without an IO BAR breaks these guests.",
                "a non-transitional one",
                |model| model == MODERN,
            ),
            chooses_legacy(&spots),
        ],
        tables: matrix(experiment, &spots).into_iter().collect(),
        notes: notes(experiment),
        ..Findings::default()
    }
}

fn spots(experiment: &Experiment) -> Vec<Spot<'_>> {
    let mut spots: Vec<Spot<'_>> = Vec::new();
    for run in &experiment.runs {
        let [guest, machine, placement] = ["guest", "machine", "placement"].map(|a| run.label(a));
        let known = spots
            .iter_mut()
            .find(|spot| (spot.guest, spot.machine, spot.placement) == (guest, machine, placement));
        match known {
            Some(spot) => spot.runs.push(run),
            None => spots.push(Spot {
                guest,
                machine,
                placement,
                runs: vec![run],
            }),
        }
    }
    // A guest's places stand together, in the order in which guests come.
    let order: Vec<&str> = spots.iter().map(|spot| spot.guest).collect();
    let place = |guest: &str| order.iter().position(|known| *known == guest);
    spots.sort_by_key(|spot| place(spot.guest));
    spots
}

/// What was observed in a run.
fn observed(run: &Run) -> Option<&Value> {
    run.of_kind("real-guest").last()
}

fn interface(run: &Run) -> Option<&str> {
    observed(run)?["interface"].as_str()
}

/// What came of the boots of one cell.
enum Came {
    /// It worked in so many boots, and failed in none.
    Works(usize),
    /// It failed in `failed` of `boots` boots that tell.
    Fails { failed: usize, boots: usize },
    /// No boot tells, because of this.
    Untold(String),
}

impl Came {
    /// None if the cell was not booted.
    fn of(runs: &[&Run]) -> Option<Self> {
        let worked = runs.iter().filter(|run| run.passed()).count();
        let failed = runs.iter().filter(|run| run.verdict == FAILED).count();
        Some(match (worked, failed) {
            (0, 0) => Self::Untold(end(runs.last()?)),
            (worked, 0) => Self::Works(worked),
            (worked, failed) => Self::Fails {
                failed,
                boots: worked + failed,
            },
        })
    }
}

/// How a run ended that is no pass, in words.
fn end(run: &Run) -> String {
    let stopped = observed(run).and_then(|record| record["stopped"].as_str());
    match stopped.or(run.message.as_deref()) {
        Some(why) => format!("{}: {why}", run.verdict),
        None => run.verdict.clone(),
    }
}

impl<'a> Spot<'a> {
    fn of_model(&self, wanted: &str) -> Vec<&'a Run> {
        let runs = self.runs.iter().copied();
        runs.filter(|run| run.label("model") == wanted).collect()
    }

    /// The models that it was booted with and that `wanted` names.
    fn models(&self, wanted: impl Fn(&str) -> bool) -> BTreeSet<&'a str> {
        let models = self.runs.iter().map(|run| run.label("model"));
        models.filter(|model| wanted(model)).collect()
    }

    fn name(&self) -> String {
        format!("{} ({})", self.guest, self.version())
    }

    /// As a run says that came so far as to say it.
    fn version(&self) -> &'a str {
        let mut records = self.runs.iter().filter_map(|run| observed(run));
        let version = records.find_map(|record| record["version"].as_str());
        version.unwrap_or("of unknown version")
    }

    fn cell(&self, model: &str) -> String {
        let (name, machine, placement) = (self.name(), self.machine, self.placement);
        format!("{name} at {machine} {placement}, {model}")
    }
}

fn list(names: &BTreeSet<String>) -> String {
    match names.is_empty() {
        true => "none".into(),
        false => names.iter().cloned().collect::<Vec<_>>().join("; "),
    }
}

fn verdict(claim: &str, answer: Answer, because: String) -> Verdict {
    Verdict {
        claim: claim.into(),
        answer,
        ratio: None,
        because,
    }
}

/// Whether guests break that work with a legacy-only device, when the device becomes what
/// `wanted` says.
fn survives(
    spots: &[Spot<'_>],
    claim: &str,
    becomes: &str,
    wanted: impl Fn(&str) -> bool,
) -> Verdict {
    let (mut broken, mut fine, mut open) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut works_in = 0;
    for spot in spots {
        let Some(before) = Came::of(&spot.of_model(LEGACY)) else {
            continue;
        };
        for model in spot.models(&wanted) {
            let Some(after) = Came::of(&spot.of_model(model)) else {
                continue;
            };
            match (&before, after) {
                // What never worked, nothing broke; what works after is not broken.
                (Came::Fails { .. }, _) | (Came::Untold(_), Came::Works(_)) => {}
                (Came::Works(_), Came::Works(boots)) => {
                    works_in += boots;
                    fine.insert(spot.name());
                }
                (Came::Works(_), Came::Fails { failed, boots }) => {
                    let cell = spot.cell(model);
                    broken.insert(format!("{cell}, in {failed} of {boots} boots"));
                }
                (Came::Works(_), Came::Untold(why)) => {
                    open.insert(format!("{} ({why})", spot.cell(model)));
                }
                (Came::Untold(why), _) => {
                    open.insert(format!("{} ({why})", spot.cell(LEGACY)));
                }
            }
        }
    }
    let untold = format!(
        "These ended without a word of the guest's own, which tells nothing: {}.",
        list(&open)
    );
    let (answer, mut because) = match () {
        () if !broken.is_empty() => (
            Answer::Holds,
            format!(
                "These work with a legacy-only device and fail with {becomes}: {}.",
                list(&broken)
            ),
        ),
        () if !open.is_empty() => (
            Answer::CannotBeToldHere,
            format!("No guest was seen to break with {becomes}."),
        ),
        () if !fine.is_empty() => (
            Answer::DoesNotHold,
            format!(
                "Every guest that works with a legacy-only device works with {becomes} at the \
                 same place (boots: {works_in}): {}.",
                list(&fine)
            ),
        ),
        () => (
            Answer::CannotBeToldHere,
            format!("No guest was seen that works with a legacy-only device and met {becomes}."),
        ),
    };
    if !open.is_empty() {
        because = format!("{because} {untold}");
    }
    verdict(claim, answer, because)
}

/// Whether a guest takes the legacy interface of a device that has both, without being
/// told to.
fn chooses_legacy(spots: &[Spot<'_>]) -> Verdict {
    let (mut legacy, mut modern, mut unknown) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for spot in spots {
        for model in spot.models(|model| model.starts_with(TRANSITIONAL)) {
            let runs = spot.of_model(model);
            let told = |run: &Run| observed(run).is_some_and(|record| record["told"] == "legacy");
            if runs.iter().any(|run| told(run)) {
                continue;
            }
            let worked = || runs.iter().filter(|run| run.passed());
            let taken: BTreeSet<&str> = worked().filter_map(|run| interface(run)).collect();
            for interface in &taken {
                match *interface {
                    "legacy" => legacy.insert(spot.name()),
                    _ => modern.insert(spot.name()),
                };
            }
            let why = match Came::of(&runs) {
                _ if !taken.is_empty() => continue,
                // It takes none.
                Some(Came::Fails { .. }) | None => continue,
                Some(Came::Untold(why)) => why,
                Some(Came::Works(_)) => {
                    let mut whys = worked().filter_map(|run| observed(run)?["unknown"].as_str());
                    let why = whys.next().unwrap_or("nobody says by which interface");
                    format!("it works; {why}")
                }
            };
            unknown.insert(format!("{} ({why})", spot.cell(model)));
        }
    }
    let (answer, mut because) = match () {
        () if !legacy.is_empty() => (
            Answer::Holds,
            format!(
                "By legacy: {}. By modern: {}.",
                list(&legacy),
                list(&modern)
            ),
        ),
        () if !unknown.is_empty() => (
            Answer::CannotBeToldHere,
            format!("By modern: {}.", list(&modern)),
        ),
        () if !modern.is_empty() => (
            Answer::DoesNotHold,
            format!("All take the modern one: {}.", list(&modern)),
        ),
        () => (
            Answer::CannotBeToldHere,
            "No guest worked with a transitional device.".into(),
        ),
    };
    if !unknown.is_empty() {
        because = format!("{because} By which is unknown: {}.", list(&unknown));
    }
    let claim = "Some of these guests take the legacy interface of a device that has both.";
    verdict(claim, answer, because)
}

/// Guest by place, against model.
fn matrix(experiment: &Experiment, spots: &[Spot<'_>]) -> Option<Table> {
    let mut models: Vec<&str> = Vec::new();
    for run in &experiment.runs {
        let model = run.label("model");
        if !models.contains(&model) {
            models.push(model);
        }
    }
    let mut columns: Vec<Column> = ["guest", "version", "machine", "placement"]
        .map(Column::words)
        .into();
    columns.extend(models.iter().copied().map(Column::words));
    let rows: Vec<Vec<String>> = spots
        .iter()
        .map(|spot| {
            let mut row = [spot.guest, spot.version(), spot.machine, spot.placement]
                .map(str::to_owned)
                .to_vec();
            row.extend(models.iter().map(|model| square(&spot.of_model(model))));
            row
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        title: "Guests against models of the device".into(),
        note: "The interface that the guest's driver took where the guest works, or what it \
               said when it failed; an end without a word of its own tells nothing. `-` was not \
               booted."
            .into(),
        columns,
        rows,
    })
}

/// What came of the boots of one cell.
fn square(runs: &[&Run]) -> String {
    let mut found: Vec<(String, usize)> = Vec::new();
    for run in runs {
        let words = match interface(run) {
            _ if run.verdict == FAILED => {
                let said = observed(run).and_then(|record| record["failed"].as_str());
                let said = said.or(run.message.as_deref()).unwrap_or("(nothing)");
                format!("fails: {said}")
            }
            _ if !run.passed() => format!("not told: {}", end(run)),
            Some(interface) => interface.to_owned(),
            None => "works, interface unknown".to_owned(),
        };
        match found.iter_mut().find(|(known, _)| *known == words) {
            Some((_, times)) => *times += 1,
            None => found.push((words, 1)),
        }
    }
    match found.as_slice() {
        [] => "-".into(),
        [(words, _)] => words.clone(),
        several => {
            let parts = several
                .iter()
                .map(|(words, times)| format!("{times} {words}"));
            parts.collect::<Vec<_>>().join(", ")
        }
    }
}

fn notes(experiment: &Experiment) -> Vec<String> {
    let mut notes = vec![
        "A guest works if it printed what it can only have read through its virtio driver: a \
         boot sector, a file by TFTP, a file on a FAT disk, a disk's sector. It fails if it \
         says itself that it found nothing to read. The interface is \
         QEMU's word (QMP: VIRTIO_F_VERSION_1 accepted or not), beside the guest's own where \
         it says so; a run in which the two differ is no pass."
            .to_owned(),
        "The verdicts are about these guests in the versions named (those of Debian 12 are of \
         2019 to 2023, but for later fixes), which know virtio 1.0. The guests that existed in 2013 did not: the \
         experiment `guests` has their policy. QEMU has no device without an IO BAR under an old \
         ID, so the non-transitional one is the argument's fourth option, a new device, and not \
         its third."
            .to_owned(),
    ];
    let booted = |guest: &str| {
        experiment
            .runs
            .iter()
            .any(|run| run.label("guest") == guest)
    };
    // What the file leaves out says nothing about a guest.
    let file = File::parse(&experiment.plan).ok();
    let rules = file.iter().flat_map(|file| &file.excluded);
    let excluded: Vec<&str> = rules
        .filter_map(|rule| rule.get_ref()["reason"].as_str())
        .collect();
    let mut missing = BTreeSet::new();
    for skipped in &experiment.skipped {
        let guest = skipped.cell.get("guest").filter(|guest| !booted(guest));
        if let Some(guest) = guest.filter(|_| !excluded.contains(&skipped.reason.as_str())) {
            missing.insert(format!("{guest} was not booted: {}", skipped.reason));
        }
    }
    notes.extend(missing);
    notes
}

#[cfg(test)]
mod tests;
