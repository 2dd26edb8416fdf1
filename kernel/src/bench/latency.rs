//! A virtio device that interrupts: from its doorbell to the interrupt's handler,
//! and to the code that slept until it came.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::transport::Notify;
use doorbell::virtio::Wait;

use super::path::{LOOKS, publish, take};
use super::{Case, Series, Timer};
use crate::arch::tsc;
use crate::drive::{self, Driven, Listener, Mode, Unit, Way};
use crate::machine::Machine;

/// An interrupt takes so much longer than a doorbell that it is timed by this much
/// less often.
pub const DEARER: u32 = 5;

/// How many requests in a row may give no figure.
const TRIES: u32 = 10;

/// Series of a path.
pub const SERIES: usize = 2;

/// A path to a device in one mode, and its series.
pub struct Latency<'m> {
    machine: &'m Machine,
    unit: Unit,
    way: Way,
    mode: Mode,
    label: String,
    handler: Series,
    wake: Series,
    /// Doorbells rung beside those that the series count.
    others: u64,
}

impl<'m> Latency<'m> {
    /// The path, tried once: the device comes up, and interrupts for a request.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub fn new(
        machine: &'m Machine,
        unit: Unit,
        way: Way,
        mode: Mode,
        timer: &mut Timer,
    ) -> Result<Self, String> {
        let mut opened = drive::open(machine, &unit, way, mode)?;
        let (interface, path) = opened.path();
        let others = drive::with_device(&mut opened, drive::FEATURES, |driven, listener| {
            let (_, again) = until_timed(|| to_wake(driven, listener))?;
            Ok(1 + u64::from(again) + drive::doorbells(driven.driver()))
        })?;
        timer.expect(1);
        let series = |case| {
            let mut series = Series::new(case, unit.name(), unit.place.clone());
            series.transport = Some(interface.to_string());
            series.notify = Some(path.to_string());
            series.interrupts = Some(mode.name());
            series
        };
        let (handler, wake) = (series("to-handler"), series("to-wake-up"));
        let (name, at, by) = (unit.name(), unit.at(), mode.name());
        let label = format!("{name} at {at} over {interface}, {path}, {by}");
        Ok(Self {
            machine,
            unit,
            way,
            mode,
            label,
            handler,
            wake,
            others,
        })
    }

    /// How often the doorbell was rung in all.
    pub fn rang(&self) -> u64 {
        self.others + self.handler.operations() + self.wake.operations()
    }
}

impl Case for Latency<'_> {
    fn name(&self) -> String {
        self.label.clone()
    }

    fn round(&mut self, _: &mut Timer, count: u32) -> Result<(), String> {
        let mut opened = drive::open(self.machine, &self.unit, self.way, self.mode)?;
        let (handler, wake) = (&mut self.handler, &mut self.wake);
        let others = &mut self.others;
        drive::with_device(&mut opened, drive::FEATURES, |driven, listener| {
            let mut pace = listener.clock().pace();
            let all = count.div_ceil(DEARER);
            for done in 1..=all {
                let (cycles, again) = until_timed(|| to_handler(driven, listener))?;
                handler.record(cycles);
                handler.delivered += 1;
                *others += u64::from(again);
                let (cycles, again) = until_timed(|| to_wake(driven, listener))?;
                wake.record(cycles);
                wake.delivered += 1;
                *others += u64::from(again);
                pace.check(done.into(), all.into())?;
            }
            *others += drive::doorbells(driven.driver());
            Ok(())
        })
    }

    fn series(&self) -> Vec<&Series> {
        [&self.handler, &self.wake].into()
    }
}

/// Times until there is a figure, and says how many requests gave none before.
fn until_timed(
    mut time: impl FnMut() -> Result<Option<u64>, String>,
) -> Result<(u64, u32), String> {
    for again in 0..TRIES {
        if let Some(cycles) = time()? {
            return Ok((cycles, again));
        }
    }
    Err(format!(
        "{TRIES} requests in a row were served before they were rung for, or their \
         interrupts were hidden by others"
    ))
}

/// Why there is no figure at all: whether the request came back tells a lost interrupt
/// from a device that does not answer.
fn no_interrupt(came_back: bool) -> String {
    let why = if came_back {
        "a request that was rung for came back without an interrupt"
    } else {
        "a request that was rung for did not come back"
    };
    why.to_string()
}

/// The cycles from the doorbell of a request to the entry of the interrupt's
/// handler, while the CPU is busy; `None` if the device served the request before it
/// was rung for, as one does that still looks for more, or if another interrupt came
/// just before the doorbell and hid its own.
fn to_handler(driven: &mut dyn Driven, listener: &Listener<'_>) -> Result<Option<u64>, String> {
    publish(driven)?;
    let queue = driven.queue();
    let notifier = queue.notifier();
    let mut deadline = listener.bring_up();
    let start = listener.let_in(|| {
        // What was still on its way came in when it was let in. Looked at in this
        // order: an interrupt that the count has already is for an answer that the
        // ring shows.
        let mut before = listener.queue_interrupts();
        let unrung = queue.has_used();
        let start = tsc::start();
        notifier.notify();
        if unrung {
            return Some(None);
        }
        loop {
            for _ in 0..LOOKS {
                let now = listener.queue_interrupts();
                if now != before {
                    if queue.has_used() {
                        return Some(Some(start));
                    }
                    // It was another queue's.
                    before = now;
                }
                core::hint::spin_loop();
            }
            if !deadline.again() {
                return None;
            }
        }
    });
    let start = start.ok_or_else(|| no_interrupt(driven.queue().has_used()))?;
    take(driven)?;
    Ok(start.and_then(|start| listener.entered().checked_sub(start)))
}

/// The cycles from the doorbell of a request until the code runs again that sleeps
/// until the interrupt; `None` if the device served it before.
fn to_wake(driven: &mut dyn Driven, listener: &Listener<'_>) -> Result<Option<u64>, String> {
    publish(driven)?;
    let queue = driven.queue();
    let notifier = queue.notifier();
    let mut patience = listener.patience();
    let unrung = queue.has_used();
    let start = tsc::start();
    notifier.notify();
    let mut woken = unrung || patience.again();
    // Or it was another queue's.
    while woken && !queue.has_used() {
        woken = patience.again();
    }
    let cycles = tsc::stop().wrapping_sub(start);
    if !woken {
        return Err(no_interrupt(driven.queue().has_used()));
    }
    take(driven)?;
    Ok((!unrung).then_some(cycles))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_without_a_figure_are_counted_and_do_not_go_on_for_ever() {
        let mut samples = [Ok(None), Ok(None), Ok(Some(7)), Err("gone".to_string())].into_iter();
        assert_eq!(until_timed(|| samples.next().unwrap()), Ok((7, 2)));
        assert_eq!(until_timed(|| samples.next().unwrap()), Err("gone".into()));
        let mut tries = 0;
        let never = until_timed(|| {
            tries += 1;
            Ok(None)
        });
        assert!(never.is_err());
        assert_eq!(tries, TRIES);
    }
}
