//! Synthetic runs, and what is concluded of them.

use serde_json::json;

use super::*;

/// A run in which `io` of the devices have IO space; none starts where it is `None`.
fn run(place: &str, model: &str, count: usize, io: Option<usize>) -> Run {
    let mut records = Vec::new();
    let cell = [
        ("firmware", "seabios"),
        ("place", place),
        ("model", model),
        ("count", &count.to_string()),
    ];
    match io {
        None => records.push(json!({"kind": "firmware", "said": "a; out of space"})),
        Some(io) => {
            records.push(json!({"kind": "boot"}));
            for n in 0..count {
                let address = (n < io).then(|| format!("{:#x}", 0x1000 * n));
                let bar = json!({"kind": "io", "address": address});
                records.push(json!({"kind": "pci", "vendor": "0x1af4", "bars": [bar]}));
                let device = |transport| json!({"kind": "device", "bdf": n.to_string(), "transport": transport});
                records.push(device("pci-modern"));
                records.extend((n < io).then(|| device("pci-legacy")));
            }
            records.push(json!({"kind": "end"}));
        }
    }
    let verdict = if io.is_some() { "pass" } else { GAVE_UP };
    Run {
        cell: cell
            .map(|(axis, value)| (axis.to_owned(), value.to_owned()))
            .into(),
        verdict: verdict.into(),
        records,
        ..Run::default()
    }
}

fn verdicts(runs: Vec<Run>) -> Vec<Verdict> {
    analyse(&Experiment {
        runs,
        ..Experiment::default()
    })
    .verdicts
}

#[test]
fn the_first_count_that_lacks_io_decides() {
    let ports = |firsts: &[(usize, Option<usize>)]| {
        let runs = firsts
            .iter()
            .map(|&(n, io)| run("root ports", "transitional", n, io));
        verdicts(runs.collect()).remove(0)
    };
    let holds = ports(&[(14, Some(14)), (15, None)]);
    assert_eq!(holds.answer, Answer::Holds);
    assert!(
        holds
            .because
            .contains("all of 14 have it, with 15 no guest starts at all (\"out of"),
        "{}",
        holds.because
    );
    let holds = ports(&[(16, Some(15)), (8, Some(8)), (40, Some(15))]);
    assert_eq!(holds.answer, Answer::Holds);
    assert!(
        holds.because.contains("of 16 only 15 have it"),
        "{}",
        holds.because
    );
    assert_eq!(
        ports(&[(16, Some(16)), (40, Some(40))]).answer,
        Answer::DoesNotHold
    );
    assert_eq!(
        ports(&[(16, Some(16)), (40, Some(30))]).answer,
        Answer::DoesNotHold
    );
    // Not all of 20 have it, and yet no more than a dozen or so.
    assert_eq!(ports(&[(8, Some(8)), (20, Some(16))]).answer, Answer::Holds);
}

#[test]
fn a_time_out_is_no_evidence() {
    let mut silent = run("root ports", "transitional", 15, None);
    silent.verdict = "time-out".into();
    let findings = analyse(&Experiment {
        runs: vec![run("root ports", "transitional", 40, Some(40)), silent],
        ..Experiment::default()
    });
    assert_eq!(findings.verdicts[0].answer, Answer::DoesNotHold);
    assert_eq!(findings.tables[0].rows.len(), 1);
    assert!(
        findings.notes[0].starts_with("1 boots ended without"),
        "{findings:?}"
    );
}

#[test]
fn conventional_pci_and_devices_without_io_have_their_verdicts() {
    let found = verdicts(vec![
        run("PCI bridges", "transitional", 100, Some(100)),
        run("PCI bridges", "transitional", 200, Some(150)),
        run("switch", "non-transitional", 40, Some(0)),
    ]);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].answer, Answer::Holds);
    assert!(
        found[0].because.contains("Of 200 devices 150"),
        "{}",
        found[0].because
    );
    assert_eq!(found[1].answer, Answer::Holds);
    let found = verdicts(vec![
        run("PCI bridges", "transitional", 100, Some(15)),
        run("switch", "non-transitional", 40, None),
    ]);
    assert_eq!(found[0].answer, Answer::DoesNotHold);
    assert_eq!(found[1].answer, Answer::DoesNotHold);
}

#[test]
fn the_table_has_a_row_a_run_with_the_reason() {
    let findings = analyse(&Experiment {
        runs: vec![
            run("switch", "transitional", 15, None),
            run("switch", "transitional", 3, Some(2)),
        ],
        ..Experiment::default()
    });
    let rows = &findings.tables[0].rows;
    assert_eq!(rows[0][8], "a; out of space");
    assert_eq!(rows[1][3..8], ["3", "3", "2", "2", "3"]);
    let Plot::Lines { lines, .. } = &findings.plots[0] else {
        panic!("{findings:?}")
    };
    assert_eq!(lines[0].points, [(3.0, 2.0), (15.0, 0.0)]);
}
