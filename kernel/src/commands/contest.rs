//! What `blk` and `netperf` have in common: whose drivers take turns, how often, and
//! how the result is shown.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::virtio::{Features, Wait as _};

use super::pick::{self, Wanted};
use super::{fail, number, skip, switch};
use crate::drive::{self, Mode};
use crate::load::upstream::{Configuration, Upstream};
use crate::load::{self, Arena, Load, Ours, Parts, Score};
use crate::machine::Machine;
use crate::println;
use crate::record::{LoadRecord, RatioRecord, Record};

/// A command's usage: its own arguments, and those that both commands take.
macro_rules! usage {
    ($own:literal) => {
        concat!(
            $own,
            " [driver=ours|upstream|both] [device=N] [way=legacy|modern|mmio] [depth=N] [count=N|seconds=N]",
            " [rounds=N] [interrupts=on|off] [indirect=on|off] [event_idx=on|off] [parts=on|off]"
        )
    };
}

pub(super) use usage;

/// Rounds, unless asked otherwise.
const ROUNDS: u32 = 10;

/// Requests of each driver in all, unless asked otherwise.
const COUNT: u32 = 200_000;

/// The defaults of a command with `depth` requests in flight.
pub(super) const fn defaults(depth: u32) -> [(&'static str, u32); 3] {
    [("depth", depth), ("count", COUNT), ("rounds", ROUNDS)]
}

/// What help says of the arguments that both commands take.
pub(super) const ARGUMENTS: [&str; 2] = [
    "driver=upstream: the one of the crate virtio-drivers at its best, as shipped (upstream-shipped), and at its best over our transport (upstream-on-ours)",
    "parts=on: also the cycles to submit a request, to kick, and to reap it",
];

/// Requests by which it is found out how many fit into a time.
const PROBE: u64 = 2_000;

/// Progress is shown this often, between rounds.
const PROGRESS_MS: u64 = 2_000;

/// How much is done.
#[derive(Clone, Copy, Debug)]
enum Amount {
    /// So many requests of each driver.
    Count(u32),
    /// What each driver does in about so many seconds.
    Seconds(u32),
}

/// Whose drivers compete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drivers {
    /// This project's.
    Ours,
    /// That of the crate `virtio-drivers`, in each [`Configuration`].
    Upstream,
    Both,
}

impl Drivers {
    fn parse(name: Option<&str>) -> Result<Self, String> {
        match name {
            Some("ours") => Ok(Self::Ours),
            Some("upstream") => Ok(Self::Upstream),
            Some("both") => Ok(Self::Both),
            _ => Err("it wants ours, upstream or both".to_string()),
        }
    }
}

/// How drivers compete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    device: usize,
    way: Option<Wanted>,
    pub(super) depth: usize,
    amount: Amount,
    rounds: u32,
    interrupts: bool,
    drivers: Drivers,
    indirect: Option<bool>,
    event_idx: Option<bool>,
    parts: bool,
}

impl Options {
    /// Those of a command with `depth` requests in flight.
    pub(super) fn new(depth: u32) -> Self {
        Self {
            device: 0,
            way: None,
            depth: depth as usize,
            amount: Amount::Count(COUNT),
            rounds: ROUNDS,
            interrupts: false,
            drivers: Drivers::Ours,
            indirect: None,
            event_idx: None,
            parts: false,
        }
    }

