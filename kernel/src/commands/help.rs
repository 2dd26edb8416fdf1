//! `help`: what there is to ask for.

use alloc::boxed::Box;
use alloc::format;

use super::{COMMANDS, Command};
use crate::println;

/// Lists the commands.
pub(super) const COMMAND: Command = Command {
    name: "help",
    usage: "",
    about: "lists the commands",
    parse: |arguments| {
        arguments.none()?;
        Ok(Box::new(|_| {
            println!("Commands, separated by \";\"; in the shell also \"exit\":");
            for Command {
                name, usage, about, ..
            } in COMMANDS
            {
                println!("  {:<54} {about}", format!("{name} {usage}"));
            }
            0
        }))
    },
};
