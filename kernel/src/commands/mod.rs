//! What a person can ask the guest to do, from the kernel's command line or the
//! shell: one file a command.

mod balloon;
mod blk;
mod console;
mod contest;
mod crash;
mod devices;
mod doorbell;
mod hang;
mod help;
mod info;
mod lspci;
mod net;
mod netperf;
mod pick;
mod probe;
mod shell;
mod watch;

pub use devices::name as way_name;
pub use lspci::record as pci_record;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::machine::Machine;
use crate::platform::virtio_mmio;
use crate::println;
use crate::record::{Place, Record};

/// A command.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, as help shows them.
    pub usage: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What numbers are unless they are given.
    pub defaults: &'static [(&'static str, u32)],
    /// Reads the arguments: what to run, or what is wrong with them.
    parse: fn(&Arguments<'_>) -> Result<Job, String>,
}

/// A command with its arguments read; the result is how many things failed.
type Job = alloc::boxed::Box<dyn Fn(&Machine) -> u32>;

/// All commands, in the order in which help lists them.
pub(super) const COMMANDS: &[Command] = &[
    lspci::COMMAND,
    devices::COMMAND,
    probe::COMMAND,
    doorbell::COMMAND,
    blk::COMMAND,
    netperf::COMMAND,
    net::COMMAND,
    balloon::COMMAND,
    console::COMMAND,
    info::COMMAND,
    shell::COMMAND,
    help::COMMAND,
    crash::COMMAND,
    hang::COMMAND,
];

/// What is done when nothing is asked for.
const MAIN_JOB: &str = "lspci; devices; doorbell";

/// The words after a command's name.
pub struct Arguments<'a>(Vec<&'a str>);

impl<'a> Arguments<'a> {
    /// Refuses any argument.
    fn none(&self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some(word) => Err(format!("\"{word}\": it takes no arguments")),
        }
    }

    /// Hands each argument, which must have no value, to `take`, which says
    /// whether it is one.
    fn each_flag(&self, mut take: impl FnMut(&str) -> bool) -> Result<(), String> {
        self.each(|key, value| match value {
            None => Ok(take(key)),
            Some(_) => Err("it takes no value".to_string()),
        })
    }

    /// Hands each argument, as a key and what is behind its `=`, to `take`, which
    /// says whether it is one.
    fn each(
        &self,
        mut take: impl FnMut(&str, Option<&'a str>) -> Result<bool, String>,
    ) -> Result<(), String> {
        for word in &self.0 {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (*word, None),
            };
            let known = take(key, value).map_err(|error| format!("\"{word}\": {error}"))?;
            if !known {
                return Err(format!("\"{word}\" is not an argument that it has"));
            }
        }
        Ok(())
    }
}

/// The number behind a key, within a range.
fn number(value: Option<&str>, range: core::ops::RangeInclusive<u32>) -> Result<u32, String> {
    let number = value
        .and_then(|value| value.parse().ok())
        .filter(|number| range.contains(number));
    number.ok_or_else(|| {
        format!(
            "it wants a number from {} to {}",
            range.start(),
            range.end()
        )
    })
}

/// `on` or `off` behind a key.
fn switch(value: Option<&str>) -> Result<bool, String> {
    match value {
        Some("on") => Ok(true),
        Some("off") => Ok(false),
        _ => Err("it wants on or off".to_string()),
    }
}

/// Runs the commands on the kernel's command line, or the main job. The result
/// is how many things failed.
pub fn run_command_line(machine: &Machine) -> u32 {
    if machine.bad_words > 0 {
        println!("Nothing was run: the command line has mistakes.");
        return machine.bad_words;
    }
    // Words for virtio-mmio may be anywhere: QEMU appends them.
    let words = machine.boot.command_line().split(' ');
    let line: Vec<_> = words
        .filter(|word| !virtio_mmio::is_parameter(word))
        .collect();
    let line = line.join(" ");
    let line = if line.trim().is_empty() {
        MAIN_JOB
    } else {
        &line
    };
    run(machine, line)
}

/// Runs the commands in a line, separated by `;`. All are read before the first
/// one runs: a line with a mistake in it does nothing else.
pub fn run(machine: &Machine, line: &str) -> u32 {
    match parse_all(line) {
        Ok(jobs) => run_jobs(machine, jobs),
        Err(message) => {
            fail("command", message);
            println!("Nothing was run. \"help\" lists the commands.");
            1
        }
    }
}

