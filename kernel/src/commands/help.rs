//! `help`: what there is to ask for.

use alloc::boxed::Box;
use alloc::format;

use super::{COMMANDS, Command};
use crate::println;

/// Columns for usages: behind a longer one, what is said of it begins a line.
const USAGE: usize = 54;

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
                let usage = format!("{name} {usage}");
                if usage.len() > USAGE {
                    println!("  {usage}");
                    println!("  {:USAGE$} {about}", "");
                } else {
                    println!("  {usage:USAGE$} {about}");
                }
            }
            0
        }))
    },
};
