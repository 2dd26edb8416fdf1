//! `crash`: ends the run in one of the ways in which it must not end, to see
//! what is reported.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::Command;
use crate::arch::crash::CRASHES;

/// Crashes.
pub(super) const COMMAND: Command = Command {
    name: "crash",
    usage: "panic|null|divide|stack|code|data|opcode|double",
    about: "crashes, to see what is reported",
    defaults: &[],
    parse: |arguments| {
        let mut chosen: Vec<fn()> = Vec::new();
        arguments.each_flag(|key| {
            let way = CRASHES.iter().find(|(name, _)| *name == key);
            match way {
                Some((_, way)) => chosen.push(*way),
                None if key == "panic" => chosen.push(|| panic!("a panic was asked for")),
                None => return false,
            }
            true
        })?;
        let [way] = chosen[..] else {
            return Err("it wants to know one way".to_string());
        };
        Ok(Box::new(move |_| {
            way();
            // Whoever comes back here did not crash.
            1
        }))
    },
};
