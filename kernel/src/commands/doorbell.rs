//! `doorbell`: what each way to ring costs, as a table.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Command, fail, number, skip, switch};
use doorbell::virtio::Wait;

use crate::bench::baseline::Baseline;
use crate::bench::harness::room_for;
use crate::bench::latency::{self, Latency};
use crate::bench::path::{self, Path};
use crate::bench::{Case, Timer, testdev};
use crate::drive::{self, Mode};
use crate::machine::Machine;
use crate::println;
use crate::record::{Record, SummaryRecord};
use crate::world::World;

/// Rounds in a run, unless asked otherwise.
const ROUNDS: u32 = 50;

/// Operations of each case in a round, unless asked otherwise.
const COUNT: u32 = 200;

/// What can be timed: as it may be called here, and as the table has it.
const DEVICES: [(&str, &str); 6] = [
    ("blk", "virtio-blk"),
    ("rng", "virtio-rng"),
    ("net", "virtio-net"),
    ("console", "virtio-console"),
    ("balloon", "virtio-balloon"),
    ("testdev", testdev::NAME),
];

/// What is timed unless asked otherwise: the paths are the same for all.
const USUAL: [&str; 3] = ["virtio-blk", "virtio-rng", testdev::NAME];

/// All of them.
const ALL: &str = "all";

/// Progress is shown this often, between rounds.
const PROGRESS_MS: u64 = 2_000;

/// Times all doorbells.
pub(super) const COMMAND: Command = Command {
    name: "doorbell",
    usage: "[rounds=N] [count=N] [device=NAME|all] [interrupts=on|off]",
    about: "times every way to ring every doorbell, and the interrupts",
    defaults: &[("rounds", ROUNDS), ("count", COUNT)],
    parse: |arguments| {
        let mut options = Options {
            rounds: ROUNDS,
            count: COUNT,
            device: None,
            interrupts: true,
        };
        arguments.each(|key, value| {
            match key {
                "rounds" => options.rounds = number(value, 1..=1_000_000)?,
                "count" => options.count = number(value, 1..=10_000)?,
                "device" => {
                    options.device = Some(device(value.unwrap_or_default())?);
                }
                "interrupts" => options.interrupts = switch(value)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Box::new(move |machine| run(machine, &options)))
    },
};

/// The name in the table, or [`ALL`], of what is called either way.
fn device(name: &str) -> Result<&'static str, String> {
    if name == ALL {
        return Ok(ALL);
    }
    let mut known = DEVICES.iter();
    match known.find(|(short, whole)| [*short, *whole].contains(&name)) {
        Some((_, whole)) => Ok(whole),
        None => {
            let names = DEVICES.map(|(short, _)| short).join(", ");
            Err(format!("it wants {ALL} or one of {names}"))
        }
    }
}

struct Options {
    rounds: u32,
    count: u32,
    /// The name in the table, or [`ALL`].
    device: Option<&'static str>,
    interrupts: bool,
}

impl Options {
    fn wants(&self, device: &str) -> bool {
        match self.device {
            None => USUAL.contains(&device),
            Some(ALL) => true,
            Some(wanted) => wanted == device,
        }
    }
}

fn run(machine: &Machine, options: &Options) -> u32 {
    let world = &machine.world;
    let mut timer = Timer::new(world.tsc_step);
    let mut failures = 0;
    let mut cases: Vec<Box<dyn Case + '_>> = Vec::new();
    cases.push(Box::new(Baseline::empty_loop(&mut timer)));
    cases.push(Box::new(Baseline::port_read(&mut timer)));
    let baselines = cases.len();
    if options.wants(testdev::NAME) {
        let (subtests, skipped) = testdev::subtests(machine, &mut timer);
        cases.extend(
            subtests
                .into_iter()
                .map(|subtest| Box::new(subtest) as Box<dyn Case>),
        );
        for (place, reason) in skipped {
            skip("testdev", testdev::NAME, place, reason);
        }
    }
    failures += paths(machine, options, &mut timer, &mut cases);

    if cases.len() == baselines {
        match &options.device {
            Some(device) => {
                fail(
                    "doorbell",
                    format!("there is no {device} that could be timed"),
                );
                failures += 1;
            }
            None => println!("There is no device that could be timed: this is the CPU alone."),
        }
    }
    println!(
        "Timing {} paths in turns: {} rounds of {} operations or a batch more.",
        cases.len(),
        options.rounds,
        options.count
    );
    let mut quiet = machine.clock.wait_ms(PROGRESS_MS);
    for round in 0..options.rounds {
        timer.round(options.count);
        cases.retain_mut(|case| {
            // Before each of them: a device that crawls makes a round long.
            if !quiet.again() {
                println!("  {round} of {} rounds", options.rounds);
                quiet = machine.clock.wait_ms(PROGRESS_MS);
            }
            match case.round(&mut timer, options.count) {
                Ok(()) => true,
                Err(error) => {
                    fail(&case.name(), error);
                    report(&**case, &timer, &mut Vec::new());
                    failures += 1;
                    false
                }
            }
        });
    }
    let mut summaries = Vec::new();
    for case in &cases {
        failures += report(&**case, &timer, &mut summaries);
    }
    table(world, &summaries);
    failures
}

/// Adds the paths to the virtio devices. The result is how many failed.
fn paths<'m>(
    machine: &'m Machine,
    options: &Options,
    timer: &mut Timer,
    cases: &mut Vec<Box<dyn Case + 'm>>,
) -> u32 {
    let mut failures = 0;
    let (units, _) = drive::units(machine);
    for unit in units.into_iter().filter(drive::Unit::has_driver) {
        if !options.wants(&unit.name()) {
            continue;
        }
        for (way, usable) in drive::ways(machine, &unit) {
            let name = super::devices::name(way);
            if let Err(reason) = usable {
                let reason = format!("{name}: {reason}");
                skip("doorbell", &unit.name(), unit.place.clone(), reason);
                continue;
            }
            let modes = match options.interrupts {
                true => drive::modes(machine, &unit),
                false => Vec::new(),
            };
            if let Err(why) = room_for(path::SERIES + modes.len() * latency::SERIES) {
                let what = format!("{} at {} over {name}", unit.name(), unit.at());
                fail(
                    &what,
                    format!("neither it nor what follows is timed: {why}"),
                );
                return failures + 1;
            }
            let mut add = |case: Result<Box<dyn Case + 'm>, String>, how: &str| match case {
                Ok(case) => cases.push(case),
                Err(error) => {
                    let what = format!("{} at {} over {name}{how}", unit.name(), unit.at());
                    fail(&what, error);
                    failures += 1;
                }
            };
            let path = Path::new(machine, unit.clone(), way, timer);
            add(path.map(|path| Box::new(path) as _), "");
            for (mode, usable) in modes {
                if mode == Mode::Polling {
                    continue;
                }
                if let Err(reason) = usable {
                    let reason = format!("{name}, {}: {reason}", mode.name());
                    skip("interrupt", &unit.name(), unit.place.clone(), reason);
                    continue;
                }
                let latency = Latency::new(machine, unit.clone(), way, mode, timer);
                let how = format!(", {}", mode.name());
                add(latency.map(|latency| Box::new(latency) as _), &how);
            }
        }
    }
    failures
}

