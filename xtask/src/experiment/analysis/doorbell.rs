//! `doorbell`: the ratio of an MMIO doorbell to a PIO one, and what each is made of.
//!
//! Both are of one device, timed in turns in one boot, so the ratio is taken boot by boot:
//! the PIO doorbell is that of the legacy interface, the IO BAR of the argument. What
//! decides is the fastest sample and the median alike; under TCG an idle doorbell has two
//! prices (kernel/FIGURES.md says why), and the fastest sample is the one that does not
//! wake a thread.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::experiment::findings::{Answer, Column, Distribution, Findings, Plot, Table, Verdict};
use crate::experiment::set::{Experiment, Run};
use crate::experiment::stats::{self, Interval};

/// An MMIO doorbell is more than so many times as dear, says the claim.
const TIMES: f64 = 2.0;

/// Boots whose ratios differ by more than this factor disagree, and it is said so.
const DISAGREE: f64 = 1.5;

/// A doorbell's way: the interface, and how it rings.
const WAYS: [(&str, &str); 5] = [
    ("pci-legacy", "pio"),
    ("pci-modern", "pio"),
    ("pci-modern", "mmio"),
    ("pci-modern", "pci-cfg"),
    ("mmio", "mmio"),
];

/// What the parts are seen by: doorbells by one kind of access.
struct Access {
    name: &'static str,
    notify: &'static str,
    /// `pci-testdev`'s subtests: without an eventfd, with one that takes any value, and with
    /// one that compares it.
    plain: &'static str,
    eventfd: &'static str,
    datamatch: &'static str,
}

const ACCESSES: [Access; 2] = [
    Access {
        name: "out to an IO port",
        notify: "pio",
        plain: "portio-no-eventfd",
        eventfd: "portio-wildcard-eventfd",
        datamatch: "portio-datamatch-eventfd",
    },
    Access {
        name: "store to memory",
        notify: "mmio",
        plain: "mmio-no-eventfd",
        eventfd: "mmio-wildcard-eventfd",
        datamatch: "mmio-datamatch-eventfd",
    },
];

pub(super) fn analyse(experiment: &Experiment) -> Findings {
    let mut findings = Findings::default();
    for (accelerator, note) in accelerators(experiment) {
        for eventfd in ["on", "off"] {
            let runs = experiment.runs.iter().filter(|run| {
                run.label("accelerator") == accelerator && run.label("ioeventfd") == eventfd
            });
            let runs: Vec<&Run> = runs.collect();
            findings
                .verdicts
                .extend(verdict(&accelerator, eventfd, &note, &runs));
        }
        findings.plots.extend(plot(experiment, &accelerator, &note));
        findings
            .tables
            .extend(parts(experiment, &accelerator, &note));
    }
    findings.tables.extend(figures(experiment));
    findings.notes.push(
        "The fastest sample of each boot is compared. `page-per-vq` only moves the address. \
         An idle doorbell is rung with nothing available: what the device does then is to look \
         at its empty ring."
            .into(),
    );
    findings
}

/// The accelerators that ran, with what must be said of their figures.
fn accelerators(experiment: &Experiment) -> Vec<(String, Option<String>)> {
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    for run in &experiment.runs {
        let name = run.label("accelerator");
        if !found.iter().any(|(known, _)| known == name) {
            found.push((name.to_owned(), run.note.clone()));
        }
    }
    found
}

/// The field of an idle doorbell's figures by this way.
fn idle(run: &Run, (transport, notify): (&str, &str), field: &str) -> Option<f64> {
    let wanted = |summary: &&Value| {
        summary["case"] == "doorbell-idle"
            && summary["transport"] == transport
            && summary["notify"] == notify
    };
    run.of_kind("summary").find(wanted)?[field].as_f64()
}

/// The field of a subtest's figures of `pci-testdev`.
fn testdev(run: &Run, subtest: &str, field: &str) -> Option<f64> {
    let mut found = run.of_kind("summary");
    found.find(|summary| summary["subtest"] == subtest)?[field].as_f64()
}

/// By what the boots' ratios say: the median over the cells of each boot.
fn by_boot(runs: &[&Run], ratio: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
    let mut boots: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for run in runs {
        if let Some(ratio) = ratio(run).filter(|ratio| ratio.is_finite()) {
            boots.entry(run.boot).or_default().push(ratio);
        }
    }
    boots
        .values()
        .filter_map(|ratios| stats::median(ratios))
        .collect()
}

