//! Timing: batches, their overhead, and what is kept of them.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use doorbell::transport::Notify;

use super::histogram::Histogram;
use crate::arch::tsc;
use crate::platform::memory;
use crate::record::{Place, SummaryRecord};

/// Memory that figures leave to everything else, in bytes: rings, buffers, and records.
const RESERVE: usize = 2 << 20;

/// Costs are kept in hundredths of a cycle.
const HUNDREDTHS: u64 = 100;

/// A batch lasts at least this many steps of the TSC, so that one step is under
/// 1 % of it, if [`MAX_BATCH`] operations are enough for that.
const STEPS_A_BATCH: u64 = 100;

/// The most operations in a batch.
const MAX_BATCH: u32 = 256;

/// Batches, and operations in each, by which [`Timer::batch_for`] learns what an
/// operation costs.
const PROBES: (u32, u32) = (8, 16);

/// How many operations [`Timer::batch_for`] executes.
pub const PROBE_OPERATIONS: u32 = PROBES.0 * PROBES.1;

/// Something that is timed in turns with the others.
pub trait Case {
    /// A name for messages.
    fn name(&self) -> String;

    /// Times about `count` operations of each of its series.
    ///
    /// # Errors
    ///
    /// Why the case cannot go on.
    fn round(&mut self, timer: &mut Timer, count: u32) -> Result<(), String>;

    /// What was measured.
    fn series(&self) -> Vec<&Series>;
}

/// One distribution: what it is of, and the figures.
#[derive(Clone, Debug)]
pub struct Series {
    /// What is timed: `doorbell-idle` and so on.
    pub case: &'static str,
    /// The device's name.
    pub device: String,
    /// Where it is.
    pub place: Place,
    /// The interface, if it is a virtio device.
    pub transport: Option<String>,
    /// The way that it is rung.
    pub notify: Option<String>,
    /// How the device is heard, where it interrupts.
    pub interrupts: Option<&'static str>,
    /// Which part of the case.
    pub subtest: Option<Cow<'static, str>>,
    /// Operations in a sample.
    pub batch: u32,
    /// Whether the cost of timing nothing is taken off.
    pub net: bool,
    /// Operations that are known to have arrived.
    pub delivered: u64,
    operations: u64,
    histogram: Histogram,
}

impl Series {
    /// An empty series of a device at `place`.
    pub fn new(case: &'static str, device: String, place: Place) -> Self {
        Self {
            case,
            device,
            place,
            transport: None,
            notify: None,
            interrupts: None,
            subtest: None,
            batch: 1,
            net: true,
            delivered: 0,
            operations: 0,
            histogram: Histogram::new(),
        }
    }

    /// Adds a sample: the cycles that a whole batch took.
    pub fn record(&mut self, cycles: u64) {
        self.operations += u64::from(self.batch);
        self.histogram.record(per_operation(cycles, self.batch));
    }

    /// Operations timed so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// The figures, net of what `timer` found an empty batch to cost.
    pub fn summary(&self, timer: &Timer) -> SummaryRecord {
        let overhead = if self.net {
            timer.overhead(self.batch)
        } else {
            0
        };
        let net = |raw: u64| hundredths(raw as i64 - overhead as i64);
        let histogram = &self.histogram;
        SummaryRecord {
            case: self.case,
            device: self.device.clone(),
            place: self.place.clone(),
            transport: self.transport.clone(),
            notify: self.notify.clone(),
            interrupts: self.interrupts,
            subtest: self.subtest.clone(),
            n: self.operations,
            delivered: self.delivered,
            batch: self.batch,
            samples: histogram.samples(),
            overhead: hundredths(overhead as i64),
            min: net(histogram.min()),
            p50: net(histogram.permille(500)),
            p90: net(histogram.permille(900)),
            p99: net(histogram.permille(990)),
            p999: net(histogram.permille(999)),
            max: net(histogram.max()),
            mean: net(histogram.mean()),
            unit: "cycles",
        }
    }
}

/// Whether there is memory for so many series more.
///
/// # Errors
///
/// When there is not, in words.
pub fn room_for(series: usize) -> Result<(), String> {
    // One more for what a batch of nothing costs.
    let wanted = (series + 1) * Histogram::BYTES;
    let free = memory::heap_use().free;
    if free >= wanted + RESERVE {
        return Ok(());
    }
    Err(format!(
        "there is no memory for the figures, which take {wanted} bytes: of the {free} \
         that are free {RESERVE} are kept for other things"
    ))
}

