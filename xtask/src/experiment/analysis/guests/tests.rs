use super::super::probes::fixture::{
    Device, LEGACY, NEW, OLD_ID, TRANSITIONAL, experiment, record, run,
};
use super::*;
use crate::experiment::set::Run;

/// A device behind a root port, for the guests of 2013 and of today, with IO on.
fn boot(device: Device, old: Result<&str, &str>, modern: Result<&str, &str>) -> Run {
    let records = vec![
        record(device, "legacy-2013", true, old),
        record(device, "modern", true, modern),
    ];
    run("root-port", "qboot", device, records)
}

fn io_only() -> Run {
    boot(LEGACY, Ok("legacy"), Err("no-capabilities"))
}

/// The answer and the reason to the claim that has these words.
fn told(runs: Vec<Run>, claim: &str) -> (Answer, String) {
    let findings = analyse(&experiment(runs));
    let mut verdicts = findings.verdicts.into_iter();
    let verdict = verdicts.find(|verdict| verdict.claim.contains(claim));
    let verdict = verdict.unwrap();
    (verdict.answer, verdict.because)
}

const BESIDE: &str = "beside the IO BAR breaks existing";

#[test]
fn a_memory_bar_beside_breaks_nobody_if_all_go_on() {
    let runs = vec![io_only(), boot(TRANSITIONAL, Ok("legacy"), Ok("mmio"))];
    let (answer, because) = told(runs.clone(), BESIDE);
    assert_eq!(answer, Answer::DoesNotHold);
    assert!(
        because.contains("legacy-2013 works in 1 of 1 cases (legacy, pio)"),
        "{because}"
    );
    assert!(
        !because.contains("modern"),
        "it did not work before: {because}"
    );
    // And the IO BAR alone leaves the modern guest out.
    let (answer, because) = told(runs, "An IO BAR alone leaves out");
    assert_eq!(answer, Answer::Holds);
    assert!(
        because.contains("modern works in 0 of 1 cases (no: no-capabilities)"),
        "{because}"
    );
}

#[test]
fn one_guest_that_stops_in_one_place_is_enough() {
    let elsewhere = |device: Device, old| {
        let records = vec![record(device, "legacy-2013", true, old)];
        run("switch", "qboot", device, records)
    };
    let runs = vec![
        io_only(),
        boot(TRANSITIONAL, Ok("legacy"), Ok("mmio")),
        elsewhere(LEGACY, Ok("legacy")),
        elsewhere(TRANSITIONAL, Err("no-io-address")),
    ];
    let (answer, because) = told(runs, BESIDE);
    assert_eq!(answer, Answer::Holds);
    assert!(
        because.contains("legacy-2013 works in 1 of 2 cases"),
        "{because}"
    );
    assert!(because.contains("no: no-io-address"), "{because}");
}

#[test]
fn what_failed_before_breaks_nothing() {
    let runs = vec![
        boot(LEGACY, Err("no-io-address"), Err("no-capabilities")),
        boot(TRANSITIONAL, Err("no-io-address"), Ok("mmio")),
    ];
    let (answer, because) = told(runs, BESIDE);
    assert_eq!(answer, Answer::CannotBeToldHere);
    assert!(because.starts_with("No guest was seen"), "{because}");
    assert_eq!(told(Vec::new(), BESIDE).0, Answer::CannotBeToldHere);
}

#[test]
fn boots_that_disagree_tell_nothing() {
    let runs = vec![
        io_only(),
        boot(TRANSITIONAL, Ok("legacy"), Ok("mmio")),
        boot(TRANSITIONAL, Err("failed"), Ok("mmio")),
    ];
    let (answer, because) = told(runs, BESIDE);
    assert_eq!(answer, Answer::CannotBeToldHere);
    assert!(because.contains("In 1 cases boots disagree"), "{because}");
}

#[test]
fn a_new_id_breaks_those_who_do_not_know_it() {
    let new = boot(NEW, Err("device-id"), Ok("mmio"));
    let (answer, because) = told(vec![io_only(), new], "A new device ID");
    assert_eq!(answer, Answer::Holds);
    assert!(
        because.contains("legacy-2013 works in 0 of 1 cases (no: device-id)"),
        "{because}"
    );
    let known = boot(NEW, Ok("legacy"), Ok("mmio"));
    assert_eq!(
        told(vec![io_only(), known], "A new device ID").0,
        Answer::DoesNotHold
    );
}

#[test]
fn an_old_id_without_io_is_stood_in_for_unless_there_is_one() {
    let off = vec![record(TRANSITIONAL, "legacy-2013", false, Err("io-off"))];
    let off = run("root-port", "qboot", TRANSITIONAL, off);
    let (answer, because) = told(vec![io_only(), off.clone()], "Taking the IO BAR away");
    assert_eq!(answer, Answer::CannotBeToldHere);
    assert!(
        because.contains("no: io-off") && because.ends_with(NEAREST),
        "{because}"
    );
    let real = boot(OLD_ID, Ok("mmio"), Ok("mmio"));
    let (answer, because) = told(vec![io_only(), off, real], "Taking the IO BAR away");
    assert_eq!(answer, Answer::DoesNotHold);
    assert!(!because.contains(NEAREST), "{because}");
}

#[test]
fn the_tables_show_all_options_and_all_places() {
    let findings = analyse(&experiment(vec![
        io_only(),
        boot(TRANSITIONAL, Ok("legacy"), Ok("mmio")),
        boot(NEW, Err("device-id"), Ok("mmio")),
    ]));
    assert!(findings.verdicts[0].claim.contains(BESIDE));
    let [summary, matrix] = &findings.tables[..] else {
        panic!()
    };
    let ends: Vec<_> = summary
        .rows
        .iter()
        .map(|row| row[4..].join(" / "))
        .collect();
    assert_eq!(
        ends,
        [
            "nobody / modern",
            "nobody / nobody",
            "not seen / not seen",
            "legacy-2013 / nobody"
        ]
    );
    for table in &findings.tables {
        assert!(
            table
                .rows
                .iter()
                .all(|row| row.len() == table.columns.len())
        );
    }
    assert_eq!(
        matrix.rows[2],
        [
            "q35",
            "root-port",
            "non-transitional",
            "no: device-id",
            "modern, mmio"
        ]
    );
    assert!(matrix.note.contains("device-id: a sentence on device-id."));
}
