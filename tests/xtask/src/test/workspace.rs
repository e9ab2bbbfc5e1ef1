//! Tests that need no guest: unit, conformance, golden, and the rules of the house.

use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};

use super::tally::{Tally, Verdict};
use super::{CLUSTER_PREFIX, SELECTION, cargo};

/// `cargo test` over everything but the guests and the cluster.
pub fn run(filter: Option<&str>) -> io::Result<Tally> {
    let mut cargo = cargo();
    harness(cargo.arg("test").args(SELECTION), &["--skip", CLUSTER_PREFIX], filter)
}

/// Runs a `cargo test` and counts what it says.
pub fn harness(cargo: &mut Command, more: &[&str], filter: Option<&str>) -> io::Result<Tally> {
    let mut child = cargo
        .args(["--quiet", "--no-fail-fast", "--"])
        // One line per test, which `--quiet` alone would make one dot.
        .args(["--format", "pretty"])
        .args(more)
        .args(filter)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut tally = Tally::default();
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        match Verdict::parse(&line) {
            Some(verdict) => {
                tally += Tally::one(verdict.passed);
                if !verdict.passed || filter.is_some() {
                    println!("{line}");
                }
            }
            None if is_noise(&line) => {}
            None => println!("{line}"),
        }
    }
    if !child.wait()?.success() && tally.failed == 0 {
        println!("cargo test did not get to run all tests: see above");
        tally += Tally::one(false);
    }
    Ok(tally)
}

/// Lines that say nothing when there are a hundred of them.
fn is_noise(line: &str) -> bool {
    line.is_empty() || line.starts_with("running ") || line.starts_with("test result: ok.")
}