/// The verdict on one accelerator, with eventfds or without.
fn verdict(
    accelerator: &str,
    eventfd: &str,
    note: &Option<String>,
    runs: &[&Run],
) -> Option<Verdict> {
    let ratios = |pio: (&'static str, &'static str), field: &'static str| {
        by_boot(runs, move |run| {
            Some(idle(run, ("pci-modern", "mmio"), field)? / idle(run, pio, field)?)
        })
    };
    let legacy = ratios(("pci-legacy", "pio"), "min");
    let ratio = stats::of_median(&legacy)?;
    let median = stats::of_median(&ratios(("pci-legacy", "pio"), "p50"))?;
    let control = by_boot(runs, |run| {
        let [pio, mmio] = &ACCESSES;
        let of = |access: &Access| {
            let subtest = if eventfd == "on" {
                access.eventfd
            } else {
                access.plain
            };
            testdev(run, subtest, "min")
        };
        Some(of(mmio)? / of(pio)?)
    });
    let cycles = |way| {
        let all: Vec<f64> = runs
            .iter()
            .filter_map(|run| idle(run, way, "min"))
            .collect();
        stats::median(&all).map_or("none".into(), |cycles| format!("{cycles:.0}"))
    };
    let words = |ratios: &[f64]| {
        let of = stats::median(ratios);
        of.map_or("none of these".into(), |ratio| format!("{ratio:.2}"))
    };
    let mut seen = format!(
        "Seen: {} cycles by MMIO, {} by the legacy interface's PIO, {} by a PIO doorbell of the \
         modern one. Ratio of the medians {}; to the modern PIO {}; of pci-testdev, which is no \
         virtio device, {}.",
        cycles(("pci-modern", "mmio")),
        cycles(("pci-legacy", "pio")),
        cycles(("pci-modern", "pio")),
        median.words(),
        words(&ratios(("pci-modern", "pio"), "min")),
        words(&control),
    );
    if stats::disagreement(&legacy).is_some_and(|times| times > DISAGREE) {
        let quantile = |at| {
            let mut sorted = legacy.clone();
            sorted.sort_by(f64::total_cmp);
            stats::quantile(&sorted, at).unwrap_or(f64::NAN)
        };
        let (low, high) = (quantile(0.0), quantile(1.0));
        seen.push_str(&format!(
            " Boots disagree: their ratios go from {low:.2} to {high:.2}."
        ));
    }
    let (answer, because) = match note {
        Some(note) => (
            Answer::CannotBeToldHere,
            format!("It is a claim about hardware, and these are figures of {note}. {seen}"),
        ),
        None if decide(&ratio) == decide(&median) => (decide(&ratio), seen),
        None => (
            Answer::CannotBeToldHere,
            format!("The fastest samples and the medians say different things. {seen}"),
        ),
    };
    let with = if eventfd == "on" { "with" } else { "without" };
    Some(Verdict {
        claim: format!(
            "Under {accelerator}, {with} ioeventfd, an MMIO doorbell costs more than {TIMES} PIO \
             doorbells."
        ),
        answer,
        ratio: Some(ratio),
        because,
    })
}

fn decide(ratio: &Interval) -> Answer {
    if ratio.low > TIMES {
        Answer::Holds
    } else if ratio.high <= TIMES {
        Answer::DoesNotHold
    } else {
        Answer::CannotBeToldHere
    }
}

/// What must be said beside a table or plot.
fn said(note: &Option<String>, what: &str) -> String {
    match note {
        Some(note) => format!("{what} {note}."),
        None => what.to_owned(),
    }
}

/// Each way's distribution: idle doorbells of the machine without frills, beside the
/// control's.
fn plot(experiment: &Experiment, accelerator: &str, note: &Option<String>) -> Option<Plot> {
    let mut rows = Vec::new();
    for eventfd in ["on", "off"] {
        for way in WAYS {
            let group = format!("{}, {}", way.0, way.1);
            let suffix = if eventfd == "on" {
                "eventfd"
            } else {
                "no eventfd"
            };
            let name = match way.0 {
                "mmio" => "virtio-mmio (microvm)".to_owned(),
                _ => format!("{group}, {suffix}"),
            };
            let figures = |field: &str| -> Vec<f64> {
                let runs = experiment.runs.iter().filter(|run| {
                    run.label("accelerator") == accelerator
                        && run.label("machine") != "pc"
                        && run.label("ioeventfd") == eventfd
                        && run.label("page-per-vq") == "off"
                });
                runs.filter_map(|run| idle(run, way, field)).collect()
            };
            rows.extend(distribution(name, group, figures));
        }
    }
    for access in &ACCESSES {
        for (subtest, what) in [
            (access.plain, "no eventfd"),
            (access.eventfd, "eventfd"),
            (access.datamatch, "eventfd, compares"),
        ] {
            let figures = |field: &str| -> Vec<f64> {
                let runs = experiment.runs.iter();
                let runs = runs.filter(|run| run.label("accelerator") == accelerator);
                runs.filter_map(|run| testdev(run, subtest, field))
                    .collect()
            };
            let name = format!("pci-testdev {}, {what}", access.notify);
            rows.extend(distribution(name, "pci-testdev (control)".into(), figures));
        }
    }
    (!rows.is_empty()).then(|| Plot::Distributions {
        title: format!("What a doorbell costs, by its way ({accelerator})"),
        note: said(note, "Nothing is available when it is rung."),
        axis: "cycles a doorbell".into(),
        log: true,
        rows,
    })
}

