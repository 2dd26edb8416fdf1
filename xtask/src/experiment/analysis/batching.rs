//! `batching`: doorbells, interrupts and cycles a request, against requests in flight.

use serde_json::Value;

use super::tables;
use crate::experiment::findings::{Answer, Column, Findings, Line, Plot, Table, Verdict};
use crate::experiment::set::{Experiment, Run};
use crate::experiment::stats::{self, Interval};

/// The depth that verdicts are about.
const DEEP: u64 = 32;
/// So many requests a doorbell, or an interrupt, must serve there.
const MANY: f64 = 10.0;
/// The axis of the accelerators.
const ACCELERATOR: &str = "accelerator";
/// Axes whose values tell set-ups of one accelerator apart.
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
    let mut accelerators: Vec<&str> = setups
        .iter()
        .map(|setup| setup.label(ACCELERATOR))
        .collect();
    accelerators.dedup();
    let mut findings = Findings::default();
    for accelerator in accelerators {
        let own = setups
            .iter()
            .filter(|setup| setup.label(ACCELERATOR) == accelerator);
        conclude(accelerator, &own.collect::<Vec<_>>(), &mut findings);
    }
    if !setups.is_empty() {
        findings.notes.push(
            "Random reads of 4 KiB from a disk that does nothing (null-co), in an iothread that \
             goes to sleep at once when its ring is empty, or that polls for a millisecond first; \
             the guest sleeps until it is interrupted. How many requests come together depends on \
             how fast each side is."
                .into(),
        );
    }
    findings
}

