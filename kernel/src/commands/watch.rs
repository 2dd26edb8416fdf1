//! What goes on until a key ends it, wherever whoever asked for it types.

use core::fmt;
use core::time::Duration;

use crate::clock::Clock;
use crate::net::Watch;
use crate::{println, terminal};

/// How often it is looked for a key: each look at the serial line leaves the virtual
/// machine.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The kernel's clock, and a person's keys.
pub(super) struct KeyWatch {
    clock: Clock,
    /// When it was looked for a key.
    looked: Duration,
    called_off: bool,
}

impl KeyWatch {
    pub(super) fn new(clock: Clock) -> Self {
        // A line feed here ends the line that the shell has read.
        let byte = terminal::read_byte();
        Self {
            clock,
            looked: clock.now(),
            called_off: byte.is_some_and(|byte| byte != b'\n' && is_key(byte)),
        }
    }
}

/// Where nothing more will be typed, nobody has pressed a key.
fn is_key(byte: u8) -> bool {
    byte != terminal::END_OF_INPUT
}

impl Watch for KeyWatch {
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
            self.called_off = terminal::read_byte().is_some_and(is_key);
        }
        self.called_off
    }

    fn say(&mut self, what: fmt::Arguments<'_>) {
        println!("{what}");
    }
}
