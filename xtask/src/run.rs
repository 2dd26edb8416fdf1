//! `cargo xtask run`: set up, build, launch, keep the results.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::image::{self, Image, KERNEL};
use crate::qemu::devices::{self, Doorbells, Group, Network, PORTS};
use crate::qemu::host::{self, Choice, QEMU, find_qemu};
use crate::qemu::input::{Input, Keyboard};
use crate::qemu::launch::{Echo, Launch, launch};
use crate::qemu::outcome::Outcome;
use crate::qemu::{self, Accelerator, Files, Firmware, Machine, Options};
use crate::setup::{self, SetupArgs};
use crate::usage::BadUsage;
use crate::{folder, results, say, symbols};

/// The devices that a run has unless it is told otherwise.
const DEVICES: [Group; 6] = [
    Group::Disks,
    Group::Entropy,
    Group::Testdev,
    Group::Net,
    Group::Console,
    Group::Balloon,
];
/// The port of the guest's HTTP server, unless its command says another.
const HTTP_PORT: u16 = 80;

/// How long a guest may be silent unless the user says otherwise.
const SILENCE_SECONDS: u64 = 120;

/// The options of `run`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// QEMU's machine
    #[arg(long, value_enum, default_value = "q35")]
    machine: Machine,
    /// What runs before the guest [default: qboot; with --load seabios]
    #[arg(long, value_enum)]
    firmware: Option<Firmware>,
    /// What executes the guest
    #[arg(long, value_enum, default_value = "auto")]
    accel: Choice,
    /// The guest's memory in MiB; with less than 4, firmware has nowhere to load it
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(4..))]
    mem: u32,
    /// Leave out the default devices: disks, entropy, pci-testdev, network, console, balloon
    #[arg(long)]
    no_devices: bool,
    /// Instead of the default devices a disk and an adapter that do nothing, for the guest
    /// commands blk and netperf
    #[arg(long, conflicts_with = "no_devices")]
    load: bool,
    /// The version of virtio-mmio on microvm: 1 (legacy) or 2 [default: 2]
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u8).range(1..=2))]
    mmio_version: Option<u8>,
    /// Let the virtio devices offer packed rings; the guest takes what it is offered,
    /// except over legacy interfaces, which have none
    #[arg(long)]
    packed: bool,
    /// One more argument for QEMU, verbatim; can be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    qemu_arg: Vec<String>,
    /// Where the results go: a new folder, or an earlier run's, which is overwritten
    /// [default: a new one in target/doorbell]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// End the run when the guest has printed nothing for so long
    /// [default: 120; none if the last guest command is console, or shell at a terminal]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Print QEMU's command line, and do nothing else
    #[arg(long)]
    dry_run: bool,
    /// Boot this image instead of building one
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Show the guest's records too
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    setup: SetupArgs,
    /// Commands for the guest, separated by `;`; without any it does the main job.
    /// `cargo xtask run -- help` lists them.
    /// As the last command, `shell` takes what you type; `console`, `net` and `balloon`
    /// end at a key.
    #[arg(trailing_var_arg = true, value_name = "GUEST COMMANDS")]
    guest: Vec<String>,
}

impl RunArgs {
    fn options(&self, guest: &str) -> Result<Options> {
        if self.mmio_version.is_some() && self.machine != Machine::Microvm {
            bail!(BadUsage(format!(
                "--mmio-version: {} has no virtio-mmio; use --machine microvm",
                self.machine.name()
            )));
        }
        if self.packed && self.mmio_version == Some(1) {
            let why =
                "--packed: version 1 of virtio-mmio is a legacy interface, without packed rings";
            bail!(BadUsage(why.to_owned()));
        }
        Ok(Options {
            machine: self.machine,
            // qboot does not boot a guest where QEMU has a network hub.
            firmware: self.firmware.unwrap_or(match self.load {
                true => Firmware::Seabios,
                false => Firmware::Qboot,
            }),
            accelerator: self.accel.resolve()?,
            memory: self.mem,
            groups: match (self.no_devices, self.load) {
                (true, _) => Vec::new(),
                (false, true) => vec![Group::Load],
                (false, false) => DEVICES.to_vec(),
            },
            doorbells: Doorbells::Eventfd,
            network: match served_port(guest).filter(|_| !self.no_devices && !self.load) {
                None => Network::Closed,
                Some(guest) => Network::Forwarded {
                    host: host::free_port().context("cannot find a free port")?,
                    guest,
                },
            },
            mmio_version: self.mmio_version.unwrap_or(2),
            packed: self.packed,
            extra: self.qemu_arg.clone(),
        })
    }

