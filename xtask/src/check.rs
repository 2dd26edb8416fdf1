//! `cargo xtask check`: formatting, clippy for host and guest, the docs; all
//! with warnings denied.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::image::{self, KERNEL, TESTS};
use crate::say;
use crate::setup::toolchain::{self, Toolchain};
use crate::setup::{self, SetupArgs};

const DENY: [&str; 3] = ["--", "-D", "warnings"];

/// Runs every check, and says at the end which failed.
///
/// # Errors
/// When one fails, or can't be run.
pub(crate) fn main(args: &SetupArgs) -> Result<ExitCode> {
    let (_, guest) = setup::everything(args)?;
    let mut failed = Vec::new();
    let mut step = |name: &'static str, command: Option<Command>| -> Result<()> {
        eprintln!("== {name}");
        let Some(mut command) = command else {
            say::note(format!("skipped: clippy is not part of {}", guest.about));
            return Ok(());
        };
        let status = command
            .current_dir(image::workspace())
            .stdin(Stdio::null())
            .status()
            .context("cannot execute cargo")?;
        if !status.success() {
            failed.push(name);
        }
        Ok(())
    };
    step("formatting", Some(host(&["fmt", "--all", "--check"], &[])))?;
    step(
        "clippy for the host",
        Some(host(&["clippy", "--workspace", "--all-targets"], &DENY)),
    )?;
    step("clippy for the guest", clippy(&guest))?;
    let mut docs = host(&["doc", "--workspace", "--no-deps"], &[]);
    docs.env("RUSTDOCFLAGS", "-Dwarnings");
    step("documentation", Some(docs))?;
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

fn host(words: &[&str], more: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    toolchain::clean(&mut command, false);
    command.args(words).args(more);
    command
}

fn clippy(guest: &Toolchain) -> Option<Command> {
    if !guest.active {
        return None;
    }
    let mut command = guest.cargo("clippy");
    command
        .args([
            "--release",
            "--package",
            KERNEL.name,
            "--package",
            TESTS.name,
        ])
        .args(DENY);
    Some(command)
}
