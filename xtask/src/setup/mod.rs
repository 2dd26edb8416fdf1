//! Set-up: find QEMU and a Rust for the bare-metal target; install what is
//! missing where we know how, or say how.

pub(crate) mod package;
pub(crate) mod system;
pub(crate) mod toolchain;

use std::path::PathBuf;

use anyhow::{Result, bail};

use self::system::{Apt, QEMU_PACKAGE, System};
use self::toolchain::{Toolchain, Way};
use crate::qemu::host::{QEMU, QEMU_VARIABLE, find_program, find_qemu};
use crate::say;

/// How to set up; the same for every command that does it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SetupArgs {
    /// Install nothing: print the commands that would, and stop if something is missing
    #[arg(long)]
    pub(crate) no_install: bool,
    /// How to come by Rust for the bare-metal target
    #[arg(
        long,
        value_enum,
        value_name = "WAY",
        default_value = "auto",
        env = "DOORBELL_TOOLCHAIN"
    )]
    pub(crate) toolchain: Way,
}

/// Finds QEMU, installing it if need be.
///
/// # Errors
/// When it isn't there and doesn't get there.
pub(crate) fn qemu(args: &SetupArgs) -> Result<PathBuf> {
    check_variable()?;
    if let Some(qemu) = find_qemu() {
        return Ok(qemu);
    }
    may_install(args, true, false)?;
    install_qemu()
}

/// Finds QEMU and a toolchain, installing them if need be.
///
/// # Errors
/// When one of them isn't there and doesn't get there.
pub(crate) fn everything(args: &SetupArgs) -> Result<(PathBuf, Toolchain)> {
    check_variable()?;
    let qemu = find_qemu();
    let toolchain = toolchain::look(args.toolchain, toolchain::TARGET);
    if qemu.is_none() || toolchain.is_err() {
        may_install(args, qemu.is_none(), toolchain.is_err())?;
    }
    let qemu = qemu.map_or_else(install_qemu, Ok)?;
    let toolchain = match toolchain {
        Ok(found) => found,
        Err(why) => {
            say::note(format!("{why:#}"));
            let found = toolchain::fetch(args.toolchain, toolchain::TARGET)?;
            say::note(format!("Rust for the guest: {}", found.about));
            found
        }
    };
    Ok((qemu, toolchain))
}

/// Finds a toolchain for a target that only tests and checks need, getting it if need be.
///
/// # Errors
/// When it isn't there and doesn't get there.
pub(crate) fn target(args: &SetupArgs, target: &'static str) -> Result<Toolchain> {
    toolchain::look(args.toolchain, target).or_else(|why| {
        if args.no_install {
            return Err(why.context(format!(
                "`rustup target add {target}` would help, and --no-install was given"
            )));
        }
        toolchain::fetch(args.toolchain, target)
    })
}

/// Finds QEMU for riscv64, installing it if need be.
///
/// # Errors
/// When it isn't there and doesn't get there.
pub(crate) fn qemu_riscv64(args: &SetupArgs) -> Result<PathBuf> {
    const NAME: &str = "qemu-system-riscv64";
    let why =
        format!("the tests on a machine without IO ports run in {NAME}, which is not on the PATH");
    package("qemu-system-misc", NAME, &why, args)
}

/// `cargo xtask setup`.
///
/// # Errors
/// When something is missing and stays so.
pub(crate) fn main(args: &SetupArgs) -> Result<()> {
    let (qemu, toolchain) = everything(args)?;
    say::note(format!("QEMU: {}", qemu.display()));
    say::note(format!("Rust for the guest: {}", toolchain.about));
    say::note("everything is there; next: cargo xtask run");
    Ok(())
}

fn check_variable() -> Result<()> {
    match std::env::var_os(QEMU_VARIABLE) {
        Some(path) if !path.is_empty() && find_qemu().is_none() => bail!(
            "{QEMU_VARIABLE} names {}, which is no file; name QEMU's binary there, or unset it",
            PathBuf::from(path).display()
        ),
        _ => Ok(()),
    }
}

/// Says what is missing; stops where we must not or can't install it.
fn may_install(args: &SetupArgs, qemu: bool, target: bool) -> Result<()> {
    let system = System::here();
    let reason = if args.no_install {
        Some("--no-install".to_owned())
    } else if system != System::Debian {
        Some("only Debian and Ubuntu are set up automatically".to_owned())
    } else if qemu {
        Apt::new().err().map(|error| error.to_string())
    } else {
        None
    };
    let Some(reason) = reason else { return Ok(()) };
    let mut message = format!("something is missing, and is not installed ({reason}).");
    if qemu {
        message += &format!(
            "\n  {QEMU} is not on the PATH. Install it with\n    {}",
            system.qemu_command()
        );
    }
    if target {
        let ways = system
            .target_commands()
            .join("\n  or, where that cannot be had,\n    ");
        message += &format!(
            "\n  Rust cannot build for {}. Install it with\n    {ways}",
            toolchain::TARGET
        );
    }
    bail!("{message}\nThen run this again.")
}

/// Finds curl, which the tests of the guest's HTTP server fetch with, installing it if
/// need be.
///
/// # Errors
/// When it isn't there and doesn't get there.
pub(crate) fn curl(args: &SetupArgs) -> Result<PathBuf> {
    let why = "the tests of the guest's HTTP server fetch its pages with curl, and it is not on \
               the PATH";
    program("curl", why, args)
}

/// Finds Chromium, which the test of the report page looks at it with, installing it if
/// need be.
///
/// # Errors
/// When it isn't there and doesn't get there.
pub(crate) fn chromium(args: &SetupArgs) -> Result<PathBuf> {
    // It has other names on other systems.
    const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
    if let Some(found) = NAMES.into_iter().find_map(find_program) {
        return Ok(found);
    }
    let why = "the test of the report page looks at it with Chromium, and it is not on the PATH";
    program(NAMES[0], why, args)
}

/// Finds a C++ compiler, which libFuzzer is built with, installing one if need be.
///
/// # Errors
/// When it isn't there and doesn't get there.
pub(crate) fn cxx(args: &SetupArgs) -> Result<PathBuf> {
    if let Some(found) = ["c++", "clang++"].into_iter().find_map(find_program) {
        return Ok(found);
    }
    let why = "the fuzz targets link libFuzzer, which is C++, and no compiler is on the PATH";
    program("g++", why, args)
}

/// Finds a program that only tests need, installing Debian's package of its name if need
/// be.
fn program(name: &str, why: &str, args: &SetupArgs) -> Result<PathBuf> {
    package(name, name, why, args)
}

/// As [`program`], where Debian's package has another name.
fn package(package: &str, name: &str, why: &str, args: &SetupArgs) -> Result<PathBuf> {
    if let Some(program) = find_program(name) {
        return Ok(program);
    }
    if args.no_install || System::here() != System::Debian {
        bail!("{why}; install it with your system's package manager");
    }
    Apt::new()?.install(&[package.to_owned()], why)?;
    match find_program(name) {
        Some(program) => Ok(program),
        None => bail!("the package {package} is installed, but {name} is not on the PATH"),
    }
}

fn install_qemu() -> Result<PathBuf> {
    let why = format!("{QEMU} runs the guest, and is not on the PATH");
    Apt::new()?.install(&[QEMU_PACKAGE.to_owned()], &why)?;
    match find_qemu() {
        Some(qemu) => Ok(qemu),
        None => bail!("{QEMU_PACKAGE} is installed, but {QEMU} is not on the PATH"),
    }
}