    /// The folder that the results go to, as far as it is known before it is made.
    fn out(&self, options: &Options) -> Result<PathBuf> {
        let path = self.out.clone().unwrap_or_else(|| folder::default(options));
        std::path::absolute(&path).with_context(|| format!("--out {}", path.display()))
    }

    /// Where input comes from, and how long the guest may be silent.
    fn manners(&self, guest: &str, keyboard: Keyboard) -> (Input, Option<Duration>) {
        let last = last_command(guest);
        let input = match last {
            Some("shell") => Input::of_shell(keyboard),
            Some("balloon" | "console" | "net") => Input::of_key(keyboard),
            _ => Input::Nothing,
        };
        // Nobody types against the clock, unless the clock was asked for; and whoever
        // types at the console's socket may come at any time.
        let patient = match last {
            Some("shell") => input == Input::Terminal,
            Some("console") => true,
            _ => false,
        };
        let default = (!patient).then_some(SILENCE_SECONDS);
        (input, self.timeout.or(default).map(Duration::from_secs))
    }
}

/// The guest's commands, each as its words.
fn commands(guest: &str) -> impl DoubleEndedIterator<Item = std::str::SplitWhitespace<'_>> {
    let commands = guest.split(';').map(str::trim);
    commands
        .filter(|command| !command.is_empty())
        .map(str::split_whitespace)
}

/// The name of the guest's last command.
fn last_command(guest: &str) -> Option<&str> {
    commands(guest).next_back()?.next()
}

/// Whether one of the guest's commands may be the one of this name: in `shell`
/// anything can be typed.
fn may_run(guest: &str, name: &str) -> bool {
    let named = commands(guest).any(|mut words| words.next() == Some(name));
    named || last_command(guest) == Some("shell")
}

/// The port at which the guest serves HTTP, if one of its commands may be `net`.
fn served_port(guest: &str) -> Option<u16> {
    let found = commands(guest).find_map(|mut words| match words.next() {
        Some("net") => {
            let mut ports = words.filter_map(|word| word.strip_prefix("port="));
            Some(
                ports
                    .next_back()
                    .map_or(HTTP_PORT, |port| port.parse().unwrap_or(HTTP_PORT)),
            )
        }
        _ => None,
    });
    found.or(may_run(guest, "net").then_some(HTTP_PORT))
}

/// `cargo xtask run`; its exit status is the guest's verdict.
///
/// # Errors
/// When the guest couldn't be run at all.
pub(crate) fn main(args: &RunArgs) -> Result<ExitCode> {
    let guest = args.guest.join(" ");
    let options = args.options(&guest)?;
    let out = args.out(&options)?;
    if args.dry_run {
        return dry_run(args, &options, &Files::new(out)?, &guest);
    }
    if args.out.is_some() {
        folder::check(&Files::new(out.clone())?, &options)?;
    }

    let (qemu, image) = match &args.kernel {
        Some(path) => (setup::qemu(&args.setup)?, Image::at(path)?),
        None => {
            let (qemu, toolchain) = setup::everything(&args.setup)?;
            (qemu, Image::build(KERNEL, &toolchain)?)
        }
    };
    if options.accelerator == Accelerator::Kvm && !host::hardware_virtualization() {
        say::note(
            "this host has no vmx or svm, so that KVM emulates the guest's CPU in software: \
             the main job takes some minutes",
        );
    }
    let files = match args.out {
        Some(_) => Files::new(out)?,
        None => Files::new(folder::new(&out)?)?,
    };
    folder::fill(&options, &files)?;
    let command = qemu::command_line(&qemu, Some(&image.path), &options, &files, &guest, false)?;
    if let Network::Forwarded { host, guest } = options.network {
        say::note(format!(
            "the guest's port {guest} is http://127.0.0.1:{host}/ while it serves, and \
             {host} of UDP its echo"
        ));
    }
    if options.has(Group::Console) && may_run(&guest, "console") {
        say::note(format!(
            "while the guest's shell is on its console: socat -,raw,echo=0,escape=0x1d \
             UNIX-CONNECT:{} (Ctrl-] leaves socat)",
            files.port("con0", PORTS[0]).display()
        ));
    }
    let (input, silence) = args.manners(&guest, Keyboard::of_stdin());
    let run = Launch {
        command: &command,
        files: &files,
        firmware: None,
        silence,
        total: None,
        input,
        echo: if args.verbose {
            Echo::Everything
        } else {
            Echo::Text
        },
    };
    let ended = launch(&run, &mut |_, _| None)?;

    let outcome = Outcome::of(&ended);
    let world = results::world(&image, &options, &qemu, &command, &ended.records);
    let path = files.results();
    results::write(&path, &results::results(world, &ended, &outcome))?;
    if let Some(message) = outcome.explain(&ended) {
        say::note(message);
        if let Some(places) = symbols::resolve(&image.path, &files.serial()) {
            say::note(format!("the addresses above are in\n{places}"));
        }
    }
    folder::tidy(&options, &files)?;
    println!("{}", path.display());
    Ok(ExitCode::from(outcome.exit_status()))
}

