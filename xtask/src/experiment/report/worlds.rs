//! What must be said beside each figure that is not hardware's.

use crate::experiment::set::{Experiment, Set};

/// What an experiment's runs say of their worlds, each once.
pub(super) fn notes(experiment: &Experiment) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for note in experiment.runs.iter().filter_map(|run| run.note.as_ref()) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    let hardware = experiment.runs.iter().any(|run| run.note.is_none());
    if hardware {
        for note in &mut notes {
            *note = format!("in part {note}");
        }
    }
    notes
}

/// All of a set's.
pub(super) fn all(set: &Set) -> Vec<String> {
    let mut all: Vec<String> = set.experiments.iter().flat_map(notes).collect();
    all.sort();
    all.dedup();
    all
}

/// The marks of one table or plot, and the rest of its own note: where that names some of
/// the experiment's worlds itself, only those count; else all.
pub(super) fn of(own: &str, notes: &[String]) -> (Vec<String>, String) {
    let bare = |note: &String| note.trim_start_matches("in part ").to_owned();
    let named: Vec<String> = notes
        .iter()
        .map(bare)
        .filter(|note| own.contains(note))
        .collect();
    if named.is_empty() {
        return (notes.to_vec(), own.trim().to_owned());
    }
    let mut rest = own.to_owned();
    for note in &named {
        rest = rest.replace(note, "");
    }
    // What joined them is of no use any more.
    let rest = rest.trim_matches([' ', '.', ';', ',', '\n']);
    let stop = if rest.is_empty() { "" } else { "." };
    (named, format!("{rest}{stop}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::set::Run;

    fn run(note: Option<&str>) -> Run {
        Run {
            note: note.map(str::to_owned),
            ..Run::default()
        }
    }

    #[test]
    fn a_world_is_named_once_and_in_part_beside_hardware() {
        let mut experiment = Experiment {
            runs: vec![run(Some("TCG: slow")), run(Some("TCG: slow"))],
            ..Experiment::default()
        };
        assert_eq!(notes(&experiment), ["TCG: slow"]);
        experiment.runs.push(run(None));
        assert_eq!(notes(&experiment), ["in part TCG: slow"]);
        experiment.runs.remove(0);
        experiment.runs.remove(0);
        assert!(notes(&experiment).is_empty());
    }

    #[test]
    fn a_note_that_names_its_world_has_that_mark_and_no_other() {
        let notes = ["TCG: slow".to_owned(), "KVM: emulated".to_owned()];
        let (marks, rest) = of("Cycles. TCG: slow", &notes);
        assert_eq!(marks, ["TCG: slow"]);
        assert_eq!(rest, "Cycles.");
        let (marks, rest) = of("Cycles.", &notes);
        assert_eq!((marks.as_slice(), rest.as_str()), (&notes[..], "Cycles."));
        assert_eq!(of("TCG: slow.", &notes).1, "");
    }
}
