use serde_json::{Value, json};

use super::super::probes::fixture::{
    Device, LEGACY, NEW, TRANSITIONAL, experiment, record, run, with_doorbells,
};
use super::*;
use crate::experiment::set::Run;

type Came = Result<&'static str, &'static str>;

/// A boot with a guest of 2013 and one of today, IO on and off.
fn boot(device: Device, old: [Came; 2], dual: [Came; 2]) -> Run {
    let mut records = Vec::new();
    for (n, io) in [(0, true), (1, false)] {
        records.push(record(device, "legacy-2013", io, old[n]));
        records.push(record(device, "dual", io, dual[n]));
    }
    run("root-port", "qboot", device, records)
}

fn told(runs: Vec<Run>) -> (Answer, String) {
    let verdict = analyse(&experiment(runs)).verdicts.remove(0);
    (verdict.answer, verdict.because)
}

const LOST: [Came; 2] = [Ok("legacy"), Err(IO_OFF)];

#[test]
fn a_model_works_if_some_guest_can_do_without_io() {
    let (answer, because) = told(vec![boot(TRANSITIONAL, LOST, [Ok("mmio"); 2])]);
    assert_eq!(answer, Answer::Holds);
    assert_eq!(
        because,
        "With IO decoding off, for legacy-2013 it works in 0 of 1 cases (no: io-off); for dual \
         it works in 1 of 1 cases (modern, mmio)."
    );
}

#[test]
fn a_model_does_not_work_if_no_guest_can() {
    let (answer, because) = told(vec![boot(LEGACY, LOST, LOST)]);
    assert_eq!(answer, Answer::DoesNotHold);
    assert!(
        because.contains("for dual it works in 0 of 1 cases (no: io-off)"),
        "{because}"
    );
    // Nor if it can in some slots only.
    let mut elsewhere = boot(NEW, [Err("device-id"); 2], [Ok("mmio"), Err("failed")]);
    elsewhere.cell.insert("placement".into(), "switch".into());
    let here = boot(NEW, [Err("device-id"); 2], [Ok("mmio"); 2]);
    let (answer, because) = told(vec![here, elsewhere]);
    assert_eq!(answer, Answer::DoesNotHold);
    assert!(
        because.contains("for dual it works in 1 of 2 cases"),
        "{because}"
    );
}

#[test]
fn what_did_not_work_before_or_not_in_a_slot_tells_nothing() {
    let (answer, because) = told(vec![boot(NEW, [Err("device-id"); 2], [Err("failed"); 2])]);
    assert_eq!(answer, Answer::CannotBeToldHere);
    assert!(because.contains("with IO decoding on either"), "{because}");
    let mut conventional = boot(LEGACY, LOST, LOST);
    for record in &mut conventional.records {
        record["below"] = json!("PCIe-to-PCI bridge");
    }
    let (answer, because) = told(vec![conventional]);
    assert_eq!(answer, Answer::CannotBeToldHere);
    assert!(because.starts_with("No such device was tried"), "{because}");
    let boots = [[Ok("mmio"); 2], [Ok("mmio"), Err("failed")]];
    let boots = boots.map(|dual| boot(NEW, [Err("device-id"); 2], dual));
    assert_eq!(
        told(boots.into()).0,
        Answer::CannotBeToldHere,
        "boots disagree"
    );
}

fn fell(off: Came) -> (Answer, String) {
    let on = with_doorbells(record(TRANSITIONAL, "dual", true, Ok("pio")), None);
    let off = with_doorbells(record(TRANSITIONAL, "dual", false, off), Some(IO_OFF));
    last(vec![on, off])
}

fn last(records: Vec<Value>) -> (Answer, String) {
    let run = run("root", "qboot", TRANSITIONAL, records);
    let verdict = analyse(&experiment(vec![run])).verdicts.pop().unwrap();
    (verdict.answer, verdict.because)
}

#[test]
fn a_doorbell_falls_back_or_does_not() {
    let (answer, because) = fell(Ok("mmio"));
    assert_eq!(answer, Answer::Holds);
    assert!(because.starts_with("In 1 of 1 cases"), "{because}");
    assert!(
        because.contains("BAR2 io: io-off; BAR4 memory: usable"),
        "{because}"
    );
    let (answer, because) = fell(Err("failed"));
    assert_eq!(answer, Answer::DoesNotHold);
    assert!(
        because.ends_with("not for dual with virtio-rng on qboot, q35, root: no: failed."),
        "{because}"
    );
    // A port that rings though IO is off is no fall-back.
    assert_eq!(fell(Ok("pio")).0, Answer::DoesNotHold);
    // One that never rang by a port cannot fall back from it.
    let off = with_doorbells(
        record(TRANSITIONAL, "dual", false, Ok("mmio")),
        Some(IO_OFF),
    );
    let (answer, because) = last(vec![off]);
    assert_eq!(answer, Answer::CannotBeToldHere);
    assert!(
        because.starts_with("No device that rings by a port"),
        "{because}"
    );
}

#[test]
fn the_table_has_both_worlds_beside_each_other() {
    let on = with_doorbells(record(TRANSITIONAL, "dual", true, Ok("pio")), None);
    let off = with_doorbells(
        record(TRANSITIONAL, "dual", false, Ok("mmio")),
        Some(IO_OFF),
    );
    let run = run("root-port", "qboot", TRANSITIONAL, vec![on, off]);
    let table = analyse(&experiment(vec![run])).tables.remove(0);
    assert_eq!(
        table.rows,
        [[
            "q35",
            "root-port",
            "transitional",
            "as endpoint",
            "modern, pio",
            "modern, mmio",
            "BAR2 io: io-off; BAR4 memory: usable"
        ]]
    );
    assert_eq!(table.columns.len(), table.rows[0].len());
}