/// Emits a case's records and collects them. The result is how many doorbells
/// did not arrive, as 0 or 1 a series.
fn report(case: &dyn Case, timer: &Timer, into: &mut Vec<SummaryRecord>) -> u32 {
    let mut failures = 0;
    for series in case.series() {
        let summary = series.summary(timer);
        if summary.n == 0 {
            continue;
        }
        if summary.delivered != summary.n {
            let lost = format!("only {} of {} arrived", summary.delivered, summary.n);
            fail(&format!("{}, {}", case.name(), series.case), lost);
            failures += 1;
        }
        Record::Summary(summary.clone()).emit();
        into.push(summary);
    }
    failures
}

/// Prints the summaries, ordered by what is timed.
fn table(world: &World, summaries: &[SummaryRecord]) {
    println!();
    println!(
        "Cycles an operation, net of the empty loop (whose own row is raw); percentiles are of\nbatches, within 0.4 % of the raw figure. {}",
        world.describe()
    );
    println!(
        "{:<17}{:<15}{:<13}{:<25}{:<8}{:<15}{:>7} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}",
        "case",
        "device",
        "at",
        "transport",
        "notify",
        "interrupts",
        "n",
        "batch",
        "min",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "mean"
    );
    for case in [
        "baseline",
        "testdev",
        "doorbell-idle",
        "doorbell-request",
        "round-trip",
        "to-handler",
        "to-wake-up",
    ] {
        for summary in summaries.iter().filter(|summary| summary.case == case) {
            let at = Some(summary.place.at()).filter(|at| !at.is_empty());
            // What has no transport has subtests.
            let transport = summary.transport.as_deref().map(Cow::Borrowed);
            let path = transport.or(summary.subtest.clone());
            println!(
                "{:<17}{:<15}{:<13}{:<25}{:<8}{:<15}{:>7} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}",
                summary.case,
                summary.device,
                at.unwrap_or("-"),
                path.as_deref().unwrap_or("-"),
                summary.notify.as_deref().unwrap_or("-"),
                summary.interrupts.unwrap_or("-"),
                summary.n,
                summary.batch,
                cycles(summary.min),
                cycles(summary.p50),
                cycles(summary.p90),
                cycles(summary.p99),
                cycles(summary.p999),
                cycles(summary.max),
                cycles(summary.mean),
            );
        }
    }
    println!();
}

/// A figure as people read it: three digits or more say nothing behind the
/// point.
fn cycles(value: f64) -> String {
    if (-100.0..100.0).contains(&value) {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_may_be_called_as_in_the_table() {
        for name in ["blk", "virtio-blk"] {
            assert_eq!(device(name), Ok("virtio-blk"));
        }
        for name in ["testdev", "pci-testdev"] {
            assert_eq!(device(name), Ok("pci-testdev"));
        }
        assert_eq!(device("all"), Ok(ALL));
        for name in ["", "virtio-all", "pci-blk", "scsi"] {
            let error = "it wants all or one of blk, rng, net, console, balloon, testdev";
            assert_eq!(device(name), Err(error.to_string()), "{name}");
        }
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0.0, -0.5, 99.96, 100.4, 12345.6].map(cycles),
            ["0.0", "-0.5", "100.0", "100", "12346"]
        );
    }
}
