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
        verdict: if works { "pass" } else { "fail" }.into(),
        records: vec![json!({
            "kind": "real-guest", "version": "1.2", "works": works, "interface": interface,
            "told": told, "stopped": (!works).then_some("no proof came"),
            "failed": (!works).then_some("No bootable device."),
        })],
        ..Run::default()
    }
}

/// An end without a word of the guest's own.
fn ended(guest: &str, model: &str, verdict: &str) -> Run {
    let mut run = run(guest, model, None);
    run.verdict = verdict.into();
    run.records[0]["failed"] = Value::Null;
    run
}

/// A guest that works, nobody knows how.
fn unseen(guest: &str, model: &str) -> Run {
    let mut run = run(guest, model, Some("?"));
    run.records[0]["interface"] = Value::Null;
    run.records[0]["unknown"] = "CommandNotFound: x-query-virtio".into();
    run
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
        because.contains("b (1.2) at q35 root, transitional, PIO notify, in 1 of 1 boots"),
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
    let unlike = vec![
        run("a", "legacy only", None),
        run("a", "transitional", Some("modern")),
    ];
    let answers = answers(unlike);
    assert_eq!(answers[..2], [CannotBeToldHere; 2]);
    assert_eq!(answers[2], Answer::DoesNotHold);
}

#[test]
fn an_end_without_the_guests_words_tells_nothing() {
    use Answer::{CannotBeToldHere, DoesNotHold, Holds};
    for end in [
        "time-out",
        "not-started",
        "qemu-died",
        "no-verdict",
        "contradiction",
    ] {
        let boots = || {
            vec![
                run("a", "legacy only", Some("legacy")),
                run("a", "transitional", Some("modern")),
                run("b", "legacy only", Some("legacy")),
                ended("b", "transitional", end),
            ]
        };
        let verdicts = found(boots()).verdicts;
        assert_eq!(verdicts[0].answer, CannotBeToldHere, "{end}");
        let because = &verdicts[0].because;
        let named = format!("b (1.2) at q35 root, transitional ({end}: no proof came)");
        assert!(because.contains(&named), "{because}");
        assert!(!because.contains("a (1.2)"), "{because}");
        assert_eq!(verdicts[2].answer, CannotBeToldHere, "{end}");
        assert!(
            verdicts[2].because.contains(&named),
            "{}",
            verdicts[2].because
        );
        // Another boot of the cell tells, either way.
        for (interface, answer) in [(Some("modern"), DoesNotHold), (None, Holds)] {
            let mut boots = boots();
            boots.push(run("b", "transitional", interface));
            assert_eq!(answers(boots)[0], answer, "{end}");
        }
    }
}

#[test]
fn an_end_without_words_before_the_change_leaves_open_who_broke() {
    use Answer::{CannotBeToldHere, DoesNotHold};
    let boots = |after| {
        vec![
            run("a", "legacy only", Some("legacy")),
            run("a", "transitional", Some("modern")),
            ended("b", "legacy only", "time-out"),
            run("b", "transitional", after),
        ]
    };
    // It works, so it is not broken.
    assert_eq!(answers(boots(Some("modern")))[0], DoesNotHold);
    let verdict = found(boots(None)).verdicts.remove(0);
    assert_eq!(verdict.answer, CannotBeToldHere);
    let because = verdict.because;
    assert!(
        because.contains("b (1.2) at q35 root, legacy only"),
        "{because}"
    );
}

#[test]
fn an_interface_that_nobody_names_is_not_left_out() {
    use Answer::{CannotBeToldHere, DoesNotHold, Holds};
    let boots = || {
        vec![
            run("a", "transitional", Some("modern")),
            unseen("b", "transitional"),
        ]
    };
    let verdict = found(boots()).verdicts.remove(2);
    assert_eq!(verdict.answer, CannotBeToldHere);
    let because = verdict.because;
    assert!(
        because.contains("b (1.2) at q35 root, transitional"),
        "{because}"
    );
    assert!(because.contains("x-query-virtio"), "{because}");
    let mut seen = boots();
    seen.push(run("b", "transitional", Some("modern")));
    assert_eq!(answers(seen)[2], DoesNotHold);
    let mut legacy = boots();
    legacy.push(run("c", "transitional", Some("legacy")));
    let verdict = found(legacy).verdicts.remove(2);
    assert_eq!(verdict.answer, Holds);
    assert!(
        verdict.because.contains("is unknown: b (1.2)"),
        "{}",
        verdict.because
    );
    // One that failed takes none.
    let mut failed = boots();
    failed[1] = run("b", "transitional", None);
    assert_eq!(answers(failed)[2], DoesNotHold);
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
            ended("b", "transitional", "time-out"),
            unseen("b", "non-transitional"),
        ],
        ..Experiment::default()
    };
    experiment.plan = "title = 't'\nclaim = 'c'\nfalse-if = 'f'\ntakes = 't'\nboots = 1\n[axes]\n\
                       [[exclude]]\nmachine = 'pc'\nreason = 'left out'\n"
        .into();
    for reason in ["--no-install", "left out"] {
        let cell = [("guest".to_owned(), "ovmf".to_owned())].into();
        let reason = reason.to_owned();
        experiment.skipped.push(Skipped { cell, reason });
    }
    let findings = analyse(&experiment);
    let table = &findings.tables[0];
    assert_eq!(table.columns.len(), 7);
    assert_eq!(
        table.rows[0][4..],
        ["legacy", "1 modern, 1 fails: No bootable device.", "-"]
    );
    let row = [
        "legacy",
        "not told: time-out: no proof came",
        "works, interface unknown",
    ];
    assert_eq!(table.rows[1][4..], row);
    assert_eq!(findings.notes[2..], ["ovmf was not booted: --no-install"]);
}