fn distribution(
    name: String,
    group: String,
    figures: impl Fn(&str) -> Vec<f64>,
) -> Option<Distribution> {
    let median = |field| stats::median(&figures(field));
    Some(Distribution {
        name,
        group,
        min: median("min")?,
        p50: median("p50")?,
        p90: median("p90")?,
        p99: median("p99")?,
        boots: figures("p50"),
    })
}

/// What a doorbell is made of: differences of what stands beside each other in a boot.
fn parts(experiment: &Experiment, accelerator: &str, note: &Option<String>) -> Option<Table> {
    let runs = |eventfd: &str| -> Vec<&Run> {
        let own = experiment.runs.iter().filter(|run| {
            run.label("accelerator") == accelerator && run.label("ioeventfd") == eventfd
        });
        own.collect()
    };
    let (with, without) = (runs("on"), runs("off"));
    // The translator exits nowhere: there is nothing to tell apart.
    let exits = accelerator != "tcg";
    let mut rows = Vec::new();
    for access in &ACCESSES {
        let plain = |run: &Run| testdev(run, access.plain, "min");
        let eventfd = |run: &Run| testdev(run, access.eventfd, "min");
        let ring = |run: &Run| idle(run, ("pci-modern", access.notify), "min");
        let figure = |values: Vec<f64>| {
            stats::median(&values).map_or("-".into(), |value| format!("{value:.0}"))
        };
        let difference = |values: Vec<f64>| match stats::of_median(&values) {
            None => "-".to_owned(),
            Some(Interval { low, high, .. }) if low <= 0.0 && high >= 0.0 => {
                format!("not told ({low:.0} to {high:.0})")
            }
            Some(Interval {
                estimate,
                low,
                high,
                ..
            }) => {
                format!("{estimate:.0} ({low:.0} to {high:.0})")
            }
        };
        let vmm = by_boot(&without, |run| Some(plain(run)? - eventfd(run)?));
        let device = by_boot(&without, |run| Some(ring(run)? - plain(run)?));
        rows.push(vec![
            access.name.to_owned(),
            figure(by_boot(&without, eventfd)),
            figure(by_boot(&without, plain)),
            if exits { difference(vmm) } else { "-".into() },
            figure(by_boot(&with, ring)),
            figure(by_boot(&without, ring)),
            difference(device),
        ]);
    }
    let some = rows.iter().any(|row| row[1] != "-" || row[4] != "-");
    some.then(|| Table {
        title: format!("What a doorbell is made of ({accelerator})"),
        note: said(
            note,
            "Cycles, fastest samples, medians over boots; parts are differences within a boot, \
             with their intervals. An eventfd ends the exit in the kernel; without one the VMM's \
             process takes it. Under TCG nothing exits, and an eventfd is a write to a file more. \
             What the device adds is the difference to pci-testdev, which counts and does nothing \
             else.",
        ),
        columns: vec![
            Column::words("access"),
            Column::figures("exit and eventfd"),
            Column::figures("exit and VMM"),
            Column::figures("VMM's part"),
            Column::figures("virtio, eventfd"),
            Column::figures("virtio, no eventfd"),
            Column::figures("device's part"),
        ],
        rows,
    })
}

/// Every way on every machine.
fn figures(experiment: &Experiment) -> Option<Table> {
    let mut columns: Vec<Column> = experiment.axes.iter().map(Column::words).collect();
    columns.extend(["interface", "notify"].map(Column::words));
    columns.extend(["min", "p50", "p90", "p99", "boots differ"].map(Column::figures));
    columns.push(Column::words("figures are"));
    let mut rows = Vec::new();
    for runs in super::tables::cells(experiment) {
        let mut add = |names: [&str; 2], value: &dyn Fn(&Run, &str) -> Option<f64>| {
            let all = |field: &str| -> Vec<f64> {
                runs.iter().filter_map(|run| value(run, field)).collect()
            };
            let median = |field| {
                let median = stats::median(&all(field));
                median.map_or("-".into(), |of| format!("{of:.0}"))
            };
            if all("min").is_empty() {
                return;
            }
            let axes = experiment
                .axes
                .iter()
                .map(|axis| runs[0].label(axis).to_owned());
            let mut row: Vec<String> = axes.collect();
            row.extend(names.map(str::to_owned));
            row.extend(["min", "p50", "p90", "p99"].map(median));
            row.push(stats::spread(&all("p50")));
            row.push(super::kind(&runs[0].note).to_owned());
            rows.push(row);
        };
        for way in WAYS {
            add([way.0, way.1], &|run, field| idle(run, way, field));
        }
        for access in &ACCESSES {
            for subtest in [access.plain, access.eventfd, access.datamatch] {
                let value = |run: &Run, field: &str| testdev(run, subtest, field);
                add(["pci-testdev", subtest], &value);
            }
        }
    }
    (!rows.is_empty()).then(|| Table {
        title: "Idle doorbells, and the control".into(),
        note: "Cycles, net of the empty loop; medians over boots. Boots differ by that factor in \
               their medians."
            .into(),
        columns,
        rows,
    })
}

#[cfg(test)]
mod tests;
