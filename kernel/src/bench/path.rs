//! A virtio device over one interface, rung in one way: what an idle ring's
//! doorbell costs, a doorbell with a request behind it, and the round trip.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::transport::{Notifier, Notify};
use doorbell::virtio::Wait;

use super::harness::{PROBE_OPERATIONS, time};
use super::{Case, Series, Timer};
use crate::arch::tsc;
use crate::clock::{Clock, Deadline};
use crate::drive::{self, Driven, Mode, Unit, Way};
use crate::machine::Machine;

/// Series of a path.
pub const SERIES: usize = 3;

/// A path to a device, and its series.
pub struct Path<'m> {
    machine: &'m Machine,
    unit: Unit,
    way: Way,
    label: String,
    idle: Series,
    request: Series,
    round_trip: Series,
    /// Doorbells rung beside those that the series count: to find the batch, and
    /// by the driver.
    others: u64,
}

impl<'m> Path<'m> {
    /// The path, tried once: the device comes up, and answers a request.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub fn new(
        machine: &'m Machine,
        unit: Unit,
        way: Way,
        timer: &mut Timer,
    ) -> Result<Self, String> {
        let mut opened = drive::open(machine, &unit, way, Mode::Polling)?;
        let (interface, path) = opened.path();
        let (batch, others) = drive::with_device(&mut opened, drive::FEATURES, |driven, _| {
            let batch = each(driven.queue().notifier(), |notifier| notifier.batch(timer));
            confirm(driven, &machine.clock)?;
            let others = u64::from(PROBE_OPERATIONS) + drive::doorbells(driven.driver());
            Ok((batch, others))
        })?;
        timer.expect(1);
        let series = |case| {
            let mut series = Series::new(case, unit.name(), unit.place.clone());
            series.transport = Some(interface.to_string());
            series.notify = Some(path.to_string());
            series
        };
        let mut idle = series("doorbell-idle");
        idle.batch = batch;
        let (request, round_trip) = (series("doorbell-request"), series("round-trip"));
        let label = format!("{} at {} over {interface}, {path}", unit.name(), unit.at());
        Ok(Self {
            machine,
            unit,
            way,
            label,
            idle,
            request,
            round_trip,
            others,
        })
    }

    /// How often the doorbell was rung in all.
    pub fn rang(&self) -> u64 {
        let series: [_; SERIES] = [&self.idle, &self.request, &self.round_trip];
        self.others + series.map(Series::operations).iter().sum::<u64>()
    }
}

impl Case for Path<'_> {
    fn name(&self) -> String {
        self.label.clone()
    }

    fn round(&mut self, _: &mut Timer, count: u32) -> Result<(), String> {
        let clock = self.machine.clock;
        let mut opened = drive::open(self.machine, &self.unit, self.way, Mode::Polling)?;
        let (idle, request, round_trip) = (&mut self.idle, &mut self.request, &mut self.round_trip);
        let others = &mut self.others;
        drive::with_device(&mut opened, drive::FEATURES, |driven, _| {
            let outcome = each(driven.queue().notifier(), |notifier| {
                notifier.idle(idle, count);
                // Nothing tells of an idle doorbell. That the device then serves
                // a request rung in the same way tells that it was listening.
                confirm(driven, &clock)?;
                idle.delivered = idle.operations();
                notifier.requests(driven, request, count, &clock)?;
                notifier.round_trips(driven, round_trip, count, &clock)
            });
            *others += drive::doorbells(driven.driver());
            outcome
        })
    }

    fn series(&self) -> Vec<&Series> {
        [&self.idle, &self.request, &self.round_trip].into()
    }
}

/// Makes one request, rings, and waits for the answer.
fn confirm(driven: &mut dyn Driven, clock: &Clock) -> Result<(), String> {
    driven.submit().map_err(|error| error.to_string())?;
    driven.queue().notify();
    wait(driven, clock)
}

