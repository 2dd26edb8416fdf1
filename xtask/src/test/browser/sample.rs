//! A set that has everything a page can have: each kind of verdict, plot and table, names
//! that are long, characters that mean something in HTML, many rows, and nothing at all.
//! The figures are made up.

use serde_json::json;

use crate::experiment::findings::{
    Answer, Column, Distribution, Findings, Line, Plot, Table, Verdict,
};
use crate::experiment::set::{Experiment, Run, Set, Skipped};
use crate::experiment::stats;

/// Breaks a page that does not escape it.
const SPECIAL: &str = "<script>alert(\"&amp;\")</script> 'a' < b && c > d </svg></table>";
/// Has no place to break.
const LONG: &str = "virtio-rng-pci,ioeventfd=off,page-per-vq=on,modern-pio-notify=on,addr=0x1f.0x7";
const TCG: &str = "TCG: the translator's figures, not hardware's";
const KVM: &str = "KVM without hardware virtualization: not hardware's figures";

/// How many plots the page must show.
pub(super) const PLOTS: usize = 6;

/// The set.
pub(super) fn set() -> Set {
    let mut set = Set::new(json!({
        "qemu": "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)",
        "host_cpu": "AMD EPYC",
        "host_kernel": "Linux 6.1.0",
        "cpus": 2,
        "hardware_virtualization": false,
        "tool": SPECIAL,
        "image_sha256": "9aa8405b01279ae619e1b438731124679896985d9cf00865626c56e83ecd9de9",
        "built_by": null,
    }));
    set.experiments = vec![doorbell(), io_space(), guests(), special(), nothing()];
    set
}

fn experiment(name: &str, title: &str, notes: &[&str]) -> Experiment {
    let world = json!({"kind": "world", "cpu": "QEMU TCG CPU version 2.5+", "tsc_step": 26,
        "hypervisor": "TCGTCGTCGTCG", "tsc_source": "acpi-pm-timer", "tsc_hz": 2_596_224_592_u64});
    let runs = notes.iter().enumerate().map(|(n, note)| Run {
        cell: [("machine".to_owned(), format!("q35-{n}"))].into(),
        folder: format!("{name}/q35/{n}"),
        verdict: "pass".into(),
        note: Some((*note).to_owned()),
        records: vec![world.clone()],
        ..Run::default()
    });
    Experiment {
        name: name.into(),
        title: title.into(),
        claim: "A doorbell by a store to memory costs more than twice one by an `out`.".into(),
        false_if: "the ratio of the two, taken in one boot, is 2 or less".into(),
        axes: vec!["machine".into()],
        boots: 5,
        plan: format!("title = {title:?}\n# {LONG}\n\n[axes]\nmachine = [\"q35\"]\n"),
        runs: runs.collect(),
        ..Experiment::default()
    }
}

fn verdict(answer: Answer, claim: &str, ratios: &[f64]) -> Verdict {
    Verdict {
        claim: claim.into(),
        answer,
        ratio: stats::of_median(ratios),
        because: "Seen in all boots; under TCG an exit costs next to nothing.".into(),
    }
}

fn doorbell() -> Experiment {
    let mut experiment = experiment(
        "doorbell",
        "Is an MMIO doorbell more than twice as dear as a PIO one?",
        &[TCG, KVM],
    );
    let ways = ["legacy, IO port", "modern, memory", "modern, IO BAR"];
    let groups = ["ioeventfd on", "ioeventfd off", "pci-testdev"];
    let rows = |scale: f64| -> Vec<Distribution> {
        let all = groups.iter().flat_map(|group| ways.map(|way| (group, way)));
        all.enumerate()
            .map(|(n, (group, way))| {
                let p50 = scale * (1.0 + 0.6 * n as f64);
                Distribution {
                    name: way.into(),
                    group: (*group).into(),
                    min: 0.8 * p50,
                    p50,
                    p90: 1.3 * p50,
                    p99: 2.5 * p50,
                    boots: [0.9, 0.97, 1.0, 1.02, 1.2].map(|part| part * p50).into(),
                }
            })
            .collect()
    };
    let mut long = rows(14_000.0);
    for (n, row) in long.iter_mut().enumerate() {
        row.name = format!("{} {n} {LONG}", row.name);
    }
    let plot = |title: &str, note: &str, log, rows| Plot::Distributions {
        title: title.into(),
        note: note.into(),
        axis: "cycles a doorbell, net of the empty loop".into(),
        log,
        rows,
    };
    experiment.findings = Findings {
        verdicts: vec![
            verdict(
                Answer::CannotBeToldHere,
                "An MMIO doorbell costs more than twice a PIO one.",
                &[0.98, 1.02, 1.0, 0.97, 1.1],
            ),
            verdict(Answer::Holds, "An ioeventfd makes a doorbell cheaper.", &[]),
        ],
        plots: vec![
            plot(
                "What a doorbell costs, by path",
                &format!("Rows of a colour have one setting. {TCG}"),
                true,
                rows(150.0),
            ),
            plot("The same under KVM", &format!("{KVM}."), false, long),
        ],
        tables: vec![many_rows(120)],
        notes: vec!["The boots of `q35, off` disagree by more than a tenth.".into()],
    };
    experiment.runs.push(Run {
        cell: [("machine".to_owned(), "pc".to_owned())].into(),
        verdict: "panic".into(),
        message: Some(format!("the guest panicked: {SPECIAL}")),
        note: Some(TCG.into()),
        ..Run::default()
    });
    experiment.skipped = (0..9)
        .map(|n| Skipped {
            cell: [("machine".to_owned(), format!("microvm-{n}"))].into(),
            reason: format!("QEMU lacks virtio-rng-pci.modern-pio-notify {}", n / 5),
        })
        .collect();
    experiment
}

