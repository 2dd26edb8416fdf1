//! Time for those who wait: deadlines by the TSC.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use doorbell::virtio::Wait;

use crate::arch::tsc::{self, Frequency};

/// How long a device gets to answer, in milliseconds. A slow host's scheduler
/// may leave it out for a while.
const PATIENCE_MS: u64 = 5_000;

/// A device under load that answers fewer requests in a second crawls, if what is left
/// would take it longer than [`LONGEST`].
const SLOWEST: u64 = 4;

/// How long a crawling device may take for what is left.
const LONGEST: Duration = Duration::from_secs(60);

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

    /// A look at how fast requests are answered, from now on.
    pub fn pace(&self) -> Pace {
        Pace {
            start: tsc::start(),
            hz: self.hz(),
            done: 0,
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

/// How fast requests are answered: a device that answers each in time may still never
/// come to the end of many.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Since when it is looked at, and how many were done then.
    start: u64,
    done: u64,
    hz: u64,
}

impl Pace {
    /// Looks at it again, when `done` of `all` requests are.
    ///
    /// # Errors
    ///
    /// When the device crawls.
    pub fn check(&mut self, done: u64, all: u64) -> Result<(), String> {
        let now = tsc::start();
        let took = to_duration(now.wrapping_sub(self.start), self.hz);
        if took < Duration::from_millis(PATIENCE_MS) {
            return Ok(());
        }
        let (fresh, left) = (done.saturating_sub(self.done), all.saturating_sub(done));
        if crawls(fresh, left, took) {
            return Err(format!(
                "the device answers too slowly: {fresh} requests in {} s, and {left} are left",
                took.as_secs()
            ));
        }
        (self.start, self.done) = (now, done);
        Ok(())
    }
}

/// Whether a device crawls that answered `fresh` requests in the time that it took, with
/// so many left.
fn crawls(fresh: u64, left: u64, took: Duration) -> bool {
    let millis = |time: Duration| time.as_millis();
    let slow = u128::from(fresh) * 1000 < u128::from(SLOWEST) * millis(took);
    slow && u128::from(left) * millis(took) > u128::from(fresh) * millis(LONGEST)
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
    fn a_device_crawls_if_it_is_slow_and_has_long_to_go() {
        let took = Duration::from_secs(5);
        assert!(crawls(5, 61, took));
        assert!(crawls(0, 1, took));
        // It is almost there, or not so slow.
        assert!(!crawls(5, 60, took));
        assert!(!crawls(20, 1_000_000, took));
        assert!(crawls(19, 1_000_000, took));
    }

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
