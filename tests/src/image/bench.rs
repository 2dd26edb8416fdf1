//! The benchmark's machinery: that each doorbell arrives, not what it costs.

use doorbell_kernel::bench::latency::{DEARER, Latency};
use doorbell_kernel::bench::path::Path;
use doorbell_kernel::bench::{Case, Timer, testdev};
use doorbell_kernel::drive::{self, Mode, Unit};
use doorbell_kernel::machine::Machine;
use doorbell_tests::{Outcome, Runner, Stop, ensure, skip};

use crate::session::path_name;
use crate::witness::Witness;

/// Operations in a round.
const COUNT: u32 = 20;
/// Rounds.
const ROUNDS: u32 = 3;

pub(crate) fn run(runner: &mut Runner<'_>, machine: &Machine, units: &[Unit], witness: &Witness) {
    let mut timer = Timer::new(1);
    for unit in units.iter().filter(|unit| unit.has_driver()) {
        for (way, usable) in drive::ways(machine, unit) {
            if usable.is_err() {
                continue;
            }
            let name = alloc::format!("bench/{}/{}", unit.at(), path_name(way));
            runner.run(&name, || {
                let mut path =
                    Path::new(machine, unit.clone(), way, &mut timer).map_err(Stop::failed)?;
                let outcome = rounds(&mut path, &mut timer, COUNT);
                witness.rang(unit, path.rang());
                outcome
            });
            for (mode, usable) in drive::modes(machine, unit) {
                if mode == Mode::Polling || usable.is_err() {
                    continue;
                }
                let name = alloc::format!("{name}/{}", mode.name());
                runner.run(name, || {
                    let latency = Latency::new(machine, unit.clone(), way, mode, &mut timer);
                    let mut latency = latency.map_err(Stop::failed)?;
                    let outcome = rounds(&mut latency, &mut timer, COUNT / DEARER);
                    witness.rang(unit, latency.rang());
                    outcome
                });
            }
        }
    }
    let (subtests, skipped) = testdev::subtests(machine, &mut timer);
    if subtests.is_empty() && skipped.is_empty() {
        runner.run("bench/testdev", || skip!("there is no pci-testdev"));
    }
    for (_, reason) in skipped {
        runner.run("bench/testdev", || skip!("{reason}"));
    }
    for mut subtest in subtests {
        let name = alloc::format!("bench/testdev/{}", subtest.name());
        runner.run(name, || rounds(&mut subtest, &mut timer, COUNT));
    }
}

/// Runs a case, of which each round times at least `least` operations.
fn rounds(case: &mut dyn Case, timer: &mut Timer, least: u32) -> Outcome {
    for _ in 0..ROUNDS {
        case.round(timer, COUNT).map_err(Stop::failed)?;
    }
    timer.round(COUNT);
    for series in case.series() {
        let summary = series.summary(timer);
        ensure!(
            summary.n >= u64::from(least * ROUNDS),
            "{}: n is {}",
            summary.case,
            summary.n
        );
        ensure!(
            summary.delivered == summary.n,
            "{}: {} of {} arrived",
            summary.case,
            summary.delivered,
            summary.n
        );
        let ordered = [
            summary.min,
            summary.p50,
            summary.p90,
            summary.p99,
            summary.p999,
            summary.max,
        ];
        ensure!(
            ordered.is_sorted(),
            "{}: the percentiles {ordered:?} are not in order",
            summary.case
        );
    }
    Ok(())
}
