//! What passed and what did not: counted from what the test harness prints.

use std::ops::AddAssign;

/// A sum of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed, and things that stand for one: a lint, a build.
    pub failed: usize,
}

impl Tally {
    /// One thing that passed or did not.
    pub fn one(passed: bool) -> Self {
        Self { passed: passed.into(), failed: (!passed).into() }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// One line of the harness that ends a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The test's name.
    pub test: String,
    /// Whether it passed.
    pub passed: bool,
}

impl Verdict {
    /// Reads `test NAME ... ok` and `test NAME ... FAILED`. A test that is ignored counts as failed: nothing may be
    /// skipped in silence.
    pub fn parse(line: &str) -> Option<Self> {
        let (test, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let test = test.strip_suffix(" - should panic").unwrap_or(test).to_owned();
        let verdict = verdict.split_whitespace().next()?;
        matches!(verdict, "ok" | "FAILED" | "ignored" | "ignored,")
            .then(|| Self { test, passed: verdict == "ok" })
    }
}

/// The names in the output of `TEST-BINARY --list --format terse`.
pub fn listed(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_read_and_other_lines_are_not() {
        let verdict = |test: &str, passed| Some(Verdict { test: test.into(), passed });
        assert_eq!(Verdict::parse("test a::b ... ok"), verdict("a::b", true));
        assert_eq!(Verdict::parse("test a ... FAILED"), verdict("a", false));
        assert_eq!(Verdict::parse("test a - should panic ... ok"), verdict("a", true));
        assert_eq!(Verdict::parse("test slow ... ignored, takes long"), verdict("slow", false));
        assert_eq!(Verdict::parse("test result: ok. 3 passed"), None);
        assert_eq!(Verdict::parse("test a ... "), None);
        assert_eq!(Verdict::parse("running 3 tests"), None);
    }

    #[test]
    fn benchmarks_in_a_list_are_no_tests() {
        assert_eq!(listed("a::b: test\nc: benchmark\n\n"), ["a::b"]);
    }
}
