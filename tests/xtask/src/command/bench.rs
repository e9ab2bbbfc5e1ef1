//! `cargo xtask bench`: Orlop beside QEMU and bare KVM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use orlop_nested::{Job, Node, NodeOptions, env, host};

use crate::test::cargo;

/// The C library is linked in: the load generator also runs in a guest that has none.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Between these lines of the README is the table.
const TABLE_BEGIN: &str = "<!-- results -->\n";
const TABLE_END: &str = "<!-- end of results -->";

/// Measure Orlop beside QEMU and bare KVM, in one run in the same node
///
/// Builds the product optimised, starts a fresh node, and prints a table of medians. In a virtual node only the ratios mean
/// something.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask bench                         everything
  cargo xtask bench boot memory             two of them
  cargo xtask bench --json results.json     and the results for programs
  cargo xtask bench --keep                  and keep table, plot and exits in benches/")]
pub struct Arguments {
    /// start, boot, firmware, memory, exits, block, formats, net; everything when none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Write the results to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// How often each is measured
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,

    /// Keep table, plot and exits by reason in benches/
    #[arg(long)]
    keep: bool,
}

/// Carries the command out.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    build()?;
    let node = Node::start(&NodeOptions::default())?;
    let outside = node.job_dir().join("bench");
    let inside = if host::has_hardware_kvm() { outside.clone() } else { PathBuf::from("/job/bench") };
    let programs = host::target_dir();
    let bench = programs.join(TARGET).join("release/orlop-bench");
    let mut argv = vec![text(&bench)?, "--runs".to_owned(), arguments.runs.to_string()];
    argv.extend(["--out".to_owned(), text(&inside)?]);
    argv.extend(arguments.names.iter().cloned());
    let job = Job::new(argv).env(env::VMM, text(&programs.join("release/orlop-vmm"))?);
    let code = node.attach(&job, false)?;
    if let Some(json) = &arguments.json
        && outside.join("results.json").exists()
    {
        copy(&outside.join("results.json"), json)?;
    }
    if arguments.keep {
        keep(&outside)?;
    }
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn build() -> Result<()> {
    let vmm = ["build", "--release", "--package", "orlop-vmm"];
    let status = cargo().args(vmm).status().context("failed to start cargo")?;
    ensure!(status.success(), "the product does not build");
    let benches = ["build", "--release", "--package", "orlop-benches", "--target", TARGET];
    let status = cargo().args(benches).env("RUSTFLAGS", "-C target-feature=+crt-static").status();
    ensure!(status.context("failed to start cargo")?.success(), "the benchmarks do not build");
    Ok(())
}

/// Copies what there is of the results into the checkout.
fn keep(results: &Path) -> Result<()> {
    let benches = host::checkout().join("benches");
    for file in ["exits.json", "ratios.png"] {
        if results.join(file).exists() {
            copy(&results.join(file), &benches.join(file))?;
        }
    }
    let table = fs::read_to_string(results.join("table.md")).context("there is no table to keep")?;
    let readme = benches.join("README.md");
    let before = fs::read_to_string(&readme).with_context(|| format!("cannot read {}", readme.display()))?;
    let after =
        with_table(&before, &table).with_context(|| format!("{} has no place for it", readme.display()))?;
    fs::write(&readme, after).with_context(|| format!("cannot write {}", readme.display()))
}

fn with_table(readme: &str, table: &str) -> Option<String> {
    let begin = readme.find(TABLE_BEGIN)? + TABLE_BEGIN.len();
    let end = begin + readme.get(begin..)?.find(TABLE_END)?;
    Some(format!("{}{table}{}", readme.get(..begin)?, readme.get(end..)?))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_takes_the_place_of_the_one_before() {
        let readme = format!("# x\n{TABLE_BEGIN}old\nold\n{TABLE_END}\nrest\n");
        let after = with_table(&readme, "new\n").expect("it has a place");
        assert_eq!(after, format!("# x\n{TABLE_BEGIN}new\n{TABLE_END}\nrest\n"));
        assert_eq!(with_table("# x\n", "new\n"), None);
    }
}
