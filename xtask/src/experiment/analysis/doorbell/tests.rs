//! Synthetic runs, and what is concluded of them.

use serde_json::json;

use super::*;

/// Runs in which MMIO costs `times` as much as PIO, more or less.
fn runs(times: f64, note: Option<&str>) -> Experiment {
    let mut experiment = Experiment {
        axes: vec!["accelerator".into(), "ioeventfd".into()],
        ..Experiment::default()
    };
    for boot in 0..5 {
        for eventfd in ["on", "off"] {
            let pio = 1000.0 + 100.0 * f64::from(boot);
            let ring = |notify, min: f64| {
                let transport = if notify == "pio" {
                    "pci-legacy"
                } else {
                    "pci-modern"
                };
                json!({"kind": "summary", "case": "doorbell-idle", "transport": transport,
                    "notify": notify, "min": min, "p50": 3.0 * min, "p90": min, "p99": min})
            };
            let control = |subtest, min: f64| {
                json!({"kind": "summary", "case": "testdev", "subtest": subtest,
                    "min": min, "p50": min, "p90": min, "p99": min})
            };
            experiment.runs.push(Run {
                cell: [
                    ("accelerator", "kvm"),
                    ("ioeventfd", eventfd),
                    ("page-per-vq", "off"),
                ]
                .map(|(axis, value)| (axis.to_owned(), value.to_owned()))
                .into(),
                boot,
                note: note.map(str::to_owned),
                records: vec![
                    ring("pio", pio),
                    ring("mmio", pio * (times + 0.01 * f64::from(boot % 2))),
                    control("mmio-no-eventfd", 800.0),
                    control("mmio-wildcard-eventfd", 300.0),
                    control("portio-no-eventfd", 700.0),
                    control("portio-wildcard-eventfd", 250.0),
                ],
                ..Run::default()
            });
        }
    }
    experiment
}

#[test]
fn hardware_decides_and_other_worlds_say_that_they_are_none() {
    for (times, note, answer) in [
        (2.5, None, Answer::Holds),
        (1.5, None, Answer::DoesNotHold),
        (1.995, None, Answer::CannotBeToldHere),
        (2.5, Some("TCG"), Answer::CannotBeToldHere),
    ] {
        let findings = analyse(&runs(times, note));
        assert_eq!(findings.verdicts.len(), 2);
        for verdict in &findings.verdicts {
            assert_eq!(verdict.answer, answer, "{times}: {verdict:?}");
            let ratio = verdict.ratio.unwrap();
            assert!((ratio.estimate - times).abs() < 0.02, "{ratio:?}");
            assert_eq!(note.is_some(), verdict.because.contains("TCG"));
        }
        assert!(
            findings.verdicts[0]
                .because
                .contains("no virtio device, 1.20.")
        );
        assert!(
            findings.verdicts[1]
                .because
                .contains("no virtio device, 1.14.")
        );
    }
}

#[test]
fn the_parts_are_differences_and_every_figure_says_its_world() {
    let findings = analyse(&runs(2.0, Some("TCG: no hardware")));
    let row = &findings.tables[0].rows[1];
    assert_eq!(
        row[..4],
        ["store to memory", "300", "800", "500 (500 to 500)"]
    );
    assert_eq!(row[5], "2400");
    assert!(row[6].starts_with("1600 (1200 to "), "{row:?}");
    assert!(findings.tables[0].note.contains("TCG: no hardware"));
    let Plot::Distributions { rows, note, .. } = &findings.plots[0] else {
        panic!("{findings:?}")
    };
    assert!(note.contains("TCG: no hardware"));
    assert_eq!(rows.len(), 8);
    assert_eq!(rows[0].boots.len(), 5);
}

#[test]
fn boots_that_disagree_say_so() {
    let mut experiment = runs(2.5, None);
    let says = |experiment: &Experiment| {
        analyse(experiment).verdicts[0]
            .because
            .contains("Boots disagree: ")
    };
    assert!(!says(&experiment));
    for run in experiment.runs.iter_mut().filter(|run| run.boot == 2) {
        for record in run
            .records
            .iter_mut()
            .filter(|record| record["notify"] == "mmio")
        {
            record["min"] = json!(9000.0);
        }
    }
    assert!(says(&experiment));
}

#[test]
fn medians_must_agree_with_the_fastest_samples() {
    let mut experiment = runs(2.5, None);
    for run in &mut experiment.runs {
        for record in run
            .records
            .iter_mut()
            .filter(|record| record["notify"] == "mmio")
        {
            record["p50"] = record["min"].clone();
        }
    }
    let verdict = &analyse(&experiment).verdicts[0];
    assert_eq!(verdict.answer, Answer::CannotBeToldHere);
    assert!(
        verdict
            .because
            .starts_with("The fastest samples and the medians")
    );
}

#[test]
fn without_runs_nothing_is_said() {
    let findings = analyse(&Experiment::default());
    assert!(findings.verdicts.is_empty() && findings.plots.is_empty());
}
