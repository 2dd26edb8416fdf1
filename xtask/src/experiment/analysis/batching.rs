//! `batching`: doorbells, interrupts and cycles a request, against requests in flight.

use serde_json::Value;

use super::tables;
use crate::experiment::findings::{Answer, Column, Findings, Line, Plot, Table, Verdict};
use crate::experiment::set::{Experiment, Run};
use crate::experiment::stats;

/// The depth that verdicts are about.
const DEEP: u64 = 32;
/// So many requests a doorbell, or an interrupt, must serve there.
const MANY: f64 = 10.0;
/// Axes whose values tell set-ups apart.
const AXES: [&str; 3] = ["ring", "event-idx", "iothread"];

/// A figure of a request.
struct Figure {
    name: &'static str,
    /// The plot's title, and its axis.
    title: &'static str,
    axis: &'static str,
    of: fn(&Value) -> Option<f64>,
}

const DOORBELLS: Figure = Figure {
    name: "doorbell",
    title: "Doorbells a request",
    axis: "doorbells a request",
    of: |load| load["doorbells"].as_f64(),
};
const INTERRUPTS: Figure = Figure {
    name: "interrupt",
    title: "Interrupts a request",
    axis: "interrupts a request",
    of: |load| load["interrupts_came"].as_f64(),
};
const CYCLES: Figure = Figure {
    name: "cycle",
    title: "Cycles a request",
    axis: "cycles a request",
    of: |load| load["cycles"]["p50"].as_f64(),
};

/// The boots of one set-up.
struct Setup<'a> {
    name: String,
    runs: Vec<&'a Run>,
}

impl Setup<'_> {
    fn label(&self, axis: &str) -> &str {
        self.runs[0].label(axis)
    }

    /// What the boots saw at a depth.
    fn at(&self, depth: u64, figure: &Figure) -> Vec<f64> {
        let loads = self.runs.iter().flat_map(|run| run.of_kind("load"));
        let loads = loads.filter(|load| load["depth"].as_u64() == Some(depth));
        loads.filter_map(figure.of).collect()
    }

    /// The depths, in order.
    fn depths(&self) -> Vec<u64> {
        let loads = self.runs.iter().flat_map(|run| run.of_kind("load"));
        let mut depths: Vec<u64> = loads.filter_map(|load| load["depth"].as_u64()).collect();
        depths.sort_unstable();
        depths.dedup();
        depths
    }
}

pub(super) fn analyse(experiment: &Experiment) -> Findings {
    let setups = tables::cells(experiment).into_iter().map(|runs| Setup {
        name: name(runs[0]),
        runs,
    });
    let setups: Vec<Setup<'_>> = setups.filter(|setup| !setup.depths().is_empty()).collect();
    let mut findings = Findings::default();
    let Some(first) = setups.first() else {
        return findings;
    };
    let note = first.runs[0].note.clone();
    let beside = note
        .as_ref()
        .map_or(String::new(), |note| format!("{note}."));
    for figure in [&DOORBELLS, &INTERRUPTS] {
        findings
            .verdicts
            .extend(serves_many(figure, &setups, &beside));
    }
    findings.verdicts.extend(saves(&setups, &beside));
    for figure in [&DOORBELLS, &INTERRUPTS, &CYCLES] {
        let lines = setups.iter().map(|setup| Line {
            name: setup.name.clone(),
            points: points(setup, figure),
        });
        findings.plots.push(Plot::Lines {
            title: format!("{}, by requests in flight", figure.title),
            note: beside.clone(),
            x: "requests in flight".into(),
            y: figure.axis.into(),
            log_x: true,
            log_y: true,
            lines: lines.collect(),
        });
    }
    findings.tables.push(table(&setups, &beside));
    findings.notes.push(
        "Random reads of 4 KiB from a disk that does nothing (null-co), in an iothread that goes \
         to sleep at once when its ring is empty, or that polls for a millisecond first; the \
         guest sleeps until it is interrupted."
            .into(),
    );
    findings
}

fn name(run: &Run) -> String {
    let event_idx = match run.label("event-idx") {
        "on" => "EVENT_IDX",
        _ => "no EVENT_IDX",
    };
    format!(
        "{}, {event_idx}, iothread {}",
        run.label("ring"),
        run.label("iothread")
    )
}

fn points(setup: &Setup<'_>, figure: &Figure) -> Vec<(f64, f64)> {
    let depths = setup.depths().into_iter();
    let points =
        depths.filter_map(|depth| Some((depth as f64, stats::median(&setup.at(depth, figure))?)));
    // A logarithmic axis has no place for none.
    points.filter(|(_, value)| *value > 0.0).collect()
}

