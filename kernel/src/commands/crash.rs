//! `crash`: ends the run in one of the ways in which it must not end, to see
//! what is reported.

use alloc::boxed::Box;
use alloc::string::ToString;

use super::Command;
use crate::arch::crash::CRASHES;

/// Crashes.
pub(super) const COMMAND: Command = Command {
    name: "crash",
    usage: "panic|null|divide|stack|code|data|opcode|double",
    about: "crashes, to see what is reported",
    parse: |arguments| {
        let mut chosen: Option<fn()> = None;
        arguments.each(|key, _| {
            let way = match CRASHES.iter().find(|(name, _)| *name == key) {
                Some((_, way)) => *way,
                None if key == "panic" => || panic!("a panic was asked for"),
                None => return Ok(false),
            };
            chosen = Some(way);
            Ok(true)
        })?;
        let way = chosen.ok_or("it wants to know how".to_string())?;
        Ok(Box::new(move |_| {
            way();
            // Whoever comes back here did not crash.
            1
        }))
    },
};
