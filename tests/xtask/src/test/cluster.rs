//! Tests against a real Kubernetes: a cluster is brought up for them and taken down after them.

use anyhow::{Context, Result};
use orlop_cluster::{Cluster, NodeSize};
use orlop_nested::host;

use super::tally::{Tally, listed};
use super::{SELECTION, build_selection, cargo, workspace};

/// The test target.
const TARGET: [&str; 2] = ["--test", "admit"];

/// `admit_*`. A cluster that is up already is used and left up.
pub fn run(filter: Option<&str>) -> Result<Tally> {
    build_selection()?;
    if let Some(filter) = filter
        && !any(filter)?
    {
        return Ok(Tally::default());
    }
    let cluster = Cluster::of_checkout();
    let was_up = cluster.is_up();
    if !was_up {
        cluster.up(0, NodeSize::default())?;
    }
    // In the cluster's network, where there is no other.
    let mut tests = cluster.command(cargo().get_program());
    tests.current_dir(host::checkout()).args(["test", "--offline"]).args(SELECTION).args(TARGET);
    let tally = workspace::harness(&mut tests, &[], filter);
    if !was_up {
        cluster.down()?;
    }
    Ok(tally?)
}

/// Whether a test has `filter` in its name.
fn any(filter: &str) -> Result<bool> {
    let mut list = cargo();
    list.args(["test", "--quiet"]).args(SELECTION).args(TARGET).args(["--", "--list", "--format", "terse"]);
    let output = list.output().context("failed to start cargo")?;
    Ok(listed(&String::from_utf8_lossy(&output.stdout)).iter().any(|name| name.contains(filter)))
}
