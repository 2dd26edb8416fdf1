//! Time for those who wait: deadlines by the TSC.

use doorbell::virtio::Wait;

use crate::arch::tsc::{self, Frequency};

/// How long a device gets to answer, in milliseconds. A slow host's scheduler
/// may leave it out for a while.
const PATIENCE_MS: u64 = 2_000;

/// Cycles a second that are assumed where no clock tells: high, so that a wait
/// is rather too long than too short.
const ASSUMED_HZ: u64 = 5_000_000_000;

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The TSC's frequency, if it could be found out.
    pub frequency: Option<Frequency>,
}

impl Clock {
    /// A clock by a TSC of this frequency.
    pub fn new(frequency: Option<Frequency>) -> Self {
        Self { frequency }
    }

    /// A wait for a device, from now on.
    pub fn patience(&self) -> Deadline {
        self.wait_ms(PATIENCE_MS)
    }

    /// A wait of `milliseconds`, from now on.
    pub fn wait_ms(&self, milliseconds: u64) -> Deadline {
        let hz = self.frequency.map_or(ASSUMED_HZ, |frequency| frequency.hz);
        Deadline {
            start: tsc::start(),
            cycles: hz / 1000 * milliseconds,
        }
    }
}

/// A wait with an end.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: u64,
    cycles: u64,
}

impl Deadline {
    /// What is left of the wait, in cycles of the TSC; `None` once it is over.
    pub fn remaining(&self) -> Option<u64> {
        let left = self
            .cycles
            .checked_sub(tsc::start().wrapping_sub(self.start))?;
        (left > 0).then_some(left)
    }
}

impl Wait for Deadline {
    fn again(&mut self) -> bool {
        core::hint::spin_loop();
        self.remaining().is_some()
    }
}
