//! Devices that share an interrupt line. Whenever it is raised each is asked, and so
//! counts what is its own.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use doorbell_kernel::drive::{self, Mode, Unit, Way};
use doorbell_kernel::machine::Machine;
use doorbell_kernel::platform::gsi::Gsi;
use doorbell_tests::{Outcome, Runner, Stop, ensure, skip};

use self::change::Change;
use self::heard::Heard;
use crate::session::path_name;
use crate::witness::Witness;

mod change;
mod heard;

/// Requests of a device, one after the other.
const REQUESTS: u64 = 20;

pub(crate) fn run(runner: &mut Runner<'_>, machine: &Machine, units: &[Unit], witness: &Witness) {
    let lines = lines(machine, units);
    if lines.is_empty() {
        runner.run("shared line", || skip!("no two devices share one"));
    }
    for (gsi, units) in lines {
        for pair in units.windows(2) {
            let pairs = Pair::all(machine, witness, pair[0], pair[1]);
            for pair in pairs {
                let name = format!("shared line/{}/{}", gsi.number, pair.name());
                runner.run(format_args!("{name}/each counts its own"), || {
                    pair.both(each_counts_its_own)
                });
                runner.run(format_args!("{name}/one goes, the other stays"), || {
                    pair.one_goes()
                });
            }
        }
        let name = format!("shared line/{}", gsi.number);
        let Some(mut change) = Change::find(machine, &units, witness) else {
            runner.run(format_args!("{name}/a change of configuration"), || {
                skip!("the host can change no device's on this line")
            });
            continue;
        };
        let mut others = units.into_iter();
        let Some(other) = others.find(|unit| unit.place != change.unit.place) else {
            continue;
        };
        for pair in Pair::all(machine, witness, change.unit, other) {
            let name = format!("{name}/{}/a change of configuration", pair.name());
            runner.run(name, || {
                pair.both(|first, second| configuration(&mut change, witness, first, second))
            });
        }
    }
}

/// The lines that devices share, with those devices.
fn lines<'u>(machine: &Machine, units: &'u [Unit]) -> Vec<(Gsi, Vec<&'u Unit>)> {
    let mut lines: Vec<(Gsi, Vec<&Unit>)> = Vec::new();
    if machine.interrupts.is_none() {
        return lines;
    }
    for unit in units.iter().filter(|unit| unit.has_driver()) {
        let Ok(gsi) = drive::line(machine, unit) else {
            continue;
        };
        match lines
            .iter_mut()
            .find(|(other, _)| other.number == gsi.number)
        {
            Some((_, units)) => units.push(unit),
            None => lines.push((gsi, [unit].into())),
        }
    }
    lines.retain(|(_, units)| units.len() > 1);
    lines
}

