use serde_json::json;

use super::fixture::{LEGACY, NEW, OLD_ID, TRANSITIONAL, experiment, record, run, with_doorbells};
use super::*;

#[test]
fn boots_are_one_probe_unless_they_disagree() {
    let boot = |came| {
        run(
            "root",
            "qboot",
            LEGACY,
            vec![record(LEGACY, "dual", true, came)],
        )
    };
    let probes = read(&experiment(vec![boot(Ok("legacy")), boot(Ok("legacy"))]));
    let [probe] = &probes[..] else {
        panic!("{probes:?}")
    };
    assert_eq!(probe.outcome.words(), "legacy, pio");
    assert_eq!(probe.words(), "virtio-rng on qboot, q35, root");
    assert!(probe.slot && probe.io && probe.outcome.works());
    let probes = read(&experiment(vec![boot(Ok("legacy")), boot(Err("failed"))]));
    assert_eq!(probes.len(), 1);
    assert_eq!(probes[0].outcome.words(), "boots disagree");
    assert!(!probes[0].outcome.works());
}

#[test]
fn a_device_shows_which_option_it_is() {
    let shape = |record: Value| Shape::of(&record);
    let of = |device| shape(record(device, "dual", true, Err("x")));
    assert_eq!(of(LEGACY), Shape::IoOnly);
    assert_eq!(of(TRANSITIONAL), Shape::Both);
    assert_eq!(of(NEW), Shape::MemoryNewId);
    assert_eq!(of(OLD_ID), Shape::MemoryOldId);
    assert_eq!(
        shape(json!({"offers": [], "pci_id": "1af4:1044"})),
        Shape::Other
    );
    assert_eq!(shape(json!({"mmio": "0xfeb00e00"})), Shape::Other);
}

#[test]
fn an_axis_that_changes_nothing_is_no_column() {
    let boot = |firmware, came| {
        let records = vec![record(NEW, "modern", true, came)];
        run("root", firmware, NEW, records)
    };
    let both = experiment(vec![boot("qboot", Ok("mmio")), boot("seabios", Ok("mmio"))]);
    let probes = read(&both);
    let rows = Rows::new(&both, &probes);
    assert_eq!(rows.note, "The same for firmware qboot and seabios.");
    let names: Vec<_> = rows.columns().into_iter().map(|own| own.name).collect();
    assert_eq!(names, ["machine", "placement", "model"]);
    let rows: Vec<_> = rows.iter().collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].0, ["q35", "root", "non-transitional"]);
    assert_eq!(rows[0].1.len(), 2);

    let differ = experiment(vec![boot("qboot", Ok("mmio")), boot("seabios", Err("x"))]);
    let probes = read(&differ);
    let rows = Rows::new(&differ, &probes);
    assert_eq!((rows.note.as_str(), rows.iter().count()), ("", 2));
    let words = |probe: &Probe| probe.outcome.words();
    assert_eq!(
        together(probes.iter(), words),
        "virtio-rng modern, mmio; virtio-rng no: x"
    );
}

#[test]
fn words_are_explained_and_silence_is_told() {
    let records = vec![
        record(NEW, "legacy-2013", true, Err("device-id")),
        with_doorbells(record(NEW, "dual", false, Ok("mmio")), Some("io-off")),
    ];
    let silent_run = run("root", "qboot", NEW, Vec::new());
    let experiment = experiment(vec![run("root", "qboot", NEW, records), silent_run]);
    assert_eq!(legend(&experiment), "device-id: a sentence on device-id.");
    assert!(silent(&experiment).unwrap().starts_with("1 boot ended"));
    let probes = read(&experiment);
    assert_eq!(probes[0].outcome.words(), "no: device-id");
    assert_eq!(
        probes[1].doorbell_words(),
        "BAR2 io: io-off; BAR4 memory: usable"
    );
    assert_eq!(
        names(&probes, |probe| &probe.policy),
        ["legacy-2013", "dual"]
    );
    assert_eq!(together([].into_iter(), Probe::words), "-");
}