fn many_rows(count: usize) -> Table {
    let names = [
        "accelerator",
        "machine",
        "ioeventfd",
        "page-per-vq",
        "device",
        "ended",
    ];
    let mut columns: Vec<Column> = names.map(Column::words).into();
    columns.extend(["min", "p50", "p90", "p99"].map(Column::figures));
    let row = |n: usize| {
        let words = ["tcg", "q35", "on", "off", LONG, "5 pass"].map(str::to_owned);
        let figures = [n, 10 * n, 100 * n, 1000 * n].map(|n| n.to_string());
        words.into_iter().chain(figures).collect()
    };
    Table {
        title: "Figures".into(),
        note: "Cycles an operation; medians over the boots.".into(),
        columns,
        rows: (0..count).map(row).collect(),
    }
}

fn io_space() -> Experiment {
    let mut experiment = experiment(
        "io-space",
        "Does IO space run out after a dozen PCIe devices?",
        &[TCG],
    );
    let line = |name: &str, limit: u32| Line {
        name: name.into(),
        points: [1, 2, 4, 8, 12, 14, 15, 20, 30, 40]
            .map(|n: u32| (f64::from(n), f64::from(if n > limit { 0 } else { n })))
            .into(),
    };
    let lines = vec![
        line("root ports, SeaBIOS, transitional", 14),
        line("root ports, SeaBIOS, modern", 40),
        line("switch, SeaBIOS", 13),
        line("root ports, qboot", 15),
        line("pcie-pci-bridge", 40),
        line(LONG, 30),
        line("conventional PCI", 40),
    ];
    let plot = |title: &str, log: bool, lines| Plot::Lines {
        title: title.into(),
        note: "Each point is one boot.".into(),
        x: "devices plugged in".into(),
        y: "devices that have an IO BAR assigned".into(),
        log_x: log,
        log_y: log,
        lines,
    };
    let many = (0..20).map(|n| Line {
        name: format!("line {n}"),
        points: (1..70)
            .map(|x| (f64::from(x), f64::from(x * (n + 1))))
            .collect(),
    });
    experiment.findings = Findings {
        verdicts: vec![verdict(
            Answer::DoesNotHold,
            "IO space does not run out.",
            &[14.0, 14.0, 14.0],
        )],
        plots: vec![
            plot(
                "IO BARs against the number of devices",
                false,
                lines.clone(),
            ),
            plot("The same with logarithmic axes", true, lines),
            plot("Twenty lines of 69 points", false, many.collect()),
        ],
        ..Findings::default()
    };
    experiment
}

fn guests() -> Experiment {
    let mut experiment = experiment(
        "guests",
        "Does adding a memory BAR break existing guests?",
        &[TCG],
    );
    let places = ["pci", "pcie.0", "root port", "switch", "pcie-pci-bridge"];
    let mut columns = vec![Column::words("guest"), Column::words("device")];
    columns.extend(places.map(Column::words));
    let rows = ["legacy only", "modern only", "dual"]
        .iter()
        .flat_map(|guest| {
            ["legacy only", "transitional", "non-transitional"].map(|device| {
                let cells = places.map(|place| match (*guest, place) {
                    ("legacy only", "root port" | "switch") => "✗ no IO BAR".to_owned(),
                    ("modern only", _) if device == "legacy only" => "✗ no capability".into(),
                    _ => "✓ works".into(),
                });
                let names = [(*guest).to_owned(), device.to_owned()];
                names.into_iter().chain(cells).collect()
            })
        });
    experiment.findings.tables.push(Table {
        title: "Who works where".into(),
        note: TCG.into(),
        columns,
        rows: rows.collect(),
    });
    experiment
}

/// Everything that could break the page.
fn special() -> Experiment {
    let mut experiment = experiment(SPECIAL, SPECIAL, &[SPECIAL]);
    experiment.claim = SPECIAL.into();
    experiment.plan = SPECIAL.into();
    experiment.findings = Findings {
        verdicts: vec![Verdict {
            claim: SPECIAL.into(),
            answer: Answer::Holds,
            ratio: None,
            because: SPECIAL.into(),
        }],
        plots: vec![Plot::Distributions {
            title: SPECIAL.into(),
            note: SPECIAL.into(),
            axis: SPECIAL.into(),
            log: true,
            rows: vec![Distribution {
                name: SPECIAL.into(),
                group: SPECIAL.into(),
                min: -3.0,
                p50: 0.0,
                p90: 20.0,
                p99: 1e9,
                boots: vec![-1.0, 2.0],
            }],
        }],
        tables: vec![Table {
            title: SPECIAL.into(),
            note: SPECIAL.into(),
            columns: vec![Column::words(SPECIAL), Column::words("domain XML")],
            rows: vec![vec![
                LONG.repeat(3),
                "<interface type='network'>\n  <model type='virtio-transitional'/>\n</interface>"
                    .into(),
            ]],
        }],
        notes: vec![SPECIAL.into(), format!("two\nlines {}", LONG.repeat(4))],
    };
    experiment
}

/// An experiment of which nothing was run.
fn nothing() -> Experiment {
    let mut experiment = experiment("nothing", "What does nothing show?", &[]);
    experiment.skipped = vec![Skipped {
        cell: [("machine".to_owned(), "q35".to_owned())].into(),
        reason: "/dev/kvm cannot be opened: Permission denied".into(),
    }];
    experiment
}
