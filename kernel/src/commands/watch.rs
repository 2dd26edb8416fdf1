//! What goes on until somebody at the serial line ends it.

use core::fmt;
use core::time::Duration;

use crate::clock::Clock;
use crate::net::Watch;
use crate::platform::serial;
use crate::println;

/// How often the serial line is looked at: each look leaves the virtual machine.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The kernel's clock, and a person at the serial line.
pub(super) struct SerialWatch {
    clock: Clock,
    /// When the line was looked at.
    looked: Duration,
    called_off: bool,
}

impl SerialWatch {
    pub(super) fn new(clock: Clock) -> Self {
        // A line feed here ends the line that the shell has read.
        let byte = serial::read_byte();
        Self {
            clock,
            looked: clock.now(),
            called_off: byte.is_some_and(|byte| byte != b'\n'),
        }
    }
}

impl Watch for SerialWatch {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn idle(&mut self) {
        core::hint::spin_loop();
    }

    fn called_off(&mut self) -> bool {
        let now = self.now();
        if !self.called_off && now.saturating_sub(self.looked) >= LOOK_EVERY {
            self.looked = now;
            self.called_off = serial::read_byte().is_some();
        }
        self.called_off
    }

    fn say(&mut self, what: fmt::Arguments<'_>) {
        println!("{what}");
    }
}
