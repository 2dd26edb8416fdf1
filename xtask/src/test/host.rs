//! Cargo's own tests: the units of every package, and the examples in the docs.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::report::Report;
use crate::image;
use crate::setup::toolchain;

/// Runs `cargo test --workspace`, its words going to `cargo-test.log`.
pub(crate) fn run(folder: &Path) -> Result<Report> {
    let path = folder.join("cargo-test.log");
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    toolchain::clean(&mut command, false);
    let status = command
        .args(["test", "--workspace", "--no-fail-fast"])
        .current_dir(image::workspace())
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the log")?)
        .stderr(log)
        .status()
        .context("cannot execute cargo")?;
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let mut report = read(&text);
    if !status.success() && report.failed() == 0 {
        let error = text.lines().find(|line| line.starts_with("error"));
        report.fail(
            "",
            format!(
                "cargo test ended with {status}: {}; see {}",
                error.unwrap_or("no error named"),
                path.display()
            ),
        );
    }
    Ok(report)
}

/// Counts `test result:` lines, and names the tests that failed.
fn read(log: &str) -> Report {
    let mut report = Report::default();
    let mut failed = 0;
    let mut names = Vec::new();
    for line in log.lines() {
        if let Some(counts) = line.strip_prefix("test result: ") {
            report.passed += number(counts, "passed");
            failed += number(counts, "failed");
            for _ in 0..number(counts, "ignored") {
                report.skip("ignored", "marked so in the source");
            }
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|line| line.strip_suffix(" ... FAILED"))
        {
            names.push(name);
        }
    }
    for n in 0..failed.max(names.len()) {
        let name = names.get(n).copied().unwrap_or("(a test without a name)");
        report.fail(name, "see cargo-test.log");
    }
    report
}

/// The number before `word` in `ok. 39 passed; 0 failed; ...`.
fn number(counts: &str, word: &str) -> usize {
    let mut words = counts.split([' ', ';']).filter(|word| !word.is_empty());
    let mut last = "";
    words
        .find_map(|next| {
            let before = std::mem::replace(&mut last, next);
            (next == word).then(|| before.parse().unwrap_or(0))
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_binaries_add_up() {
        let log = "running 3 tests\ntest a ... ok\ntest b::c ... FAILED\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
            test result: ok. 39 passed; 0 failed; 1 ignored; 0 measured; 5 filtered out; finished in 3s\n";
        let report = read(log);
        assert_eq!(report.total(), "41 passed, 1 failed, 1 skipped");
        assert!(report.lines("host").contains("FAIL host/b::c"));
    }

    #[test]
    fn a_failure_without_a_name_counts() {
        let report = read("test result: FAILED. 0 passed; 2 failed; 0 ignored");
        assert_eq!(report.failed(), 2);
        assert_eq!(
            read("error: could not compile").total(),
            "0 passed, 0 failed, 0 skipped"
        );
    }
}
