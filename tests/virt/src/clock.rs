//! The processor's cycle counter, and what reading it costs.

use core::arch::asm;

use doorbell::transport::Notify;

use crate::stats::Samples;

/// Idle doorbells in a sample: one alone may be under the counter's step.
pub(crate) const BATCH: u32 = 16;
/// Samples of each kind that a path takes in a round.
pub(crate) const SAMPLES: usize = 16;

/// The counter, with everything before it done and nothing behind it begun. The fence is
/// the same in the empty loop, and goes off with that.
#[inline(always)]
pub(crate) fn now() -> u64 {
    let cycles;
    // SAFETY: machine mode may read it; a fence changes nothing.
    unsafe {
        asm!("fence iorw, iorw", "rdcycle {}", "fence iorw, iorw", out(reg) cycles, options(nostack));
    }
    cycles
}

/// The cycles that `count` times of `operation` take.
#[inline(never)]
pub(crate) fn time(operation: &impl Notify, count: u32) -> u64 {
    let start = now();
    for _ in 0..count {
        operation.notify();
    }
    now().wrapping_sub(start)
}

/// An operation that does nothing, and that the compiler cannot leave out.
struct Nothing;

impl Notify for Nothing {
    #[inline(always)]
    fn notify(&self) {
        // SAFETY: no instruction at all.
        unsafe { asm!("", options(nostack, preserves_flags)) };
    }
}

/// What timing nothing costs: in batches, and once.
#[derive(Default)]
pub(crate) struct Timer {
    batch: Samples,
    single: Samples,
}

impl Timer {
    /// Times empty loops, once a round.
    pub(crate) fn round(&mut self) {
        for _ in 0..SAMPLES {
            self.batch.record(time(&Nothing, BATCH));
            self.single.record(time(&Nothing, 1));
        }
    }

    /// The median of an empty sample of `batch` operations.
    pub(crate) fn overhead(&self, batch: u32) -> u64 {
        let samples = if batch == 1 {
            &self.single
        } else {
            &self.batch
        };
        samples.sorted().permille(500)
    }
}
