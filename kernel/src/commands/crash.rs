//! `crash`: ends the run in one of the ways in which it must not end, to see
//! what is reported.

use alloc::boxed::Box;
use alloc::string::ToString;

use super::Command;
use crate::arch::crash;

/// The ways, by name.
const WAYS: [(&str, fn()); 7] = [
    ("panic", || panic!("a panic was asked for")),
    ("null", crash::null_dereference),
    ("divide", crash::divide_by_zero),
    ("stack", crash::stack_overflow),
    ("code", crash::write_to_code),
    ("data", crash::execute_data),
    ("opcode", crash::invalid_opcode),
];

/// Crashes.
pub(super) const COMMAND: Command = Command {
    name: "crash",
    usage: "panic|null|divide|stack|code|data|opcode",
    about: "crashes, to see what is reported",
    parse: |arguments| {
        let mut chosen = None;
        arguments.each(|key, _| {
            let way = WAYS.iter().find(|(name, _)| *name == key);
            chosen = way.map(|(_, way)| *way).or(chosen);
            Ok(way.is_some())
        })?;
        let way = chosen.ok_or("it wants to know how".to_string())?;
        Ok(Box::new(move |_| {
            way();
            // Whoever comes back here did not crash.
            1
        }))
    },
};
