//! Tests against a real Kubernetes: a cluster is brought up for them and taken down after them.

use anyhow::{Context, Result, ensure};
use orlop_cluster::{Cluster, NodeSize};

use super::tally::{Tally, listed};
use super::{CLUSTER_TESTS, cargo, workspace};

/// `admit_*` and the fixture's own tests. A cluster that is up already is used and left up.
pub fn run(filter: Option<&str>) -> Result<Tally> {
    let packages = ["--package", "orlop-controller", "--package", CLUSTER_TESTS, "--all-targets"];
    let built =
        cargo().args(["build", "--quiet"]).args(packages).status().context("failed to start cargo")?;
    ensure!(built.success(), "the cluster's tests do not build");
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
    tests.current_dir(orlop_nested::host::checkout()).args(["test", "--offline", "--package", CLUSTER_TESTS]);
    let tally = workspace::harness(&mut tests, filter);
    if !was_up {
        cluster.down()?;
    }
    Ok(tally?)
}

/// Whether a test has `filter` in its name.
fn any(filter: &str) -> Result<bool> {
    let mut list = cargo();
    list.args(["test", "--quiet", "--package", CLUSTER_TESTS, "--", "--list", "--format", "terse"]);
    let output = list.output().context("failed to start cargo")?;
    Ok(listed(&String::from_utf8_lossy(&output.stdout)).iter().any(|name| name.contains(filter)))
}
