use serde_json::json;

use super::*;

fn run(machine: &str, model: &str, address: &str, works: &[&str], io: bool) -> Run {
    let cell = [("machine", machine), ("model", model), ("address", address)];
    let mut bars = vec![json!({"bar": 4, "kind": "mem64", "size": 16384})];
    if io {
        bars.insert(0, json!({"bar": 0, "kind": "io", "size": 32}));
    }
    let mut records = vec![
        json!({"kind": "pci", "vendor": "8086", "bdf": "0000:00:00.0", "bars": []}),
        json!({"kind": "pci", "vendor": "1af4", "device": "1005", "revision": 0,
               "bdf": "0000:00:01.0", "bars": bars}),
    ];
    records.extend(works.iter().map(|transport| {
        json!({"kind": "device", "device": "virtio-rng", "bdf": "0000:00:01.0",
               "transport": transport})
    }));
    Run {
        cell: cell
            .map(|(axis, value)| (axis.to_owned(), value.to_owned()))
            .into(),
        verdict: "pass".into(),
        records,
        ..Run::default()
    }
}

fn found(runs: Vec<Run>) -> Findings {
    analyse(&Experiment {
        runs,
        ..Experiment::default()
    })
}

const BOTH: [&str; 2] = ["pci-legacy", "pci-modern"];

#[test]
fn one_machine_without_the_legacy_interface_is_enough() {
    let pc = run("pc", PLAIN, CHOSEN, &BOTH, true);
    assert_eq!(found(vec![pc.clone()]).verdicts[0].answer, Answer::Holds);
    let q35 = run("q35", PLAIN, CHOSEN, &["pci-modern"], false);
    let verdicts = found(vec![pc, q35]).verdicts;
    assert_eq!(verdicts[0].answer, Answer::DoesNotHold);
    let because = &verdicts[0].because;
    assert!(because.contains("virtio-rng on q35"), "{because}");
    assert!(
        because.contains("legacy does not, modern works"),
        "{because}"
    );
    assert!(!because.contains("on pc"), "{because}");
    // Where a person gave the address, it is not the tool's choice.
    let given = run("q35", PLAIN, "bus 0", &["pci-modern"], false);
    assert_eq!(
        found(vec![given]).verdicts[0].answer,
        Answer::CannotBeToldHere
    );
}

#[test]
fn each_model_is_held_to_what_it_is_for() {
    let answer = |run: Run, n: usize| found(vec![run]).verdicts[n].answer;
    let legacy = &BOTH[..1];
    assert_eq!(
        answer(run("q35", TRANSITIONAL, "bus 0", &BOTH, true), 1),
        Answer::Holds
    );
    let half = run("q35", TRANSITIONAL, "bus 0", legacy, true);
    assert_eq!(answer(half, 1), Answer::DoesNotHold);
    assert_eq!(
        answer(run("q35", MODERN, CHOSEN, &BOTH[1..], false), 2),
        Answer::Holds
    );
    let with_io = run("q35", MODERN, CHOSEN, &BOTH[1..], true);
    assert_eq!(answer(with_io, 2), Answer::DoesNotHold);
    let mut failed = run("q35", TRANSITIONAL, CHOSEN, &BOTH, true);
    failed.verdict = "fail".into();
    assert_eq!(answer(failed, 1), Answer::DoesNotHold);
}

fn with(word: Value) -> [Verdict; 5] {
    let mut run = run("q35", PLAIN, CHOSEN, &BOTH, true);
    run.records.push(word);
    found(vec![run]).verdicts.try_into().unwrap()
}

fn word(valid: Option<bool>, agrees: Option<bool>) -> Value {
    json!({"kind": "libvirt", "valid": valid, "agrees": agrees, "version": "9.0.0",
           "doubt": "<rng> is unknown", "booted": ["a"], "translated": ["b"],
           "why": "virsh: no driver"})
}

#[test]
fn libvirts_word_counts_where_it_has_one() {
    let translated = |agrees| with(word(Some(true), agrees))[4].clone();
    let verdict = translated(Some(true));
    assert_eq!(verdict.answer, Answer::Holds);
    assert!(verdict.because.contains("9.0.0"), "{}", verdict.because);
    let verdict = translated(Some(false));
    assert_eq!(verdict.answer, Answer::DoesNotHold);
    let because = verdict.because;
    assert!(because.contains("libvirt has [\"b\"]"), "{because}");
    let verdict = translated(None);
    assert_eq!(verdict.answer, Answer::CannotBeToldHere);
    assert!(verdict.because.contains("no driver"), "{}", verdict.because);
    for verdict in &found(Vec::new()).verdicts[3..] {
        assert_eq!(verdict.answer, Answer::CannotBeToldHere);
    }
}

#[test]
fn validity_is_a_question_of_its_own() {
    use Answer::{CannotBeToldHere, DoesNotHold, Holds};
    for (valid, answer, says) in [
        (
            Some(true),
            Holds,
            "All 1 are, by the schema of libvirt 9.0.0",
        ),
        (
            Some(false),
            DoesNotHold,
            "libvirt's choice: <rng> is unknown",
        ),
        (
            None,
            CannotBeToldHere,
            "1 of 1 domains were not validated: <rng> is unknown",
        ),
    ] {
        let verdicts = with(word(valid, Some(true)));
        let answers = [0, 3, 4].map(|n| verdicts[n].answer);
        assert_eq!(answers, [Holds, answer, Holds]);
        assert!(
            verdicts[3].because.contains(says),
            "{}",
            verdicts[3].because
        );
    }
}

#[test]
fn the_table_has_a_row_a_device_and_boots_that_agree_share_it() {
    let runs = vec![
        run("pc", PLAIN, CHOSEN, &BOTH, true),
        run("pc", PLAIN, CHOSEN, &BOTH, true),
        run("q35", MODERN, CHOSEN, &BOTH[1..], false),
    ];
    let findings = found(runs);
    let rows = &findings.tables[0].rows;
    assert_eq!(rows.len(), 2);
    let row = [
        "virtio-rng",
        "1af4:1005 rev 0",
        "BAR0, 32 B",
        "BAR4, 16384 B",
        "works",
        "works",
    ];
    assert_eq!(rows[0][4..], row);
    assert_eq!(rows[1][6], "none");
    assert_eq!(rows[1][8], "-");
}
