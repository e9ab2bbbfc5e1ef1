//! `cargo xtask test`: every test that there is.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use orlop_nested::cache::seconds;

use crate::test::tally::Tally;
use crate::test::{cluster, fuzz, guests, lints, workspace};

/// Run all tests, or those whose name contains FILTER
///
/// Levels, cheapest first: format and lints; unit, conformance, golden and house rules (cargo test); parsers under libFuzzer; a real
/// Kubernetes API server; real
/// guests in virtual nodes.
/// All levels are run even if one fails. The last line is the sum, and the exit code is 0 only if nothing failed.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask test                        everything
  cargo xtask test a_huge_chain           the tests whose name contains this, without the lints
  cargo xtask test fuzz::                 parsers under libFuzzer alone
  cargo xtask test firmware::             the guests' tests of one target (tests/vm/README.md lists them)")]
pub struct Arguments {
    /// Only tests whose name contains this (target::name for those with guests); lints are left out
    filter: Option<String>,
}

/// Carries the command out.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let filter = arguments.filter.as_deref();
    let mut sum = Tally::default();
    if filter.is_none() {
        sum += level("format and lints", || Ok(lints::run()?))?;
    }
    sum += level("unit, conformance, golden, house rules", || Ok(workspace::run(filter)?))?;
    sum += level("parsers under libFuzzer", || fuzz::run(filter))?;
    sum += level("a cluster", || cluster::run(filter))?;
    sum += level("guests in virtual nodes", || guests::run(filter))?;
    if sum == Tally::default() {
        println!("\nno test has that in its name");
    }
    println!("\n{sum}");
    Ok(if sum.failed == 0 && sum.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn level(name: &str, run: impl FnOnce() -> Result<Tally>) -> Result<Tally> {
    println!("\n== {name}");
    let began = Instant::now();
    let tally = run()?;
    println!("== {name}: {tally} in {}", seconds(began.elapsed()));
    Ok(tally)
}