/// What the set-ups of one accelerator show.
fn conclude(accelerator: &str, setups: &[&Setup<'_>], findings: &mut Findings) {
    let note = setups.first().and_then(|setup| setup.runs[0].note.clone());
    let beside = note
        .as_ref()
        .map_or(String::new(), |note| format!("{note}."));
    for figure in [&DOORBELLS, &INTERRUPTS] {
        let verdict = serves_many(accelerator, figure, setups, &note);
        findings.verdicts.extend(verdict);
    }
    findings.verdicts.extend(saves(accelerator, setups, &note));
    for figure in [&DOORBELLS, &INTERRUPTS, &CYCLES] {
        let lines = setups.iter().map(|setup| Line {
            name: setup.name.clone(),
            points: points(setup, figure),
        });
        findings.plots.push(Plot::Lines {
            title: format!("{}, by requests in flight ({accelerator})", figure.title),
            note: beside.clone(),
            x: "requests in flight".into(),
            y: figure.axis.into(),
            log_x: true,
            log_y: true,
            lines: lines.collect(),
        });
    }
    findings.tables.push(table(accelerator, setups, &beside));
}

/// A verdict on hardware: what the data say, or in another world that they do not tell.
fn told(answer: Answer, because: String, note: &Option<String>) -> (Answer, String) {
    match note {
        None => (answer, because),
        Some(note) => (
            Answer::CannotBeToldHere,
            format!(
                "It depends on how fast each side is, and these are figures of {note}. Seen: {because}"
            ),
        ),
    }
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

/// Whether one serves many requests, in every set-up: by the intervals of the boots.
fn serves_many(
    accelerator: &str,
    figure: &Figure,
    setups: &[&Setup<'_>],
    note: &Option<String>,
) -> Option<Verdict> {
    let seen = setups.iter().filter_map(|setup| {
        let interval = stats::of_median(&setup.at(DEEP, figure))?;
        Some((setup.name.as_str(), interval))
    });
    let seen: Vec<(&str, Interval)> = seen.collect();
    if seen.is_empty() {
        return None;
    }
    let most = 1.0 / MANY;
    let answer = if seen.iter().all(|(_, interval)| interval.high <= most) {
        Answer::Holds
    } else if seen.iter().any(|(_, interval)| interval.low > most) {
        Answer::DoesNotHold
    } else {
        Answer::CannotBeToldHere
    };
    let words = seen.iter().map(
        |(
            name,
            Interval {
                estimate,
                low,
                high,
                ..
            },
        )| { format!("{name}: {estimate:.3} ({low:.3} to {high:.3})") },
    );
    let because = format!("{}.", words.collect::<Vec<_>>().join("; "));
    let (answer, because) = told(answer, because, note);
    Some(Verdict {
        claim: format!(
            "Under {accelerator}, with {DEEP} requests in flight, each {} serves {MANY} or more.",
            figure.name
        ),
        answer,
        ratio: None,
        because,
    })
}

/// Whether EVENT_IDX saves doorbells: each set-up with it against that without.
fn saves(accelerator: &str, setups: &[&Setup<'_>], note: &Option<String>) -> Option<Verdict> {
    let mut seen = Vec::new();
    for with in setups
        .iter()
        .filter(|setup| setup.label("event-idx") == "on")
    {
        let same = |other: &&&Setup<'_>| {
            let mut others = AXES.iter().filter(|axis| **axis != "event-idx");
            other.label("event-idx") == "off"
                && others.all(|axis| other.label(axis) == with.label(axis))
        };
        let without = setups.iter().find(same)?;
        let (above, below) = (with.at(DEEP, &DOORBELLS), without.at(DEEP, &DOORBELLS));
        let ratio = stats::of_ratio(&above, &below)?;
        let (ring, iothread) = (with.label("ring"), with.label("iothread"));
        seen.push((format!("{ring}, iothread {iothread}"), ratio));
    }
    let words = seen.iter();
    let words = words.map(|(name, ratio)| format!("{name}: {}", ratio.words()));
    let because = format!(
        "doorbells with it, by those without: {}.",
        words.collect::<Vec<_>>().join("; ")
    );
    let answer = if seen.is_empty() {
        return None;
    } else if seen.iter().all(|(_, ratio)| ratio.high < 1.0) {
        Answer::Holds
    } else if seen.iter().any(|(_, ratio)| ratio.low >= 1.0) {
        Answer::DoesNotHold
    } else {
        Answer::CannotBeToldHere
    };
    let (answer, because) = told(answer, because, note);
    Some(Verdict {
        claim: format!(
            "Under {accelerator}, with {DEEP} requests in flight, EVENT_IDX saves doorbells."
        ),
        answer,
        ratio: None,
        because,
    })
}

fn table(accelerator: &str, setups: &[&Setup<'_>], beside: &str) -> Table {
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
                stats::spread(&setup.at(depth, &CYCLES)),
            ]);
            rows.push(row);
        }
    }
    let mut columns: Vec<Column> = AXES.map(Column::words).into();
    let figures = [
        "in flight",
        "doorbells",
        "interrupts",
        "cycles",
        "boots differ",
    ];
    columns.extend(figures.map(Column::figures));
    Table {
        title: format!("A request ({accelerator})"),
        note: format!("Medians over boots; the last column is of the cycles. {beside}")
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
    fn runs(with: f64, without: f64, note: Option<&str>) -> Experiment {
        let mut runs = Vec::new();
        for (event_idx, doorbells) in [("on", with), ("off", without)] {
            for boot in 0..5 {
                let load = |depth: u64, doorbells: f64| {
                    json!({"kind": "load", "depth": depth, "doorbells": doorbells,
                        "interrupts_came": 0.5, "cycles": {"p50": 1000.0}})
                };
                runs.push(Run {
                    cell: [
                        ("accelerator", "kvm"),
                        ("ring", "split"),
                        ("event-idx", event_idx),
                        ("iothread", "sleeps"),
                    ]
                    .map(|(axis, value)| (axis.to_owned(), value.to_owned()))
                    .into(),
                    boot,
                    note: note.map(str::to_owned),
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
    fn every_setup_must_serve_many_with_confidence() {
        let answers = |with, without| {
            let findings = analyse(&runs(with, without, None));
            findings
                .verdicts
                .iter()
                .map(|verdict| verdict.answer)
                .collect::<Vec<_>>()
        };
        use Answer::{CannotBeToldHere, DoesNotHold, Holds};
        assert_eq!(answers(0.05, 0.09), [Holds, DoesNotHold, Holds]);
        assert_eq!(answers(0.05, 0.2)[0], DoesNotHold);
        assert_eq!(answers(0.05, 0.098)[0], CannotBeToldHere);
        assert_eq!(answers(0.2, 0.05)[2], DoesNotHold);
        assert_eq!(answers(0.05, 0.05)[2], CannotBeToldHere);
        let findings = analyse(&runs(0.05, 0.2, None));
        let because = &findings.verdicts[0].because;
        assert!(
            because.contains("split, no EVENT_IDX, iothread sleeps: 0.202"),
            "{because}"
        );
    }

    #[test]
    fn another_world_than_hardware_tells_nothing_and_says_what_was_seen() {
        for verdict in analyse(&runs(0.05, 0.09, Some("TCG: none of hardware"))).verdicts {
            assert_eq!(verdict.answer, Answer::CannotBeToldHere);
            let says = verdict
                .because
                .contains("figures of TCG: none of hardware. Seen: ");
            assert!(says, "{}", verdict.because);
        }
    }

    #[test]
    fn plots_have_a_line_a_setup_and_a_point_a_depth() {
        let findings = analyse(&runs(0.05, 0.0, Some("TCG: none of hardware")));
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