    /// Takes an argument, if it is one of these.
    pub(super) fn take(&mut self, key: &str, value: Option<&str>) -> Result<bool, String> {
        match key {
            "device" => self.device = number(value, 0..=1000)? as usize,
            "way" => self.way = Some(Wanted::parse(value)?),
            "depth" => self.depth = number(value, 1..=0x8000)? as usize,
            "count" => self.amount = Amount::Count(number(value, 1..=1_000_000_000)?),
            "seconds" => self.amount = Amount::Seconds(number(value, 1..=86_400)?),
            "rounds" => self.rounds = number(value, 1..=10_000)?,
            "interrupts" => self.interrupts = switch(value)?,
            "driver" => self.drivers = Drivers::parse(value)?,
            "indirect" => self.indirect = Some(switch(value)?),
            "parts" => self.parts = switch(value)?,
            "event_idx" => self.event_idx = Some(switch(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What arguments forbid together.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.interrupts && self.drivers != Drivers::Ours {
            return Err("interrupts=on: upstream's drivers are polled here".to_string());
        }
        Ok(())
    }

    /// The generic features of ours. Without interrupts EVENT_IDX does harm, unless it
    /// is asked for: QEMU's device then asks for a doorbell even while it polls.
    fn features(&self) -> Features {
        let mut features = drive::FEATURES;
        features.set(Features::INDIRECT_DESC, self.indirect.unwrap_or(true));
        let event_idx = self.event_idx.unwrap_or(self.interrupts);
        features.set(Features::EVENT_IDX, event_idx);
        features
    }
}

/// Finds the device of this type that is asked for.
fn find<'m>(
    machine: &'m Machine,
    options: &Options,
    device_type: u16,
) -> Result<Arena<'m>, String> {
    let unit = pick::find(machine, device_type, options.device)?;
    let way = pick::choose(&drive::ways(machine, &unit), options.way);
    let way = way.map_err(|error| format!("{} at {}: {error}", unit.name(), unit.at()))?;
    let mode = if options.interrupts {
        pick::mode(machine, &unit)
    } else {
        Mode::Polling
    };
    Ok(Arena {
        machine,
        unit,
        way,
        mode,
        features: options.features(),
        only_if_needed: options.indirect.is_none(),
    })
}

/// The loads of the drivers that are wanted: ours, and upstream's in each
/// configuration.
fn loads<'a, W: Copy + 'a>(
    arena: &'a Arena<'a>,
    drivers: Drivers,
    kind: &'static str,
    workload: W,
) -> Vec<Box<dyn Load + 'a>>
where
    Ours<'a, W>: Load,
    Upstream<'a, W>: Load,
{
    let mut loads: Vec<Box<dyn Load + 'a>> = Vec::new();
    if drivers != Drivers::Upstream {
        loads.push(Box::new(Ours { arena, workload }));
    }
    if drivers != Drivers::Ours {
        let (configurations, refused) = Configuration::all(arena);
        if let Some(reason) = refused {
            skip(kind, &arena.unit.name(), arena.unit.place.clone(), reason);
        }
        for configuration in configurations {
            loads.push(Box::new(Upstream {
                arena,
                configuration: *configuration,
                workload,
            }));
        }
    }
    loads
}

/// Lets drivers compete on the device of this type that is asked for, with `workload`,
/// which `names` name: the command, and in words. The result is how many things
/// failed.
pub(super) fn run<W: Copy>(
    machine: &Machine,
    options: &Options,
    device_type: u16,
    names: (&'static str, &str),
    workload: W,
) -> u32
where
    for<'a> Ours<'a, W>: Load,
    for<'a> Upstream<'a, W>: Load,
{
    let outcome = find(machine, options, device_type).and_then(|arena| {
        let loads = loads(&arena, options.drivers, names.0, workload);
        compete(&arena, options, names, loads)
    });
    outcome.unwrap_or_else(|error| {
        fail(names.0, error);
        1
    })
}

/// Lets the loads compete, and shows what came of it. `workload` says what they do, in
/// words and as fields of the records. The result is how many of them failed.
fn compete(
    arena: &Arena<'_>,
    options: &Options,
    workload: (&str, &str),
    mut loads: Vec<Box<dyn Load + '_>>,
) -> Result<u32, String> {
    let (unit, clock) = (&arena.unit, arena.machine.clock);
    let path = drive::open(arena.machine, unit, arena.way, arena.mode)?.path();
    let (kind, words) = workload;
    println!(
        "{} at {} over {}, {}, {}: {words}.",
        unit.name(),
        unit.at(),
        path.0,
        path.1,
        arena.mode.name()
    );
    let requests = match options.amount {
        Amount::Count(count) => u64::from(count),
        Amount::Seconds(seconds) => {
            let probe = loads[0].turn(PROBE)?;
            let hz = clock
                .frequency
                .ok_or("the TSC's frequency is not known")?
                .hz;
            let cycles = u128::from(hz) * u128::from(seconds);
            let fit = cycles * u128::from(probe.requests) / u128::from(probe.cycles.max(1));
            u64::try_from(fit).unwrap_or(u64::MAX)
        }
    };
    let a_turn = requests.div_ceil(options.rounds.into()).max(1);
    println!(
        "Drivers take turns: {} rounds of {a_turn} requests each.",
        options.rounds
    );
    let mut quiet = clock.wait_ms(PROGRESS_MS);
    let results = load::compete(&mut loads, options.rounds, a_turn, |round| {
        if !quiet.again() {
            println!("  {round} of {} rounds", options.rounds);
            quiet = clock.wait_ms(PROGRESS_MS);
        }
    });
    let mut failures = 0;
    if options.parts {
        failures += parts(kind, &mut loads);
    }
    let mut scores = Vec::new();
    for (load, result) in loads.iter().zip(results) {
        match result {
            Ok(score) => scores.push(score),
            Err(error) => {
                fail(&format!("{kind}, driver {}", load.driver()), error);
                failures += 1;
            }
        }
    }
    let hz = clock.frequency.map(|frequency| frequency.hz);
    for score in &scores {
        let Some(cycles) = score.cycles() else {
            continue;
        };
        let record = LoadRecord {
            workload: kind.to_string(),
            driver: score.driver(),
            device: unit.name(),
            place: unit.place.clone(),
            transport: path.0.to_string(),
            notify: path.1.to_string(),
            interrupts: arena.mode.name(),
            what: words.to_string(),
            depth: score.depth(),
            turns: score.turns(),
            requests: score.requests(),
            cycles,
            doorbells: score.doorbells(),
            interrupts_came: score.interrupts(),
            per_second: hz.map(|hz| hz as f64 / cycles.p50),
        };
        Record::Load(record).emit();
    }
    table(arena, &scores, hz);
    if let Some((first, others)) = scores.split_first() {
        for other in others {
            ratio(kind, first, other);
        }
    }
    Ok(failures)
}

/// Times and shows the parts of a request. The result is how many drivers failed.
fn parts(kind: &str, loads: &mut [Box<dyn Load + '_>]) -> u32 {
    let mut failures = 0;
    println!();
    println!("Cycles of a request's parts, the least of many; a kick is for all in flight:");
    println!(
        "{:<18}{:>6} {:>8} {:>8} {:>8}",
        "driver", "depth", "submit", "kick", "reap"
    );
    for load in loads {
        match load.parts() {
            Ok(Parts { submit, kick, reap }) => {
                let (driver, depth) = (load.driver(), load.depth());
                println!("{driver:<18}{depth:>6} {submit:>8} {kick:>8} {reap:>8}");
                let workload = kind.to_string();
                Record::Parts {
                    workload,
                    driver,
                    depth,
                    submit,
                    kick,
                    reap,
                }
                .emit();
            }
            Err(error) => {
                fail(&format!("{kind}, driver {}", load.driver()), error);
                failures += 1;
            }
        }
    }
    failures
}

/// Shows how two drivers compare.
fn ratio(kind: &str, ours: &Score, theirs: &Score) {
    let Some(spread) = ours.ratio(theirs) else {
        return;
    };
    println!(
        "{} / {}: {:.3}, the median of the rounds' ratios (half of the rounds from {:.3} to {:.3}, all from {:.3} to {:.3}){}",
        ours.driver(),
        theirs.driver(),
        spread.p50,
        spread.p25,
        spread.p75,
        spread.min,
        spread.max,
        match (spread.p25..=spread.p75).contains(&1.0) {
            true => ": they cannot be told apart",
            false => "",
        }
    );
    Record::Ratio(RatioRecord {
        workload: kind.to_string(),
        driver: ours.driver(),
        to: theirs.driver(),
        ratio: spread,
    })
    .emit();
}

fn table(arena: &Arena<'_>, scores: &[Score], hz: Option<u64>) {
    println!();
    println!(
        "Cycles a request, by turns. {}",
        arena.machine.world.describe()
    );
    println!(
        "{:<18}{:>6}{:>6} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>11} {:>10}",
        "driver",
        "depth",
        "turns",
        "requests",
        "min",
        "p25",
        "p50",
        "p75",
        "max",
        "doorbells",
        "interrupts",
        "a second"
    );
    for score in scores {
        let Some(cycles) = score.cycles() else {
            continue;
        };
        let per_second = hz.map_or("-".to_string(), |hz| {
            format!("{:.0}", hz as f64 / cycles.p50)
        });
        println!(
            "{:<18}{:>6}{:>6} {:>9} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>10.4} {:>11.4} {:>10}",
            score.driver(),
            score.depth(),
            score.turns(),
            score.requests(),
            cycles.min,
            cycles.p25,
            cycles.p50,
            cycles.p75,
            cycles.max,
            score.doorbells(),
            score.interrupts(),
            per_second
        );
    }
    println!();
}
