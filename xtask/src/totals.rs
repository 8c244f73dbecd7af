//! The sum over all test binaries of one run, read from the lines that each of them closes with.

use std::fmt;

/// Counts of one or more test binaries.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    /// As the test harness counts: with those that skipped themselves.
    harness_passed: u64,
    pub(crate) failed: u64,
    ignored: u64,
    skipped_themselves: u64,
}

impl Totals {
    /// Takes one line of a test run's output into account; most lines say nothing.
    ///
    /// A test that cannot run here writes `skipped: NAME: WHY` past the test harness, which then counts it as passed:
    /// it is moved to where it belongs.
    pub(crate) fn read(&mut self, line: &str) {
        if line.starts_with("skipped: ") {
            self.skipped_themselves += 1;
        } else if let Some(counts) = line.strip_prefix("test result: ").and_then(closing_counts) {
            self.harness_passed += counts.harness_passed;
            self.failed += counts.failed;
            self.ignored += counts.ignored;
        } else if let Some(counts) = line.trim_start().strip_prefix("Tests  ").and_then(vitest_counts) {
            self.harness_passed += counts.harness_passed;
            self.failed += counts.failed;
            self.ignored += counts.ignored;
        }
    }

    /// One test that ran outside cargo.
    pub(crate) fn count(&mut self, is_good: bool) {
        if is_good { self.harness_passed += 1 } else { self.failed += 1 }
    }

    /// One test outside cargo that could not run here.
    pub(crate) fn skip(&mut self) {
        self.ignored += 1;
    }

    /// Tests that ran and found nothing wrong.
    pub(crate) fn passed(&self) -> u64 {
        self.harness_passed.saturating_sub(self.skipped_themselves)
    }

    fn skipped(&self) -> u64 {
        self.ignored + self.skipped_themselves
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed(), self.failed, self.skipped())
    }
}

/// Reads `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s`.
fn closing_counts(line: &str) -> Option<Totals> {
    let (_verdict, counts) = line.split_once(". ")?;
    let mut totals = Totals::default();
    for part in counts.split("; ") {
        let Some((number, what)) = part.split_once(' ') else { continue };
        match what {
            "passed" => totals.harness_passed = number.parse().ok()?,
            "failed" => totals.failed = number.parse().ok()?,
            "ignored" => totals.ignored = number.parse().ok()?,
            _other => {}
        }
    }
    Some(totals)
}

/// Reads `1 failed | 5 passed | 2 skipped (8)`.
fn vitest_counts(line: &str) -> Option<Totals> {
    let (counts, _all) = line.split_once(" (")?;
    let mut totals = Totals::default();
    for part in counts.split(" | ") {
        let (number, what) = part.split_once(' ')?;
        match what {
            "passed" => totals.harness_passed = number.parse().ok()?,
            "failed" => totals.failed = number.parse().ok()?,
            "skipped" => totals.ignored = number.parse().ok()?,
            _other => {}
        }
    }
    Some(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> String {
        let mut totals = Totals::default();
        lines.iter().for_each(|line| totals.read(line));
        totals.to_string()
    }

    #[test]
    fn binaries_are_summed() {
        let sum = read(&[
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.20s",
        ]);
        assert_eq!(sum, "5 passed, 4 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_skipped_itself_did_not_pass() {
        let sum = read(&[
            "skipped: foreign_client: mosquitto_sub is not installed",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ]);
        assert_eq!(sum, "2 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn tests_in_typescript_count_as_well() {
        let sum = read(&["      Tests  302 passed (302)", "      Tests  1 failed | 5 passed | 2 skipped (8)", " Test Files  3 passed (3)"]);
        assert_eq!(sum, "307 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn other_lines_say_nothing() {
        assert_eq!(read(&["test result", "a test result: ok. 1 passed;", ""]), "0 passed, 0 failed, 0 skipped");
    }
}
