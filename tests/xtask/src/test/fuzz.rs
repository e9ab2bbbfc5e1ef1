//! Every parser under libFuzzer, guided by coverage, for a bounded number of runs with the same seed each time.
//!
//! The pinned compiler has all that this needs: the coverage pass is LLVM's own, chosen as cargo-fuzz chooses it. No
//! sanitizer, which would need another compiler, and another build of everything: these parsers have no `unsafe`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use orlop_nested::cache::seconds;
use orlop_nested::{Tool, host, require};

use super::tally::Tally;
use super::{build_selection, cargo, product};

/// Compiles libFuzzer.
const GXX: Tool = Tool { program: "g++", package: "g++" };
const PACKAGE: &str = "orlop-fuzz";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// What cargo-fuzz 0.13 gives the compiler for coverage; `-Cdebug-assertions` comes with the profile.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// Runs of each target, its corpus included.
const RUNS: u32 = 20_000;
/// A target that is slow on this machine ends after that many seconds; fewer runs are no failure.
const SECONDS_MAX: u32 = 8;
/// One input that takes longer is a hang, in seconds.
const HANG_SECONDS: u32 = 20;
/// More memory is a failure, in MiB: the largest thing that a parser here allocates at once is 64 MiB.
const MEMORY_MAX_MIB: u32 = 1024;
/// The longest input, in bytes.
const INPUT_MAX_BYTES: u32 = 8192;
/// Programs side by side: each is one thread, or two that wait for each other.
const SIDE_BY_SIDE: usize = 2;

/// Builds the targets, and runs those whose name contains `filter`, each of which counts as one test.
pub fn run(filter: Option<&str>) -> Result<Tally> {
    let mut targets = targets()?;
    targets.retain(|target| filter.is_none_or(|word| format!("fuzz::{target}").contains(word)));
    if targets.is_empty() {
        println!("no target is asked for");
        return Ok(Tally::default());
    }
    let began = Instant::now();
    if let Err(e) = build(&targets) {
        println!("{e:#}");
        return Ok(Tally::one(false));
    }
    println!("built in {}", seconds(began.elapsed()));
    let queue = Mutex::new(VecDeque::from(targets));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        let lane = || {
            let mut tally = Tally::default();
            while let Some(target) = next() {
                tally += Tally::one(fuzz(&target)?);
            }
            anyhow::Ok(tally)
        };
        let lanes: Vec<_> = (0..SIDE_BY_SIDE).map(|_| scope.spawn(lane)).collect();
        let mut tally = Tally::default();
        for lane in lanes {
            tally += lane.join().map_err(|_| anyhow::anyhow!("a lane of the fuzz run panicked"))??;
        }
        Ok(tally)
    })
}

/// The names of the targets: the programs of the package that need libFuzzer.
fn targets() -> Result<Vec<String>> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(host::checkout().join("Cargo.toml"))
        .no_deps()
        .exec()?;
    let package = metadata.packages.iter().find(|package| package.name == PACKAGE);
    let package = package.with_context(|| format!("there is no package {PACKAGE}"))?;
    let programs = package.targets.iter().filter(|target| !target.required_features.is_empty());
    Ok(programs.map(|target| target.name.clone()).collect())
}

/// Where everything of this level is, beside what other levels build with other flags.
fn place() -> PathBuf {
    host::target_dir().join("fuzz")
}

fn build(targets: &[String]) -> Result<()> {
    require(&[GXX])?;
    let corpus = place().join("corpus");
    build_selection()?;
    let status = Command::new(product("corpus")).arg(&corpus).status().context("the corpora's program")?;
    ensure!(status.success(), "the corpora cannot be written to {}", corpus.display());
    // The triple keeps the flags away from build scripts and macros, which run on this machine.
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", PACKAGE, "--features", "libfuzzer"]);
    build.args(["--target", TRIPLE, "--profile", "fuzz", "--target-dir"]).arg(place());
    build.args(targets.iter().flat_map(|target| ["--bin", target]));
    let status = build.env("RUSTFLAGS", FLAGS).status()?;
    ensure!(status.success(), "the fuzz targets do not build");
    Ok(())
}

/// Runs one target; whether it survived. What it did not survive is kept, and said where.
fn fuzz(target: &str) -> Result<bool> {
    let began = Instant::now();
    let [found, crashes] = ["found", "crashes"].map(|kind| place().join(kind).join(target));
    // What a run finds is for itself alone, so that each starts with the same.
    let _ = std::fs::remove_dir_all(&found);
    for directory in [&found, &crashes] {
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let output = command(target, &found, &crashes).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success();
    let verdict = if passed { "ok" } else { "FAILED" };
    println!("fuzz::{target} … {verdict} ({}, {})", runs(&said), seconds(began.elapsed()));
    if !passed {
        let lines: Vec<&str> = said.lines().collect();
        let end = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
        println!("{}\nfuzz::{target}: the input is in {}", end.join("\n"), crashes.display());
    }
    Ok(passed)
}

fn command(target: &str, found: &Path, crashes: &Path) -> Command {
    let mut command = Command::new(place().join(TRIPLE).join("fuzz").join(target));
    command.arg(format!("-runs={RUNS}")).arg(format!("-max_total_time={SECONDS_MAX}"));
    command.args(["-seed=1", "-print_final_stats=1", "-verbosity=1"]);
    command.arg(format!("-timeout={HANG_SECONDS}")).arg(format!("-rss_limit_mb={MEMORY_MAX_MIB}"));
    command.arg(format!("-max_len={INPUT_MAX_BYTES}"));
    command.arg(format!("-artifact_prefix={}/", crashes.display()));
    command.arg(found).arg(place().join("corpus").join(target));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// How many inputs were tried, as libFuzzer counts at its end.
fn runs(said: &str) -> String {
    let count = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    count.map_or_else(|| "no count".to_owned(), |count| format!("{} runs", count.trim()))
}
