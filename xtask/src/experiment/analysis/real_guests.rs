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

/// The verdicts of runs in which not the guest failed.
const QEMUS_FAULT: [&str; 2] = ["not-started", "qemu-died"];

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
                "Adding a memory BAR with the modern interface breaks existing guests.",
                "a transitional one",
                |model| model.starts_with(TRANSITIONAL),
            ),
            survives(
                &spots,
                "Taking the IO BAR with the legacy interface away breaks existing guests.",
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

impl Spot<'_> {
    fn of_model(&self, wanted: impl Fn(&str) -> bool) -> Vec<&Run> {
        let runs = self.runs.iter().copied();
        runs.filter(|run| wanted(run.label("model"))).collect()
    }

    /// Whether it works in every boot with a legacy-only device.
    fn is_baseline(&self) -> bool {
        let runs = self.of_model(|model| model == LEGACY);
        !runs.is_empty() && runs.iter().all(|run| run.passed())
    }

    fn name(&self) -> String {
        format!("{} ({})", self.guest, self.version())
    }

    /// As a run says that came so far as to say it.
    fn version(&self) -> &str {
        let mut records = self.runs.iter().filter_map(|run| observed(run));
        let version = records.find_map(|record| record["version"].as_str());
        version.unwrap_or("of unknown version")
    }

    fn place(&self) -> String {
        format!("{} at {} {}", self.name(), self.machine, self.placement)
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
    let (mut broken, mut fine) = (BTreeSet::new(), BTreeSet::new());
    let mut boots = 0;
    for spot in spots.iter().filter(|spot| spot.is_baseline()) {
        let mut runs = spot.of_model(&wanted);
        // Where QEMU failed, the guest had no say.
        runs.retain(|run| !QEMUS_FAULT.contains(&run.verdict.as_str()));
        boots += runs.len();
        let failed: Vec<_> = runs.iter().filter(|run| !run.passed()).collect();
        if !failed.is_empty() {
            let (n, all, place) = (failed.len(), runs.len(), spot.place());
            broken.insert(format!("{place}, in {n} of {all} boots"));
        } else if !runs.is_empty() {
            fine.insert(spot.name());
        }
    }
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join("; ");
    let (answer, because) = match (broken.is_empty(), fine.is_empty()) {
        (false, _) => (
            Answer::Holds,
            format!(
                "These work with a legacy-only device and fail with {becomes}: {}.",
                list(&broken)
            ),
        ),
        (true, false) => (
            Answer::DoesNotHold,
            format!(
                "Every guest that works with a legacy-only device works with {becomes} at the \
                 same place (boots: {boots}): {}.",
                list(&fine)
            ),
        ),
        (true, true) => (
            Answer::CannotBeToldHere,
            format!("No guest was seen that works with a legacy-only device and met {becomes}."),
        ),
    };
    Verdict {
        claim: claim.into(),
        answer,
        ratio: None,
        because,
    }
}

/// Whether a guest takes the legacy interface of a device that has both, without being
/// told to.
fn chooses_legacy(spots: &[Spot<'_>]) -> Verdict {
    let (mut legacy, mut modern) = (BTreeSet::new(), BTreeSet::new());
    for spot in spots {
        for run in spot.of_model(|model| model.starts_with(TRANSITIONAL)) {
            if observed(run).is_some_and(|record| record["told"] == "legacy") {
                continue;
            }
            match interface(run) {
                Some("legacy") => legacy.insert(spot.name()),
                Some(_) => modern.insert(spot.name()),
                None => false,
            };
        }
    }
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join("; ");
    let (answer, because) = match (legacy.is_empty(), modern.is_empty()) {
        (false, _) => (
            Answer::Holds,
            format!(
                "By legacy: {}. By modern: {}.",
                list(&legacy),
                or_none(list(&modern))
            ),
        ),
        (true, false) => (
            Answer::DoesNotHold,
            format!("All take the modern one: {}.", list(&modern)),
        ),
        (true, true) => (
            Answer::CannotBeToldHere,
            "No guest worked with a transitional device.".into(),
        ),
    };
    Verdict {
        claim: "There are guests that take the legacy interface of a device that has both.".into(),
        answer,
        ratio: None,
        because,
    }
}

fn or_none(list: String) -> String {
    if list.is_empty() { "none".into() } else { list }
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
            row.extend(
                models
                    .iter()
                    .map(|model| square(&spot.of_model(|m| m == *model))),
            );
            row
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        title: "Guests against models of the device".into(),
        note: "The interface that the guest's driver took where the guest works, or what \
               stopped it; `-` was not booted."
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
            _ if !run.passed() => {
                let stopped = observed(run).and_then(|record| record["stopped"].as_str());
                let stopped = stopped.or(run.message.as_deref()).unwrap_or(&run.verdict);
                format!("fails: {stopped}")
            }
            Some(interface) => interface.to_owned(),
            None => "works".to_owned(),
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
         boot sector, a file by TFTP, a file on a FAT disk, a disk's sector. The interface is \
         QEMU's word (QMP: VIRTIO_F_VERSION_1 accepted or not), beside the guest's own where \
         it says so; a run in which the two differ is no pass."
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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::experiment::set::Skipped;

    fn run(guest: &str, model: &str, interface: Option<&str>) -> Run {
        let works = interface.is_some();
        let told = (guest == "told").then_some("legacy");
        let cell = [
            ("guest", guest),
            ("model", model),
            ("machine", "q35"),
            ("placement", "root"),
        ];
        Run {
            cell: cell
                .map(|(axis, value)| (axis.to_owned(), value.to_owned()))
                .into(),
            verdict: if works { "pass" } else { "time-out" }.into(),
            records: vec![json!({
                "kind": "real-guest", "version": "1.2", "works": works, "interface": interface,
                "told": told, "stopped": (!works).then_some("no proof came"),
            })],
            ..Run::default()
        }
    }

    fn found(runs: Vec<Run>) -> Findings {
        analyse(&Experiment {
            runs,
            ..Experiment::default()
        })
    }

    fn answers(runs: Vec<Run>) -> [Answer; 3] {
        let verdicts = found(runs).verdicts;
        [0, 1, 2].map(|n| verdicts[n].answer)
    }

    #[test]
    fn a_guest_that_fails_with_the_second_bar_breaks() {
        let runs = vec![
            run("a", "legacy only", Some("legacy")),
            run("a", "transitional", Some("modern")),
            run("b", "legacy only", Some("legacy")),
            run("b", "transitional, PIO notify", None),
        ];
        let findings = found(runs);
        assert_eq!(findings.verdicts[0].answer, Answer::Holds);
        let because = &findings.verdicts[0].because;
        assert!(
            because.contains("b (1.2) at q35 root, in 1 of 1 boots"),
            "{because}"
        );
        assert!(!because.contains("a (1.2)"), "{because}");
    }

    #[test]
    fn guests_that_all_go_on_working_do_not_break() {
        let runs = vec![
            run("a", "legacy only", Some("legacy")),
            run("a", "transitional", Some("modern")),
            run("a", "non-transitional", None),
            // It never worked, so nothing broke it.
            run("b", "legacy only", None),
            run("b", "transitional", None),
        ];
        let findings = found(runs);
        let verdicts = &findings.verdicts;
        let answers = [0, 1, 2].map(|n| verdicts[n].answer);
        use Answer::{DoesNotHold, Holds};
        assert_eq!(answers, [DoesNotHold, Holds, DoesNotHold]);
        assert!(verdicts[0].because.ends_with("(boots: 1): a (1.2)."));
    }

    #[test]
    fn without_the_comparison_nothing_can_be_told() {
        use Answer::CannotBeToldHere;
        assert_eq!(answers(Vec::new()), [CannotBeToldHere; 3]);
        let alone = vec![run("a", "legacy only", Some("legacy"))];
        assert_eq!(answers(alone), [CannotBeToldHere; 3]);
        let unknown = vec![run("a", "transitional", None)];
        assert_eq!(answers(unknown), [CannotBeToldHere; 3]);
        let mut dead = run("a", "transitional", None);
        dead.verdict = "not-started".into();
        let alone = vec![run("a", "legacy only", Some("legacy")), dead];
        assert_eq!(answers(alone), [CannotBeToldHere; 3]);
        let unlike = vec![
            run("a", "legacy only", None),
            run("a", "transitional", Some("modern")),
        ];
        let answers = answers(unlike);
        assert_eq!(answers[..2], [CannotBeToldHere; 2]);
        assert_eq!(answers[2], Answer::DoesNotHold);
    }

    #[test]
    fn a_guest_chooses_legacy_only_if_nobody_told_it() {
        let told = vec![run("told", "transitional", Some("legacy"))];
        assert_eq!(answers(told)[2], Answer::CannotBeToldHere);
        let free = vec![
            run("a", "transitional", Some("legacy")),
            run("b", "transitional", Some("modern")),
        ];
        let findings = found(free);
        assert_eq!(findings.verdicts[2].answer, Answer::Holds);
        let because = &findings.verdicts[2].because;
        assert_eq!(because, "By legacy: a (1.2). By modern: b (1.2).");
    }

    #[test]
    fn the_matrix_shows_boots_that_differ_and_what_was_left_out() {
        let mut experiment = Experiment {
            runs: vec![
                run("a", "legacy only", Some("legacy")),
                run("b", "legacy only", Some("legacy")),
                run("a", "transitional", Some("modern")),
                run("a", "transitional", None),
            ],
            ..Experiment::default()
        };
        experiment.plan =
            "title = 't'\nclaim = 'c'\nfalse-if = 'f'\ntakes = 't'\nboots = 1\n[axes]\n\
                           [[exclude]]\nmachine = 'pc'\nreason = 'left out'\n"
                .into();
        for reason in ["--no-install", "left out"] {
            let cell = [("guest".to_owned(), "ovmf".to_owned())].into();
            let reason = reason.to_owned();
            experiment.skipped.push(Skipped { cell, reason });
        }
        let findings = analyse(&experiment);
        let table = &findings.tables[0];
        assert_eq!(table.columns.len(), 6);
        assert_eq!(
            table.rows[0][4..],
            ["legacy", "1 modern, 1 fails: no proof came"]
        );
        assert_eq!(table.rows[1][4..], ["legacy", "-"]);
        assert_eq!(findings.notes[1..], ["ovmf was not booted: --no-install"]);
    }
}
