//! `help`: what there is to ask for.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{COMMANDS, Command, contest};
use crate::println;

/// Columns for usages: behind a longer one, what is said of it begins a line.
const USAGE: usize = 54;

/// Lists the commands.
pub(super) const COMMAND: Command = Command {
    name: "help",
    usage: "",
    about: "lists the commands",
    defaults: &[],
    parse: |arguments| {
        arguments.none()?;
        Ok(Box::new(|_| {
            println!("Commands, separated by \";\"; in the shell also \"exit\":");
            for command in COMMANDS {
                let usage = format!("{} {}", command.name, command.usage);
                let about = about(command);
                if usage.len() > USAGE {
                    println!("  {usage}");
                    println!("  {:USAGE$} {about}", "");
                } else {
                    println!("  {usage:USAGE$} {about}");
                }
            }
            println!("Of blk and netperf:");
            for argument in contest::ARGUMENTS {
                println!("  {argument}");
            }
            0
        }))
    },
};

/// What a command does, and what its numbers are unless they are given.
fn about(command: &Command) -> String {
    let defaults = command.defaults.iter();
    let defaults: Vec<_> = defaults
        .map(|(key, default)| format!("{key}={default}"))
        .collect();
    if defaults.is_empty() {
        return command.about.to_string();
    }
    format!("{} (default: {})", command.about, defaults.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_numbers_are_shown() {
        let shown = |name: &str| {
            let mut commands = COMMANDS.iter();
            about(commands.find(|command| command.name == name).unwrap())
        };
        assert!(shown("doorbell").ends_with("interrupts (default: rounds=50 count=200)"));
        assert!(shown("blk").ends_with("(default: depth=1 count=200000 rounds=10)"));
        assert!(shown("netperf").ends_with("(default: depth=256 count=200000 rounds=10)"));
        assert!(shown("net").ends_with("(default: pings=4 for=60 port=80)"));
        assert_eq!(shown("help"), "lists the commands");
    }
}
