//! `hang`: never ends, to try the launcher's time-out.

use alloc::boxed::Box;

use super::Command;

/// Spins for ever.
pub(super) const COMMAND: Command = Command {
    name: "hang",
    usage: "",
    about: "never ends, to try the launcher's time-out",
    defaults: &[],
    parse: |arguments| {
        arguments.none()?;
        Ok(Box::new(|_| {
            loop {
                core::hint::spin_loop();
            }
        }))
    },
};
