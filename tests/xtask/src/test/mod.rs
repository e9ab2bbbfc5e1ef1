//! The levels of `cargo xtask test`, cheapest first.

pub mod cluster;
pub mod fuzz;
pub mod guests;
pub mod lints;
pub mod tally;
pub mod workspace;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use orlop_nested::host;

/// Cargo, in the checkout.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(host::checkout());
    cargo
}

/// The package of the tests that boot guests.
pub const GUEST_TESTS: &str = "orlop-vm-tests";

/// Tests that need a cluster have names that begin so.
pub const CLUSTER_PREFIX: &str = "admit_";

/// What cargo builds and tests in every level but the guests': a choice of its own in each would have features of its own, and
/// everything would be built again.
pub const SELECTION: [&str; 3] = ["--workspace", "--exclude", GUEST_TESTS];

/// Builds the programs and tests of [`SELECTION`]: nothing to do where an earlier level has.
pub fn build_selection() -> Result<()> {
    let built = cargo().args(["build", "--quiet"]).args(SELECTION).args(["--bins", "--tests"]).status();
    ensure!(built.context("failed to start cargo")?.success(), "the product does not build");
    Ok(())
}

/// The binaries of the product, as cargo's dev profile builds them.
pub fn product(name: &str) -> PathBuf {
    host::target_dir().join("debug").join(name)
}

/// The guest that attacks devices, which has a profile of its own.
pub fn probe() -> PathBuf {
    host::target_dir().join("probe/orlop-probe")
}