/// Reads the commands in a line, and runs none.
///
/// # Errors
///
/// What is wrong with the first that is wrong, in words.
pub fn check(line: &str) -> Result<(), String> {
    parse_all(line).map(drop)
}

fn run_jobs(machine: &Machine, jobs: Vec<(&str, Job)>) -> u32 {
    let one = |(text, job): (&str, Job)| {
        Record::Command { command: text }.emit();
        job(machine)
    };
    jobs.into_iter().map(one).sum()
}

/// Reads the commands in a line.
fn parse_all(line: &str) -> Result<Vec<(&str, Job)>, String> {
    let mut jobs: Vec<(&str, Job)> = Vec::new();
    for text in split(line) {
        // Whoever wants more after it can type it there.
        if jobs
            .last()
            .is_some_and(|(before, _)| *before == shell::COMMAND.name)
        {
            return Err(format!("\"{text}\": \"shell\" has to be the last command"));
        }
        jobs.push((text, parse(text)?));
    }
    Ok(jobs)
}

fn split(line: &str) -> impl Iterator<Item = &str> {
    line.split(';')
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

fn parse(text: &str) -> Result<Job, String> {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let command = COMMANDS.iter().find(|command| command.name == name);
    let command = command.ok_or_else(|| format!("there is no command \"{name}\""))?;
    (command.parse)(&Arguments(words.collect())).map_err(|error| {
        format!(
            "{name}: {error}; usage: {}",
            [name, command.usage].join(" ").trim_end()
        )
    })
}

/// Reports a failure, in words and as a record.
pub fn fail(what: &str, message: String) {
    println!("error: {what}: {message}");
    Record::Error {
        what: what.to_string(),
        message,
    }
    .emit();
}

/// Reports what is not done, and why, in words and as a record.
fn skip(case: &'static str, device: &str, place: Place, reason: String) {
    println!("skipped: {device} at {}: {reason}", place.at());
    Record::Skip {
        case,
        place,
        reason,
    }
    .emit();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).err().unwrap_or_default()
    }

    #[test]
    fn every_command_is_found_and_the_main_job_is_one() {
        for command in COMMANDS {
            let text = if command.name == "crash" {
                "crash panic"
            } else {
                command.name
            };
            assert_eq!(error(text), "");
        }
        assert!(split(MAIN_JOB).all(|text| parse(text).is_ok()));
    }

    #[test]
    fn what_has_a_default_is_an_argument() {
        for command in COMMANDS {
            for (key, default) in command.defaults {
                assert_eq!(error(&format!("{} {key}={default}", command.name)), "");
                assert!(command.usage.contains(&format!("{key}=")), "{key}");
            }
        }
    }

    #[test]
    fn a_mistake_is_named() {
        assert_eq!(error("lspic"), "there is no command \"lspic\"");
        assert!(error("doorbell round=5").contains("\"round=5\" is not an argument"));
        assert!(error("doorbell rounds=x").contains("\"rounds=x\": it wants a number from 1 to"));
        assert!(error("doorbell rounds").contains("it wants a number"));
        assert!(error("doorbell rounds=0").contains("it wants a number"));
        assert!(error("help me").contains("it takes no arguments"));
        assert!(error("crash").contains("usage: crash"));
        assert!(error("crash null panic").contains("one way"));
        assert!(error("crash null=3").contains("it takes no value"));
        assert_eq!(error("lspci -vn"), "");
        assert!(error("lspci -vx").contains("\"-vx\" is not an argument"));
        assert!(error("lspci -v=junk").contains("\"-v=junk\": it takes no value"));
    }

    #[test]
    fn nothing_comes_after_the_shell() {
        let error = parse_all("shell; lspci").err().unwrap_or_default();
        assert_eq!(error, "\"lspci\": \"shell\" has to be the last command");
        assert!(parse_all("lspci; shell").is_ok_and(|jobs| jobs.len() == 2));
    }

    #[test]
    fn commands_are_separated_by_semicolons() {
        let texts: Vec<_> = split(" lspci -v ;; doorbell rounds=50; ").collect();
        assert_eq!(texts, ["lspci -v", "doorbell rounds=50"]);
    }
}
