//! `cargo xtask`: doorbell's host tool. This file is its table of contents.

mod check;
mod disk;
mod experiment;
mod folder;
mod fuzz;
mod image;
mod lock;
mod pattern;
mod qemu;
mod qmp;
mod record;
mod results;
mod run;
mod sanitize;
mod say;
mod setup;
mod symbols;
mod test;
#[cfg(test)]
mod unsafety;
mod usage;
mod virt;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// doorbell: boot the unikernel in QEMU, see what its devices' doorbells cost, test it
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    disable_help_subcommand = true
)]
#[command(
    after_help = "DOORBELL_QEMU names another QEMU binary than the qemu-system-x86_64 on the PATH."
)]
struct Cli {
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// Install what is missing: QEMU, and Rust for the bare-metal target
    Setup(setup::SetupArgs),
    /// Build the unikernel, boot it, print what it finds, keep the results
    #[command(after_help = qemu::outcome::EXIT_STATUS_HELP)]
    Run(run::RunArgs),
    /// Put the argument's claims to the test on this host; lists them without a name
    Experiment(experiment::ExperimentArgs),
    /// Make report.html of an experiment's results anew; results.json stays as it is
    Report(experiment::ReportArgs),
    /// Compare two results of `experiment`: what changed, and whether it is noise
    #[command(after_help = experiment::compare::EXIT_STATUS_HELP)]
    Compare(experiment::compare::CompareArgs),
    /// Run all tests: on the host, in guests, and of this tool
    #[command(after_help = test::EXIT_STATUS_HELP)]
    Test(test::TestArgs),
    /// Let a fuzzer make up what devices, firmware and users say
    Fuzz(fuzz::FuzzArgs),
    /// Run the library's and the kernel's tests with AddressSanitizer
    Sanitize,
    /// Check formatting, clippy and the documentation, with warnings denied
    Check(setup::SetupArgs),
}

fn main() -> ExitCode {
    let result = match &Cli::parse().command {
        Do::Setup(args) => setup::main(args).map(|()| ExitCode::SUCCESS),
        Do::Run(args) => run::main(args),
        Do::Experiment(args) => experiment::main(args),
        Do::Report(args) => experiment::report_again(args).map(|()| ExitCode::SUCCESS),
        Do::Compare(args) => experiment::compare::main(args),
        Do::Test(args) => test::main(args),
        Do::Fuzz(args) => fuzz::main(args),
        Do::Sanitize => sanitize::main(),
        Do::Check(args) => check::main(args),
    };
    result.unwrap_or_else(|error: anyhow::Error| {
        say::note(format!("error: {error:#}"));
        usage::exit_code(&error)
    })
}
