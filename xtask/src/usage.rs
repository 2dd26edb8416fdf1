//! Bad usage that shows only after the options were read, each for itself: as an
//! error, it has the exit status of those that clap finds.

use std::fmt;
use std::process::ExitCode;

/// The exit status of bad usage, clap's own.
const STATUS: u8 = 2;

/// What is wrong with the options.
#[derive(Debug)]
pub(crate) struct BadUsage(pub(crate) String);

impl fmt::Display for BadUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

/// What the tool ends with after an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<BadUsage>() {
        ExitCode::from(STATUS)
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn bad_usage_keeps_its_status_in_a_context() {
        let bad = Err::<(), _>(BadUsage("--x: no".into())).context("cannot begin");
        assert_eq!(exit_code(&bad.unwrap_err()), ExitCode::from(2));
        assert_eq!(exit_code(&anyhow::anyhow!("--x: no")), ExitCode::from(1));
    }
}
