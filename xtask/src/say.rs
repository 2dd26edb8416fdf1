//! What the tool says about itself: on stderr, so that stdout stays the
//! guest's. A spinner on a terminal, plain lines everywhere else.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Prints one line about what the tool does or found.
pub(crate) fn note(message: impl AsRef<str>) {
    eprintln!("doorbell: {}", message.as_ref());
}

/// Shown from its start until it is dropped.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Says that `what` goes on from now.
    pub(crate) fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        if !std::io::stderr().is_terminal() {
            note(format!("{what} ..."));
            return Self(None);
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        bar.set_style(
            ProgressStyle::with_template("doorbell: {spinner} {msg} ({elapsed})")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(Some(bar))
    }

    /// Replaces the text of a spinner. Elsewhere nothing is printed.
    pub(crate) fn update(&self, what: impl Into<String>) {
        if let Some(bar) = &self.0 {
            bar.set_message(what.into());
        }
    }

    /// Says that one of several things begins, where there is no spinner.
    pub(crate) fn begin(&self, what: &str) {
        if self.0.is_none() {
            note(format!("{what} ..."));
        }
    }

    /// Prints a line to stdout without tearing the spinner.
    pub(crate) fn print(&self, line: impl AsRef<str>) {
        match &self.0 {
            Some(bar) => bar.suspend(|| println!("{}", line.as_ref())),
            None => println!("{}", line.as_ref()),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