/// Looks at the ring, or for an interrupt, between two looks at the clock, which is
/// dear where `rdtsc` is emulated.
pub(super) const LOOKS: u32 = 4096;

/// Waits until the used ring shows an answer.
#[inline]
fn wait_used(driven: &mut dyn Driven, clock: &Clock) -> Result<(), String> {
    let queue = driven.queue();
    let mut patience: Option<Deadline> = None;
    loop {
        for _ in 0..LOOKS {
            if queue.has_used() {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        if !patience.get_or_insert_with(|| clock.patience()).again() {
            return Err("a request that was rung for did not come back".to_string());
        }
    }
}

/// Waits until the request in flight comes back, and takes it.
fn wait(driven: &mut dyn Driven, clock: &Clock) -> Result<(), String> {
    wait_used(driven, clock)?;
    take(driven)
}

/// Takes the request back whose answer the used ring shows.
pub(super) fn take(driven: &mut dyn Driven) -> Result<(), String> {
    match driven.reap() {
        Ok(true) => Ok(()),
        Ok(false) => Err("an answer was shown, and is not there".to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Calls `work` with the notifier's own type, so that the timed code is made
/// for it and holds no choice.
fn each<R>(notifier: Notifier, work: impl FnOnce(Box<dyn Timed>) -> R) -> R {
    match notifier {
        Notifier::Port(notifier) => work(Box::new(notifier)),
        Notifier::Store16(notifier) => work(Box::new(notifier)),
        Notifier::Store32(notifier) => work(Box::new(notifier)),
        Notifier::Cam(notifier) => work(Box::new(notifier)),
        other => work(Box::new(other)),
    }
}

/// What is timed with a doorbell, compiled for each kind of notifier.
trait Timed {
    /// Operations in a batch.
    fn batch(&self, timer: &mut Timer) -> u32;

    /// Rings an idle ring, `count` times or a few more.
    fn idle(&self, series: &mut Series, count: u32);

    /// Times the doorbell of `count` requests, one after the other.
    fn requests(
        &self,
        driven: &mut dyn Driven,
        series: &mut Series,
        count: u32,
        clock: &Clock,
    ) -> Result<(), String>;

    /// Times `count` requests from the doorbell to the answer.
    fn round_trips(
        &self,
        driven: &mut dyn Driven,
        series: &mut Series,
        count: u32,
        clock: &Clock,
    ) -> Result<(), String>;
}

impl<N: Notify> Timed for N {
    fn batch(&self, timer: &mut Timer) -> u32 {
        timer.batch_for(self)
    }

    fn idle(&self, series: &mut Series, count: u32) {
        for _ in 0..count.div_ceil(series.batch) {
            series.record(time(self, series.batch));
        }
    }

    fn requests(
        &self,
        driven: &mut dyn Driven,
        series: &mut Series,
        count: u32,
        clock: &Clock,
    ) -> Result<(), String> {
        let mut pace = clock.pace();
        for done in 1..=count {
            publish(driven)?;
            series.record(time(self, 1));
            wait(driven, clock)?;
            series.delivered += 1;
            pace.check(done.into(), count.into())?;
        }
        Ok(())
    }

    fn round_trips(
        &self,
        driven: &mut dyn Driven,
        series: &mut Series,
        count: u32,
        clock: &Clock,
    ) -> Result<(), String> {
        let mut pace = clock.pace();
        for done in 1..=count {
            publish(driven)?;
            let start = tsc::start();
            self.notify();
            wait_used(driven, clock)?;
            series.record(tsc::stop().wrapping_sub(start));
            take(driven)?;
            series.delivered += 1;
            pace.check(done.into(), count.into())?;
        }
        Ok(())
    }
}

/// Makes a request available, and orders that before the doorbell.
pub(super) fn publish(driven: &mut dyn Driven) -> Result<(), String> {
    driven.submit().map_err(|error| error.to_string())?;
    // The answer does not matter here: the doorbell is rung in any case. What
    // matters is the barrier that it comes with.
    driven.queue().needs_notification();
    Ok(())
}