/// Prints the command line as far as it can be known without doing anything.
fn dry_run(args: &RunArgs, options: &Options, files: &Files, guest: &str) -> Result<ExitCode> {
    let qemu = find_qemu().unwrap_or_else(|| QEMU.into());
    let kernel = args.kernel.clone();
    let kernel = kernel.unwrap_or_else(|| image::published(KERNEL));
    let line = qemu::command_line(&qemu, Some(&kernel), options, files, guest, false)?;
    println!("{}", qemu::shell_line(&line));
    if !devices::disks(options).is_empty() {
        say::note("a run makes the disks in that line; --no-devices leaves them out");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_command_decides_about_input() {
        for shell in ["shell", "lspci; shell", "lspci;shell ;", " shell now"] {
            assert_eq!(last_command(shell), Some("shell"), "{shell}");
        }
        for other in ["", "shell; lspci", "lspci", "lspci shell", "shellac"] {
            assert_ne!(last_command(other), Some("shell"), "{other}");
        }
    }

    /// The options of a run without any, and those given.
    fn args(options: &[&str]) -> RunArgs {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            run: RunArgs,
        }
        let words = ["run"].iter().chain(options);
        <Line as clap::Parser>::try_parse_from(words).unwrap().run
    }

    #[test]
    fn who_waits_for_a_key_gets_the_keyboard_if_it_is_there() {
        for guest in ["console", "lspci; net for=25", "balloon for=15"] {
            for (keyboard, input) in [
                (Keyboard::Ours, Input::Terminal),
                (Keyboard::Others, Input::Nothing),
                (Keyboard::None, Input::Nothing),
            ] {
                assert_eq!(args(&[]).manners(guest, keyboard).0, input, "{guest}");
            }
        }
        for guest in ["", "net; lspci", "netperf"] {
            let (input, _) = args(&[]).manners(guest, Keyboard::Ours);
            assert_eq!(input, Input::Nothing, "{guest}");
        }
        let shell = |keyboard| args(&[]).manners("shell", keyboard).0;
        assert_eq!(shell(Keyboard::Ours), Input::Terminal);
        assert_eq!(shell(Keyboard::Others), Input::Terminal);
        assert_eq!(shell(Keyboard::None), Input::Pipe);
    }

    #[test]
    fn who_may_type_at_any_time_has_no_limit_but_the_one_asked_for() {
        let seconds = |options, guest, keyboard| {
            let (_, silence) = args(options).manners(guest, keyboard);
            silence.map(|limit| limit.as_secs())
        };
        for keyboard in [Keyboard::Ours, Keyboard::Others, Keyboard::None] {
            assert_eq!(seconds(&[], "lspci; console", keyboard), None);
            assert_eq!(seconds(&["--timeout", "5"], "console", keyboard), Some(5));
            for guest in ["", "console; lspci", "net", "balloon"] {
                assert_eq!(seconds(&[], guest, keyboard), Some(120), "{guest}");
            }
        }
        assert_eq!(seconds(&[], "shell", Keyboard::Ours), None);
        assert_eq!(
            seconds(&["--timeout", "5"], "shell", Keyboard::Ours),
            Some(5)
        );
        assert_eq!(seconds(&[], "shell", Keyboard::None), Some(120));
    }

    #[test]
    fn in_a_shell_anything_can_be_typed() {
        for guest in ["console", "lspci; console device=1 ;info", "lspci; shell"] {
            assert!(may_run(guest, "console"), "{guest}");
        }
        for guest in ["", "lspci", "consoles", "lspci console"] {
            assert!(!may_run(guest, "console"), "{guest}");
        }
    }

    #[test]
    fn only_a_guest_that_may_serve_gets_a_port() {
        for (guest, port) in [
            ("", None),
            ("lspci; netty", None),
            ("lspci; net", Some(80)),
            ("net pings=0 port=8080; lspci", Some(8080)),
            ("net port=none", Some(80)),
            ("lspci; shell", Some(80)),
        ] {
            assert_eq!(served_port(guest), port, "{guest}");
        }
    }
}
