//! A test runner for kernels: it prints a line a test to whatever takes text, a
//! record a test for programs, and a total.
//!
//! It has no ties to a kernel: no allocator, no statics, no unwinding. A test is
//! a function or closure that returns an [`Outcome`]; it fails by returning, so
//! that the next one still runs.
//!
//! ```
//! use doorbell_tests::{Runner, ensure, skip};
//!
//! let mut serial = String::new(); // anything that is `core::fmt::Write`
//! let mut runner = Runner::new(&mut serial);
//! runner.run("arithmetic/adds", || {
//!     ensure!(1 + 1 == 2, "1 + 1 is {}", 1 + 1);
//!     Ok(())
//! });
//! runner.run("arithmetic/on a big machine", || skip!("this machine has 64 bits"));
//! assert!(runner.finish());
//! assert!(serial.contains("PASS arithmetic/adds\n"));
//! assert!(serial.ends_with("1 passed, 0 failed, 1 skipped\n"));
//! ```
#![cfg_attr(not(test), no_std)]
#![allow(
    clippy::result_large_err,
    reason = "a reason is text, there is no allocator to keep it, and a test fails once"
)]

use core::fmt::{self, Write};

mod text;

pub use text::Text;

/// What a test says: `Ok` passed, [`Stop`] did not.
pub type Outcome = Result<(), Stop>;

/// Why a test stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Something was not as it has to be.
    Failed(Text),
    /// The test cannot run here.
    Skipped(Text),
}

/// An error that a test's `?` meets fails the test.
impl<E: core::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(Text::new(format_args!("{error}")))
    }
}

impl Stop {
    /// A failure with this reason.
    pub fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(Text::new(format_args!("{reason}")))
    }
}

/// Fails the test unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::Stop::Failed($crate::Text::new(format_args!($($reason)+))));
        }
    };
}

/// Ends the test: it cannot run here.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {
        return Err($crate::Stop::Skipped($crate::Text::new(format_args!($($reason)+))))
    };
}

/// Runs tests, reports each, and counts.
pub struct Runner<'w> {
    to: &'w mut dyn Write,
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl<'w> Runner<'w> {
    /// A runner that reports to `to`.
    pub fn new(to: &'w mut dyn Write) -> Self {
        Self {
            to,
            passed: 0,
            failed: 0,
            skipped: 0,
        }
    }

    /// Runs a test. Its name is a path, `blk/read`: parts from the general to
    /// the special.
    pub fn run(&mut self, name: impl fmt::Display, test: impl FnOnce() -> Outcome) {
        match test() {
            Ok(()) => {
                self.passed += 1;
                self.report("PASS", "pass", &name, None);
            }
            Err(Stop::Failed(reason)) => {
                self.failed += 1;
                self.report("FAIL", "fail", &name, Some(&reason));
            }
            Err(Stop::Skipped(reason)) => {
                self.skipped += 1;
                self.report("SKIP", "skip", &name, Some(&reason));
            }
        }
    }

    fn report(&mut self, word: &str, result: &str, name: &dyn fmt::Display, reason: Option<&Text>) {
        // Where a report cannot be written there is nowhere to say so; the
        // counts still are right.
        let _ = match reason {
            None => writeln!(
                self.to,
                "{word} {name}\n@{{\"v\":1,\"kind\":\"test\",\"name\":\"{}\",\"result\":\"{result}\"}}",
                text::Json(name)
            ),
            Some(reason) => writeln!(
                self.to,
                "{word} {name}: {reason}\n@{{\"v\":1,\"kind\":\"test\",\"name\":\"{}\",\"result\":\"{result}\",\"reason\":\"{}\"}}",
                text::Json(name),
                text::Json(reason)
            ),
        };
    }

    /// How many tests failed so far.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Prints the total. The run is a success if no test failed and at least one
    /// passed: a run that skipped everything has shown nothing.
    pub fn finish(self) -> bool {
        let Self {
            to,
            passed,
            failed,
            skipped,
        } = self;
        let _ = writeln!(to, "{passed} passed, {failed} failed, {skipped} skipped");
        failed == 0 && passed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tests: &[fn() -> Outcome]) -> (bool, String) {
        let mut text = String::new();
        let mut runner = Runner::new(&mut text);
        for (number, test) in tests.iter().enumerate() {
            runner.run(format_args!("t/{number}"), test);
        }
        (runner.finish(), text)
    }

    fn passes() -> Outcome {
        Ok(())
    }

    fn fails() -> Outcome {
        ensure!(1 == 2, "it is \"{}\"", 1);
        Ok(())
    }

    fn skips() -> Outcome {
        skip!("no {}", "device")
    }

    #[test]
    fn a_failure_fails_the_run_and_the_others_still_run() {
        let (success, text) = run(&[fails, passes, skips]);
        assert!(!success);
        assert!(text.starts_with(
            "FAIL t/0: it is \"1\"\n\
             @{\"v\":1,\"kind\":\"test\",\"name\":\"t/0\",\"result\":\"fail\",\"reason\":\"it is \\\"1\\\"\"}\n"
        ));
        assert!(text.contains("SKIP t/2: no device\n"));
        assert!(text.ends_with("\n1 passed, 1 failed, 1 skipped\n"));
    }

    #[test]
    fn all_skipped_is_no_success() {
        assert!(!run(&[skips, skips]).0);
        assert!(!run(&[]).0);
        assert!(run(&[skips, passes]).0);
    }

    #[test]
    fn an_error_fails_the_test() {
        let (success, text) = run(&[|| {
            "x".parse::<u8>()?;
            Ok(())
        }]);
        assert!(!success);
        assert!(text.contains("FAIL t/0: invalid digit"), "{text}");
    }
}
