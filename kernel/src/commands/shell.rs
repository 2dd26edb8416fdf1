//! `shell`: commands from the serial line; and the same for `console`, wherever a
//! person types.

use alloc::boxed::Box;
use alloc::string::String;

use super::Command;
use crate::machine::Machine;
use crate::{print, println, terminal};

/// The longest line that is taken.
const MAX_LINE: usize = 256;

/// Reads commands until `exit`.
pub(super) const COMMAND: Command = Command {
    name: "shell",
    usage: "",
    about: "reads commands from the serial line until \"exit\"",
    defaults: &[],
    parse: |arguments| {
        arguments.none()?;
        Ok(Box::new(shell))
    },
};

/// Reads commands from the terminal until `exit`. The result is how many things
/// failed.
pub(super) fn shell(machine: &Machine) -> u32 {
    println!("doorbell's shell: \"help\" lists the commands, \"exit\" leaves.");
    let mut failures = 0;
    loop {
        print!("doorbell> ");
        let line = read_line();
        match line.trim() {
            "exit" | "quit" => return failures,
            // A shell in a shell would only need two exits.
            "shell" => println!("This is the shell."),
            line => match super::parse_all(line) {
                Ok(jobs) => failures += super::run_jobs(machine, jobs),
                // A slip of the finger does not fail the run.
                Err(message) => println!("{message}"),
            },
        }
    }
}

/// Reads a line, with echo. Backspace takes a character back, Ctrl-U the line;
/// Ctrl-D on an empty line leaves; escape sequences, as of arrow keys, are passed
/// over. Where nothing can be typed any more, that is an `exit`.
fn read_line() -> String {
    edit_line().unwrap_or_else(|| {
        println!();
        "exit".into()
    })
}

/// `None` at the end of what is typed.
fn edit_line() -> Option<String> {
    let mut line = String::new();
    loop {
        match terminal::wait_for_byte()? {
            b'\r' | b'\n' => {
                println!();
                return Some(line);
            }
            terminal::END_OF_INPUT if line.is_empty() => return None,
            // Backspace and delete.
            0x08 | 0x7f if line.pop().is_some() => print!("\x08 \x08"),
            // Ctrl-U.
            0x15 => {
                while line.pop().is_some() {
                    print!("\x08 \x08");
                }
            }
            // An escape sequence: up to its final byte.
            0x1b => {
                terminal::wait_for_byte()?;
                while !matches!(terminal::wait_for_byte()?, b'@'..=b'~') {}
            }
            byte @ b' '..=b'~' if line.len() < MAX_LINE => {
                line.push(byte.into());
                print!("{}", char::from(byte));
            }
            _ => {}
        }
    }
}
