//! Time for those who wait: deadlines by the TSC.

use core::time::Duration;

use doorbell::virtio::Wait;

use crate::arch::tsc::{self, Frequency};

/// How long a device gets to answer, in milliseconds. A slow host's scheduler
/// may leave it out for a while.
const PATIENCE_MS: u64 = 5_000;

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
        Deadline {
            start: tsc::start(),
            cycles: self.hz() / 1000 * milliseconds,
        }
    }

    /// The time since the TSC was reset. Where its frequency is unknown, it goes
    /// too slowly.
    pub fn now(&self) -> Duration {
        to_duration(tsc::start(), self.hz())
    }

    fn hz(&self) -> u64 {
        self.frequency.map_or(ASSUMED_HZ, |frequency| frequency.hz)
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

/// How long a number of cycles takes.
fn to_duration(cycles: u64, hz: u64) -> Duration {
    let hz = hz.max(1);
    // Less than a second is left over, so less than 2^64 ns come out.
    let nanos = u128::from(cycles % hz) * 1_000_000_000 / u128::from(hz);
    Duration::from_secs(cycles / hz) + Duration::from_nanos(nanos as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_exact_to_the_nanosecond_for_ever() {
        let hz = 2_600_000_000;
        assert_eq!(to_duration(26, hz), Duration::from_nanos(10));
        assert_eq!(
            to_duration(hz * 3 + 2600, hz),
            Duration::from_micros(3_000_001)
        );
        let longest = to_duration(u64::MAX, hz);
        assert_eq!(longest.as_secs(), u64::MAX / hz);
        assert_eq!(to_duration(5, 0), Duration::from_secs(5));
    }
}
