//! `cargo xtask check`: formatting, clippy for host and guest, the docs, all with
//! warnings denied; and the library as the package that would be published.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::image::{self, EMBED, KERNEL, TESTS};
use crate::setup::toolchain::{self, OTHER_TARGETS, Toolchain, VIRT_TARGET};
use crate::setup::{self, SetupArgs};
use crate::{say, virt};

const DENY: [&str; 3] = ["--", "-D", "warnings"];
/// The compiler's own warnings. Cargo appends this to the flags that the target
/// has in `.cargo/config.toml`; RUSTFLAGS would replace them.
const DENY_IN_GUEST: &str = r#"target.x86_64-unknown-none.rustflags=["-Dwarnings"]"#;
/// What makes the test image part of its package.
const IMAGE: &str = "doorbell-tests/image";
/// What makes the library's fakes part of it.
const FAKES: &str = "doorbell/test-utils";

/// Runs every check, and says at the end which failed.
///
/// # Errors
/// When one fails, or can't be run.
pub(crate) fn main(args: &SetupArgs) -> Result<ExitCode> {
    let (_, guest) = setup::everything(args)?;
    let mut failed = Vec::new();
    let mut step = |name: &str, mut command: Command| -> Result<()> {
        eprintln!("== {name}");
        let status = command
            .current_dir(image::workspace())
            .stdin(Stdio::null())
            .status()
            .context("cannot execute cargo")?;
        if !status.success() {
            failed.push(name.to_owned());
        }
        Ok(())
    };
    step("formatting", host(&["fmt", "--all", "--check"], &[]))?;
    let all = ["clippy", "--workspace", "--all-targets"];
    step("clippy for the host", host(&all, &DENY))?;
    let image = [&all[..], &["--features", IMAGE]].concat();
    step("clippy for the test image on the host", host(&image, &DENY))?;
    // The fakes as another crate gets them, without `cfg(test)`, and those of
    // upstream's drivers that need no allocator.
    let fakes = [
        "clippy",
        "--package",
        "doorbell",
        "--features",
        "test-utils,virtio-drivers",
    ];
    step("clippy for the library's fakes", host(&fakes, &DENY))?;
    let ours = [
        "--package",
        KERNEL.name,
        "--package",
        TESTS.name,
        "--features",
        IMAGE,
    ];
    // By itself: the unikernel's features would give it a library that allocates.
    let embed = ["--package", EMBED.name];
    if guest.active {
        step(
            "clippy for the guest",
            for_guest(&guest, "clippy", &ours, &DENY),
        )?;
        let clippy = for_guest(&guest, "clippy", &embed, &DENY);
        step("clippy for the foreign kernel", clippy)?;
    } else {
        say::note(format!(
            "no clippy for the guest with {}: the compiler's warnings only",
            guest.about
        ));
        let deny = ["--config", DENY_IN_GUEST];
        let check = for_guest(&guest, "check", &ours, &deny);
        step("the compiler's warnings for the guest", check)?;
        let check = for_guest(&guest, "check", &embed, &deny);
        step("the compiler's warnings for the foreign kernel", check)?;
    }
    for target in OTHER_TARGETS {
        others(args, target, &mut step)?;
    }
    let doc = ["doc", "--workspace", "--no-deps", "--features", FAKES];
    let mut doc = host(&doc, &[]);
    doc.env("RUSTDOCFLAGS", "-Dwarnings");
    step("documentation", doc)?;
    // Built from what is in the package alone. The steps above have fetched all it takes.
    let package = [
        "package",
        "--package",
        "doorbell",
        "--allow-dirty",
        "--offline",
    ];
    step("the library's package", host(&package, &[]))?;
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// The library, without features, for a target that is not the guest's; and what runs on
/// that.
fn others(
    args: &SetupArgs,
    target: &'static str,
    step: &mut dyn FnMut(&str, Command) -> Result<()>,
) -> Result<()> {
    let toolchain = match setup::target(args, target) {
        Ok(toolchain) => toolchain,
        Err(why) => {
            say::note(format!("skipped: the library for {target}: {why:#}"));
            return Ok(());
        }
    };
    let deny = format!(r#"target.{target}.rustflags=["-Dwarnings"]"#);
    let (subcommand, deny) = match toolchain.active {
        true => ("clippy", DENY.to_vec()),
        // Another compiler's clippy is not there.
        false => ("check", vec!["--config", &deny]),
    };
    let library = for_guest(&toolchain, subcommand, &["--package", "doorbell"], &deny);
    step(
        &format!("{subcommand} of the library for {target}"),
        library,
    )?;
    if target == VIRT_TARGET {
        let words = virt::formatting();
        let formatting = host(&words.each_ref().map(String::as_str), &[]);
        step("formatting of the kernel without IO ports", formatting)?;
        let mut kernel = virt::cargo(&toolchain, subcommand);
        kernel.args(&deny);
        step(
            &format!("{subcommand} for the kernel without IO ports"),
            kernel,
        )?;
    }
    Ok(())
}

fn host(words: &[&str], more: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    toolchain::clean(&mut command, false);
    command.args(words).args(more);
    command
}

fn for_guest(guest: &Toolchain, subcommand: &str, words: &[&str], more: &[&str]) -> Command {
    let mut command = guest.cargo(subcommand);
    command.arg("--release").args(words).args(more);
    command
}
