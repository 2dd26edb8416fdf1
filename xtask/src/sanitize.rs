//! `cargo xtask sanitize`: the tests of the packages that touch memory by address, with
//! LLVM's AddressSanitizer, which sees accesses outside of what was allocated, or after
//! it was freed.
//!
//! The runtime comes with the stable toolchain; the compiler's option is for those who
//! ask for unstable ones. Miri would see more, and is a component of nightly toolchains
//! alone. The standard library's own checks of what unsafe functions are given are on
//! in each build for tests anyway.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::fuzz;
use crate::image;
use crate::setup::toolchain;

/// What is tested.
const PACKAGES: [&str; 3] = ["doorbell", "doorbell-boot", "doorbell-kernel"];
const FLAGS: &str = "-Zsanitizer=address";
/// A leak is no error: memory that a device may still write to is never freed. Nor is
/// it to ask for more memory than there is: tests do.
const OPTIONS: &str = "detect_leaks=0:allocator_may_return_null=1";

/// Builds and runs the tests.
///
/// # Errors
/// When cargo can't be executed.
pub(crate) fn main() -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    toolchain::clean(&mut command, false);
    command
        .current_dir(image::workspace())
        .args(["test", "--lib", "--features", "doorbell/test-utils"])
        .args(PACKAGES.iter().flat_map(|package| ["--package", package]))
        // With a target of its own the flags are not for build scripts and macros.
        .args(["--target", &fuzz::triple()?, "--target-dir"])
        .arg(image::target_folder().join("sanitize"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", FLAGS)
        .env("ASAN_OPTIONS", OPTIONS)
        .stdin(Stdio::null());
    let status = command.status().context("cannot execute cargo")?;
    Ok(match status.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