/// Whether one serves many requests, in every set-up.
fn serves_many(figure: &Figure, setups: &[Setup<'_>], beside: &str) -> Option<Verdict> {
    let of = |setup: &Setup<'_>| stats::median(&setup.at(DEEP, figure));
    let seen: Vec<(&str, f64)> = setups
        .iter()
        .filter_map(|setup| Some((setup.name.as_str(), of(setup)?)))
        .collect();
    let worst = seen.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let best = seen.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let fewer: Vec<&str> = seen
        .iter()
        .filter(|(_, value)| value * MANY > 1.0)
        .map(|(name, _)| *name)
        .collect();
    let range = format!(
        "From {:.3} a request ({}) to {:.3} ({}).",
        best.1, best.0, worst.1, worst.0
    );
    let (answer, not) = match fewer.as_slice() {
        [] => (Answer::Holds, String::new()),
        names => (
            Answer::DoesNotHold,
            format!(" Fewer are served with: {}.", names.join("; ")),
        ),
    };
    Some(Verdict {
        claim: format!(
            "With {DEEP} requests in flight each {} serves {MANY} or more.",
            figure.name
        ),
        answer,
        ratio: None,
        because: format!(
            "{range}{not} Counts, not times; how many come together depends on speed. {beside}"
        )
        .trim_end()
        .to_owned(),
    })
}

/// Whether EVENT_IDX saves doorbells: each set-up with it against that without.
fn saves(setups: &[Setup<'_>], beside: &str) -> Option<Verdict> {
    let mut seen = Vec::new();
    for with in setups
        .iter()
        .filter(|setup| setup.label("event-idx") == "on")
    {
        let same = |other: &&Setup<'_>| {
            let others = AXES.iter().filter(|axis| **axis != "event-idx");
            other.label("event-idx") == "off"
                && others
                    .clone()
                    .all(|axis| other.label(axis) == with.label(axis))
        };
        let without = setups.iter().find(same)?;
        let (above, below) = (with.at(DEEP, &DOORBELLS), without.at(DEEP, &DOORBELLS));
        let ratio = stats::of_ratio(&above, &below)?;
        let (ring, iothread) = (with.label("ring"), with.label("iothread"));
        seen.push((format!("{ring}, iothread {iothread}"), ratio));
    }
    let words = seen
        .iter()
        .map(|(name, ratio)| format!("{name}: {}", ratio.words()));
    let because = words.collect::<Vec<_>>().join("; ");
    let answer = if seen.is_empty() {
        return None;
    } else if seen.iter().all(|(_, ratio)| ratio.high < 1.0) {
        Answer::Holds
    } else if seen.iter().any(|(_, ratio)| ratio.low >= 1.0) {
        Answer::DoesNotHold
    } else {
        Answer::CannotBeToldHere
    };
    Some(Verdict {
        claim: format!("With {DEEP} requests in flight EVENT_IDX saves doorbells."),
        answer,
        ratio: None,
        because: format!("Doorbells with it, by those without: {because}. {beside}")
            .trim_end()
            .to_owned(),
    })
}

fn table(setups: &[Setup<'_>], beside: &str) -> Table {
    let mut rows = Vec::new();
    for setup in setups {
        for depth in setup.depths() {
            let value = |figure: &Figure, digits: usize| {
                let median = stats::median(&setup.at(depth, figure));
                median.map_or("-".into(), |value| format!("{value:.digits$}"))
            };
            let mut row: Vec<String> = AXES
                .iter()
                .map(|axis| setup.label(axis).to_owned())
                .collect();
            row.extend([
                depth.to_string(),
                value(&DOORBELLS, 4),
                value(&INTERRUPTS, 4),
                value(&CYCLES, 0),
            ]);
            rows.push(row);
        }
    }
    let mut columns: Vec<Column> = AXES.map(Column::words).into();
    columns.extend(["in flight", "doorbells", "interrupts", "cycles"].map(Column::figures));
    Table {
        title: "A request".into(),
        note: format!("Medians over boots. {beside}")
            .trim_end()
            .to_owned(),
        columns,
        rows,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Five boots each, with and without EVENT_IDX, that see so many doorbells a request.
    fn runs(with: f64, without: f64) -> Experiment {
        let mut runs = Vec::new();
        for (event_idx, doorbells) in [("on", with), ("off", without)] {
            for boot in 0..5 {
                let load = |depth: u64, doorbells: f64| {
                    json!({"kind": "load", "depth": depth, "doorbells": doorbells,
                        "interrupts_came": 0.5, "cycles": {"p50": 1000.0}})
                };
                runs.push(Run {
                    cell: [
                        ("ring", "split"),
                        ("event-idx", event_idx),
                        ("iothread", "sleeps"),
                    ]
                    .map(|(axis, value)| (axis.to_owned(), value.to_owned()))
                    .into(),
                    boot,
                    note: Some("TCG: none of hardware".into()),
                    records: vec![load(1, 1.0), load(32, doorbells + 0.001 * f64::from(boot))],
                    ..Run::default()
                });
            }
        }
        Experiment {
            runs,
            ..Experiment::default()
        }
    }

    #[test]
    fn every_setup_must_serve_many() {
        let findings = analyse(&runs(0.05, 0.09));
        let [doorbells, interrupts, saves] = &findings.verdicts[..] else {
            panic!("{findings:?}")
        };
        assert_eq!(doorbells.answer, Answer::Holds);
        assert_eq!(interrupts.answer, Answer::DoesNotHold);
        assert!(
            interrupts
                .because
                .contains("split, no EVENT_IDX, iothread sleeps")
        );
        assert_eq!(saves.answer, Answer::Holds);
        assert!(doorbells.because.ends_with("TCG: none of hardware."));
        assert_eq!(
            analyse(&runs(0.05, 0.2)).verdicts[0].answer,
            Answer::DoesNotHold
        );
        assert_eq!(
            analyse(&runs(0.2, 0.05)).verdicts[2].answer,
            Answer::DoesNotHold
        );
        assert_eq!(
            analyse(&runs(0.05, 0.05)).verdicts[2].answer,
            Answer::CannotBeToldHere
        );
    }

    #[test]
    fn plots_have_a_line_a_setup_and_a_point_a_depth() {
        let findings = analyse(&runs(0.05, 0.0));
        let Plot::Lines { lines, note, .. } = &findings.plots[0] else {
            panic!("{findings:?}")
        };
        assert_eq!(note, "TCG: none of hardware.");
        assert_eq!(lines.len(), 2);
        let [(1.0, 1.0), (32.0, deep)] = lines[0].points[..] else {
            panic!("{lines:?}")
        };
        assert!((deep - 0.052).abs() < 1e-9, "{deep}");
        assert_eq!(findings.tables[0].rows.len(), 4);
        assert!(analyse(&Experiment::default()).verdicts.is_empty());
    }
}