/// Two devices of a line, each with the way that it is driven.
struct Pair<'a> {
    machine: &'a Machine,
    witness: &'a Witness,
    first: (&'a Unit, Way),
    second: (&'a Unit, Way),
}

impl<'a> Pair<'a> {
    /// Each usable way of both devices at least once.
    fn all(
        machine: &'a Machine,
        witness: &'a Witness,
        first: &'a Unit,
        second: &'a Unit,
    ) -> Vec<Self> {
        let [ways, others] = [first, second].map(|unit| {
            let ways = drive::ways(machine, unit).into_iter();
            let usable = ways.filter(|(_, usable)| usable.is_ok());
            usable.map(|(way, _)| way).collect::<Vec<_>>()
        });
        let count = ways.len().max(others.len());
        let both = ways.into_iter().cycle().zip(others.into_iter().cycle());
        let pairs = both.take(count).map(|(way, other)| Self {
            machine,
            witness,
            first: (first, way),
            second: (second, other),
        });
        pairs.collect()
    }

    fn name(&self) -> String {
        let [first, second] = [self.first, self.second]
            .map(|(unit, way)| format!("{}-{}", unit.at(), path_name(way)));
        format!("{first}+{second}")
    }

    /// Brings a device up, and tells the host how often it was rung.
    fn with(&self, which: (&Unit, Way), test: impl FnOnce(Heard<'_, '_>) -> Outcome) -> Outcome {
        let (unit, way) = which;
        let opened = drive::open(self.machine, unit, way, Mode::Line);
        let mut opened = opened.map_err(Stop::failed)?;
        let outcome = drive::with_device(&mut opened, drive::FEATURES, |driven, listener| {
            let outcome = test(Heard::new(unit, driven, listener));
            let doorbells = drive::doorbells(driven.driver());
            self.witness.rang(unit, doorbells);
            Ok(outcome)
        });
        outcome.map_err(Stop::failed)?
    }

    /// Brings both up, and sees to it that the line was not masked.
    fn both(
        &self,
        test: impl FnOnce(&mut Heard<'_, '_>, &mut Heard<'_, '_>) -> Outcome,
    ) -> Outcome {
        let before = self.storms();
        self.with(self.first, |mut first| {
            self.with(self.second, |mut second| test(&mut first, &mut second))
        })?;
        self.never_masked(before)
    }

    /// The second device goes with a request in flight, and comes again.
    fn one_goes(&self) -> Outcome {
        let before = self.storms();
        self.with(self.first, |mut first| {
            for _ in 0..2 {
                first.settle()?;
                self.with(self.second, |mut second| {
                    second.settle()?;
                    together(&mut first, &mut second)?;
                    second.begin()?;
                    Ok(())
                })?;
                let before = first.counts();
                for _ in 0..REQUESTS {
                    let begun = first.begin()?;
                    first.end(begun)?;
                }
                first.counted_beside(before.and(REQUESTS), REQUESTS)?;
            }
            Ok(())
        })?;
        self.never_masked(before)
    }

    /// How often a line was masked since the kernel began.
    fn storms(&self) -> u64 {
        let interrupts = self.machine.interrupts.as_ref();
        interrupts.map_or(0, |interrupts| interrupts.counts().storms)
    }

    fn never_masked(&self, before: u64) -> Outcome {
        let storms = self.storms() - before;
        ensure!(storms == 0, "a line was masked {storms} times");
        Ok(())
    }
}

/// A request of each at the same time.
fn together(first: &mut Heard<'_, '_>, second: &mut Heard<'_, '_>) -> Outcome {
    let (one, other) = (first.begin()?, second.begin()?);
    first.end(one)?;
    second.end(other)
}

fn each_counts_its_own(first: &mut Heard<'_, '_>, second: &mut Heard<'_, '_>) -> Outcome {
    first.settle()?;
    second.settle()?;
    let [before, others] = [first.counts(), second.counts()];
    for _ in 0..REQUESTS {
        first.one()?;
    }
    let before = before.and(REQUESTS);
    first.counted(before, "the first works")?;
    second.counted(others, "the first works")?;
    for _ in 0..REQUESTS {
        second.one()?;
    }
    let others = others.and(REQUESTS);
    first.counted(before, "the second works")?;
    second.counted(others, "the second works")?;
    // Not always the same first.
    for _ in 0..REQUESTS {
        together(first, second)?;
        together(second, first)?;
    }
    first.counted_beside(before.and(2 * REQUESTS), 2 * REQUESTS)?;
    second.counted_beside(others.and(2 * REQUESTS), 2 * REQUESTS)
}

/// The first device's configuration changes: while nothing else is to be heard, and
/// together with a request of each.
fn configuration(
    change: &mut Change<'_>,
    witness: &Witness,
    first: &mut Heard<'_, '_>,
    second: &mut Heard<'_, '_>,
) -> Outcome {
    first.settle()?;
    second.settle()?;
    let [before, others] = [first.counts(), second.counts()];
    for _ in 0..REQUESTS {
        first.one()?;
    }
    let before = before.and(REQUESTS);
    first.counted(before, "no change")?;

    change.make(witness)?;
    first.changed(before)?;
    second.counted(others, "the other's change")?;

    let before = first.counts();
    let (one, other) = (first.begin()?, second.begin()?);
    change.make(witness)?;
    first.back(one)?;
    second.back(other)?;
    first.changed(before.and(1))?;
    second.counted_beside(others.and(1), 1)
}
