//! What the cases of a test run say, added up.

use std::fmt::Write;
use std::time::Duration;

/// Passed, failed and skipped checks of one case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    /// How long the case took.
    pub(crate) took: Duration,
    failures: Vec<Item>,
    skips: Vec<Item>,
    /// What is worth knowing of a case that passed.
    notes: Vec<String>,
}

/// The reports of a whole run.
#[derive(Debug, Default)]
pub(crate) struct Total {
    passed: usize,
    skipped: usize,
    /// The lines of what failed.
    failures: Vec<String>,
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

    /// Adds a line for people.
    pub(crate) fn note(&mut self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    pub(crate) fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Adds another report's counts and items.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
        self.notes.extend(other.notes);
    }

    /// The case's lines: what failed, what was skipped, and whether it passed. What was
    /// skipped for the same reason is one line.
    pub(crate) fn lines(&self, case: &str) -> String {
        let mut text = String::new();
        for line in self.failures(case) {
            let _ = writeln!(text, "{line}");
        }
        for (at, item) in self.skips.iter().enumerate() {
            let alike = |other: &&Item| other.why == item.why;
            if self.skips[..at].iter().any(|before| alike(&before)) {
                continue;
            }
            let _ = write!(text, "SKIP {}", item.named(case));
            let more = self.skips[at + 1..].iter().filter(alike).count();
            if more > 0 {
                let _ = write!(text, " and {more} more");
            }
            let _ = writeln!(text, ": {}", item.why);
        }
        if self.failures.is_empty() && self.passed > 0 {
            let checks = if self.passed == 1 { "check" } else { "checks" };
            let seconds = self.took.as_secs();
            let _ = writeln!(text, "PASS {case} ({} {checks}, {seconds} s)", self.passed);
        }
        for note in &self.notes {
            let _ = writeln!(text, "     {note}");
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// The same with each skipped check on a line.
    pub(crate) fn in_full(&self, case: &str) -> String {
        let mut text = String::new();
        for line in self.failures(case) {
            let _ = writeln!(text, "{line}");
        }
        for item in &self.skips {
            let _ = writeln!(text, "SKIP {}: {}", item.named(case), item.why);
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text + &self.total() + "\n"
    }

    /// Its counts, in words.
    pub(crate) fn total(&self) -> String {
        totals(self.passed, self.failures.len(), self.skips.len())
    }

    fn failures(&self, case: &str) -> impl Iterator<Item = String> {
        self.failures
            .iter()
            .map(move |item| format!("FAIL {}: {}", item.named(case), item.why))
    }
}

impl Item {
    /// A check without a name is its whole case.
    fn named(&self, case: &str) -> String {
        match self.name.as_str() {
            "" => case.to_owned(),
            name => format!("{case}/{name}"),
        }
    }
}

impl Total {
    pub(crate) fn add(&mut self, case: &str, report: &Report) {
        self.passed += report.passed;
        self.skipped += report.skips.len();
        self.failures.extend(report.failures(case));
    }

    /// What a test run ends with: what failed, once more, and the line of the totals.
    pub(crate) fn lines(&self) -> String {
        let mut text = String::new();
        for line in &self.failures {
            let _ = writeln!(text, "{line}");
        }
        text + &totals(self.passed, self.failures.len(), self.skipped)
    }

    /// A run in which nothing passed is no success, nor is one with a failure.
    pub(crate) fn is_success(&self) -> bool {
        self.failures.is_empty() && self.passed > 0
    }

    /// Whether no check came to a result: all were skipped.
    pub(crate) fn is_empty(&self) -> bool {
        self.failures.is_empty() && self.passed == 0
    }
}

fn totals(passed: usize, failed: usize, skipped: usize) -> String {
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_something_passed_and_nothing_failed_is_success() {
        let after = |reports: &[&Report]| {
            let mut total = Total::default();
            reports.iter().for_each(|report| total.add("case", report));
            (total.is_success(), total.lines())
        };
        let (mut skipped, mut passed, mut failed) =
            (Report::default(), Report::default(), Report::default());
        skipped.skip("a", "no KVM");
        passed.check("b", Ok(()));
        failed.check("c", Err("wrong".into()));

        assert!(!after(&[]).0);
        assert!(!after(&[&skipped]).0);
        assert!(after(&[&skipped, &passed]).0);
        let (success, lines) = after(&[&skipped, &passed, &failed]);
        assert!(!success);
        assert_eq!(lines, "FAIL case/c: wrong\n1 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn where_all_is_skipped_nothing_was_tested() {
        let mut total = Total::default();
        let mut report = Report::default();
        report.skip("a", "no KVM");
        total.add("case", &report);
        assert!(total.is_empty());
        for result in [Ok(()), Err("wrong".into())] {
            let (mut total, mut report) = (Total::default(), report.clone());
            report.check("b", result);
            total.add("case", &report);
            assert!(!total.is_empty());
        }
    }

    #[test]
    fn a_case_says_what_failed_and_passes_only_whole() {
        let mut report = Report::default();
        report.check("x", Ok(()));
        report.took = Duration::from_secs(9);
        report.note("3 lines");
        assert_eq!(
            report.lines("case"),
            "PASS case (1 check, 9 s)\n     3 lines"
        );
        report.fail("", "died");
        report.skip("y", "old QEMU");
        assert_eq!(
            report.lines("case"),
            "FAIL case: died\nSKIP case/y: old QEMU\n     3 lines"
        );
    }

    #[test]
    fn what_is_skipped_for_one_reason_is_one_line_and_none_is_lost() {
        let mut report = Report::default();
        for (name, why) in [("a", "old"), ("b", "new"), ("c", "old"), ("d", "old")] {
            report.skip(name, why);
        }
        assert_eq!(
            report.lines("case"),
            "SKIP case/a and 2 more: old\nSKIP case/b: new"
        );
        assert_eq!(
            report.in_full("case"),
            "SKIP case/a: old\nSKIP case/b: new\nSKIP case/c: old\nSKIP case/d: old\n\
             0 passed, 0 failed, 4 skipped\n"
        );
    }
}