/// What an operation of a batch cost, in hundredths of a cycle. Where the TSC
/// stepped back, by the host's doing, the difference is huge, and stays so.
fn per_operation(cycles: u64, batch: u32) -> u64 {
    let hundredths = cycles.min(i64::MAX as u64 / HUNDREDTHS) * HUNDREDTHS;
    hundredths / u64::from(batch)
}

/// Hundredths as a number with two decimals.
fn hundredths(value: i64) -> f64 {
    value as f64 / HUNDREDTHS as f64
}

/// The instrument, and what it costs itself.
pub struct Timer {
    step: u64,
    /// By batch size: what a batch of nothing costs.
    empty: BTreeMap<u32, Histogram>,
}

/// An operation that does nothing, and that the compiler cannot leave out.
pub struct Nothing;

impl Notify for Nothing {
    #[inline(always)]
    fn notify(&self) {
        // SAFETY: no instruction at all; the compiler takes it for one that
        // accesses memory, as it does the doorbells.
        unsafe { core::arch::asm!("", options(nostack, preserves_flags)) };
    }
}

/// The cycles that `count` times of `operation` take. Nothing else is between
/// the two readings of the TSC.
#[inline(never)]
pub fn time(operation: &impl Notify, count: u32) -> u64 {
    let start = tsc::start();
    for _ in 0..count {
        operation.notify();
    }
    tsc::stop().wrapping_sub(start)
}

impl Timer {
    /// A timer on a TSC that moves in steps of `step` cycles.
    pub fn new(step: u64) -> Self {
        Self {
            step,
            empty: BTreeMap::new(),
        }
    }

    /// How many of `operation` make a batch long enough for the TSC's step.
    pub fn batch_for(&mut self, operation: &impl Notify) -> u32 {
        let (batches, operations) = PROBES;
        let most = u64::from(MAX_BATCH);
        // The fastest of a few: interruptions make it longer only.
        let empty = (0..batches).map(|_| time(&Nothing, operations)).min();
        let fastest = (0..batches)
            .map(|_| time(operation, operations))
            .min()
            .unwrap_or(0);
        let fastest = fastest.saturating_sub(empty.unwrap_or(0));
        let cost = fastest / u64::from(operations);
        let batch = (self.step * STEPS_A_BATCH)
            .div_ceil(cost.max(1))
            .clamp(1, most) as u32;
        self.expect(batch);
        batch
    }

    /// Says that batches of this size will be timed.
    pub fn expect(&mut self, batch: u32) {
        self.empty.entry(batch).or_default();
    }

    /// Times empty batches, once a round, of each size that is in use.
    pub fn round(&mut self, count: u32) {
        for (&batch, histogram) in &mut self.empty {
            for _ in 0..count.div_ceil(batch) {
                let cycles = time(&Nothing, batch);
                histogram.record(per_operation(cycles, batch));
            }
        }
    }

    /// What an operation of an empty batch costs, in hundredths of a cycle: the
    /// median.
    fn overhead(&self, batch: u32) -> u64 {
        self.empty
            .get(&batch)
            .map_or(0, |histogram| histogram.permille(500))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_net_of_an_empty_batch_of_the_same_size() {
        let mut timer = Timer::new(1);
        for (batch, cost) in [(1, 3000), (10, 450)] {
            let mut histogram = Histogram::new();
            histogram.record(cost);
            timer.empty.insert(batch, histogram);
        }
        let mut series = Series::new("doorbell-idle", "d".into(), Place::default());
        series.batch = 10;
        series.record(1000);
        series.record(50);
        let summary = series.summary(&timer);
        assert_eq!((summary.n, summary.samples, summary.batch), (20, 2, 10));
        assert_eq!(summary.overhead, 4.5);
        assert_eq!(summary.max, 95.5);
        assert_eq!(summary.min, 0.5);
        series.net = false;
        assert_eq!(series.summary(&timer).max, 100.0);
    }

    #[test]
    fn a_batch_outlasts_the_step_as_far_as_it_may() {
        let mut timer = Timer::new(1000);
        assert_eq!(timer.batch_for(&Nothing), MAX_BATCH);
        assert!(timer.empty.contains_key(&MAX_BATCH));
        timer.round(512);
        assert_eq!(timer.empty[&MAX_BATCH].samples(), 2);
    }
}
