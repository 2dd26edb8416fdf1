//! What the cases of a test run say, added up.

use std::fmt::Write;

/// Passed, failed and skipped checks of one case or of a whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    failures: Vec<Item>,
    skips: Vec<Item>,
}

/// A check that did not pass, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    name: String,
    why: String,
}

impl Report {
    /// Counts one check by its result.
    pub(crate) fn check(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(why) => self.fail(name, why),
        }
    }

    pub(crate) fn fail(&mut self, name: &str, why: impl Into<String>) {
        let (name, why) = (name.to_owned(), why.into());
        self.failures.push(Item { name, why });
    }

    pub(crate) fn skip(&mut self, name: &str, why: impl Into<String>) {
        let (name, why) = (name.to_owned(), why.into());
        self.skips.push(Item { name, why });
    }

    pub(crate) fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Adds another report's counts and items.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
    }

    /// The case's lines: what failed, what was skipped, and whether it passed.
    pub(crate) fn lines(&self, case: &str) -> String {
        let mut text = String::new();
        let named = |item: &Item| match item.name.as_str() {
            "" => case.to_owned(),
            name => format!("{case}/{name}"),
        };
        for item in &self.failures {
            let _ = writeln!(text, "FAIL {}: {}", named(item), item.why);
        }
        for item in &self.skips {
            let _ = writeln!(text, "SKIP {}: {}", named(item), item.why);
        }
        if self.failures.is_empty() && self.passed > 0 {
            let checks = if self.passed == 1 { "check" } else { "checks" };
            let _ = writeln!(text, "PASS {case} ({} {checks})", self.passed);
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// The line that a test run ends with.
    pub(crate) fn total(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failures.len(),
            self.skips.len()
        )
    }

    /// A run in which nothing passed is no success, nor is one with a failure.
    pub(crate) fn is_success(&self) -> bool {
        self.failures.is_empty() && self.passed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_something_passed_and_nothing_failed_is_success() {
        let mut report = Report::default();
        assert!(!report.is_success());
        report.skip("a", "no KVM");
        assert!(!report.is_success());
        report.check("b", Ok(()));
        assert!(report.is_success());
        report.check("c", Err("wrong".into()));
        assert!(!report.is_success());
        assert_eq!(report.total(), "1 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_case_says_what_failed_and_passes_only_whole() {
        let mut report = Report::default();
        report.check("x", Ok(()));
        assert_eq!(report.lines("case"), "PASS case (1 check)");
        report.fail("", "died");
        report.skip("y", "old QEMU");
        assert_eq!(
            report.lines("case"),
            "FAIL case: died\nSKIP case/y: old QEMU"
        );
    }
}
