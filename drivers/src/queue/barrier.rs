//! The rings' full barriers, in one place, so that tests can count them.

use crate::port::order;

/// A full barrier: what was stored before it is seen by the device before anything is
/// loaded after it, and before a doorbell that is rung after it. Acquire and release
/// order neither.
#[inline(always)]
pub(super) fn full() {
    #[cfg(test)]
    if super::model::driver_fences() {
        return;
    }
    order::full();
    #[cfg(any(test, feature = "test-utils"))]
    count::add();
}

#[cfg(any(test, feature = "test-utils"))]
pub(super) mod count {
    use std::cell::Cell;

    std::thread_local! {
        static FULL: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn add() {
        FULL.set(FULL.get() + 1);
    }

    /// How many full barriers the rings of this thread have executed.
    pub fn full_barriers() -> u64 {
        FULL.get()
    }
}
