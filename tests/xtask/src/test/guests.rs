//! Tests that boot guests, in virtual nodes side by side.
//!
//! Two nodes with one processor each use two cores better than one node with two, keep failures apart, and are free of
//! the races of multi-threaded emulation. A test target called `smp` gets a node with two processors of its own.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orlop_nested::cache::seconds;
use orlop_nested::{Job, JobError, Node, NodeOptions, Stream, env};

use super::tally::{Tally, Verdict, listed};
use super::{GUEST_TESTS, build_selection, cargo, probe, product};

/// Longer no target may take: a hang is a failure that names the test.
const TARGET_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A test binary with those of its tests that are to be run.
#[derive(Clone, Debug)]
struct Target {
    name: String,
    binary: PathBuf,
    tests: Vec<String>,
}

/// Builds what the guests' tests need and runs them.
pub fn run(filter: Option<&str>) -> Result<Tally> {
    let targets = match build(filter) {
        Ok(targets) => targets,
        Err(e) => {
            println!("{e:#}");
            return Ok(Tally::one(false));
        }
    };
    if targets.is_empty() {
        println!("no guest is asked for");
        return Ok(Tally::default());
    }
    let (smp, single): (Vec<_>, Vec<_>) = targets.into_iter().partition(|target| target.name == "smp");
    let mut tally = in_nodes(single, 2, 1)?;
    tally += in_nodes(smp, 1, 2)?;
    Ok(tally)
}

/// The product and the test binaries; those of them that have a test whose `target::name` contains `filter`.
fn build(filter: Option<&str>) -> Result<Vec<Target>> {
    build_selection()?;
    let status = cargo()
        .args(["build", "--quiet", "--package", "orlop-probe", "--features", "guest", "--profile", "probe"])
        .status()?;
    ensure!(status.success(), "the probe guest does not build");
    let output = cargo()
        .args([
            "test",
            "--quiet",
            "--package",
            GUEST_TESTS,
            "--tests",
            "--no-run",
            "--message-format",
            "json",
        ])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the guests' tests do not build");
    let mut targets = Vec::new();
    for message in cargo_metadata::Message::parse_stream(output.stdout.as_slice()) {
        let cargo_metadata::Message::CompilerArtifact(artifact) = message? else { continue };
        let Some(binary) = artifact.executable.filter(|_| artifact.profile.test) else { continue };
        let list = Command::new(&binary).args(["--list", "--format", "terse"]).output()?;
        let name = artifact.target.name;
        let mut tests = listed(&String::from_utf8_lossy(&list.stdout));
        tests.retain(|test| filter.is_none_or(|word| format!("{name}::{test}").contains(word)));
        if !tests.is_empty() {
            targets.push(Target { name, binary: binary.into(), tests });
        }
    }
    // The longest first, so that no node is left with it at the end.
    targets.sort_by_key(|target| std::cmp::Reverse(target.tests.len()));
    Ok(targets)
}

/// Runs the targets on `nodes` nodes with `cpus` processors each, every node taking the next one when it is free.
fn in_nodes(targets: Vec<Target>, nodes: usize, cpus: u32) -> Result<Tally> {
    let nodes = nodes.min(targets.len());
    let queue = Mutex::new(VecDeque::from(targets));
    let options = NodeOptions { cpus, memory_mib: 2560, ..NodeOptions::default() };
    std::thread::scope(|scope| {
        let shards: Vec<_> = (0..nodes).map(|_| scope.spawn(|| shard(&queue, &options))).collect();
        let mut tally = Tally::default();
        for shard in shards {
            tally += shard.join().map_err(|_| anyhow::anyhow!("a shard of the test run panicked"))??;
        }
        Ok(tally)
    })
}

fn next(queue: &Mutex<VecDeque<Target>>) -> Option<Target> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn shard(queue: &Mutex<VecDeque<Target>>, options: &NodeOptions) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut node = start(options)?;
    while let Some(mut target) = next(queue) {
        let mut run = run_target(&node, &target);
        target.tests.retain(|test| !run.has_passed(test));
        if !target.tests.is_empty() {
            // An emulated processor can fail a guest that did nothing wrong: what did not pass is tried once more, in a
            // fresh node, and said to be.
            run.report(&target);
            println!("{}: once more, in a fresh node: {}", target.name, target.tests.join(", "));
            tally += Tally { passed: run.tally().passed, failed: 0 };
            drop(node);
            node = start(options)?;
            run = run_target(&node, &target);
        }
        run.report(&target);
        tally += run.tally();
        tally += Tally { passed: 0, failed: run.missing(&target) };
    }
    Ok(tally)
}

/// A node with the product on its own disk: programs are started often, and slowly from the checkout.
fn start(options: &NodeOptions) -> Result<Node> {
    let node = Node::start(options)?;
    let programs =
        [product("orlop-vmm"), product("orlop-agent"), probe()].map(|path| path.display().to_string());
    let script =
        format!("mkdir -p \"${{{0}}}/bin\" && cp {1} \"${{{0}}}/bin/\"", env::SCRATCH, programs.join(" "));
    let copied = node.run(&Job::script(&script)).context("the node takes no jobs")?;
    ensure!(copied.code == 0, "failed to copy the product: {}", String::from_utf8_lossy(&copied.stderr));
    Ok(node)
}

/// What is known of a target after it ran, or broke.
struct Run {
    verdicts: Vec<Verdict>,
    output: String,
    error: Option<JobError>,
    took: Duration,
}

fn run_target(node: &Node, target: &Target) -> Run {
    let began = Instant::now();
    let mut lines = Lines::default();
    let job = job(&target.binary, &target.tests);
    let mut last = Instant::now();
    let result = node.stream(&job, &mut |stream, bytes| {
        for verdict in lines.take(stream, bytes) {
            let word = if verdict.passed { "ok" } else { "FAILED" };
            println!("{}::{} … {word} ({})", target.name, verdict.test, seconds(last.elapsed()));
            last = Instant::now();
        }
        Ok(())
    });
    Run { verdicts: lines.verdicts, output: lines.text, error: result.err(), took: began.elapsed() }
}

fn job(binary: &Path, tests: &[String]) -> Job {
    let scratch = format!("${{{}}}", env::SCRATCH);
    let script = format!(
        "export {}={scratch}/bin/orlop-vmm {}={scratch}/bin/orlop-agent {}={scratch}/bin/orlop-probe; exec \"$@\"",
        env::VMM,
        env::AGENT,
        env::PROBE
    );
    let mut argv = vec!["sh".to_owned(), "-c".into(), script, "sh".into(), binary.display().to_string()];
    argv.extend(["--exact", "--test-threads=1", "--format=pretty", "--color=never"].map(str::to_owned));
    argv.extend(tests.iter().cloned());
    Job::new(argv).deadline(TARGET_LIMIT)
}

impl Run {
    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for verdict in &self.verdicts {
            tally += Tally::one(verdict.passed);
        }
        tally
    }

    fn has_passed(&self, test: &str) -> bool {
        self.verdicts.iter().any(|verdict| verdict.passed && verdict.test == test)
    }

    /// How many tests of the target came to no verdict.
    fn missing(&self, target: &Target) -> usize {
        target.tests.len().saturating_sub(self.verdicts.len())
    }

    fn report(&self, target: &Target) {
        println!("{}: {} in {}", target.name, self.tally(), seconds(self.took));
        if let Some(e) = &self.error {
            println!("{}: {e}", target.name);
        }
        let missing = self.missing(target);
        if missing > 0 || self.verdicts.iter().any(|verdict| !verdict.passed) {
            println!("{}\n{}: {missing} tests came to no verdict", self.output.trim_end(), target.name);
        }
    }
}

/// Cuts the harness's output into lines as it comes.
#[derive(Default)]
struct Lines {
    /// All of it, as a terminal would show it.
    text: String,
    /// The harness's own. What the programs under test say on their standard error may come in the middle of a line.
    stdout: String,
    read: usize,
    verdicts: Vec<Verdict>,
}

impl Lines {
    /// Adds `bytes` and hands back the verdicts that they complete.
    fn take(&mut self, stream: Stream, bytes: &[u8]) -> Vec<Verdict> {
        let piece = String::from_utf8_lossy(bytes);
        self.text.push_str(&piece);
        if stream == Stream::Stderr {
            return Vec::new();
        }
        self.stdout.push_str(&piece);
        let Some(end) = self.stdout.rfind('\n') else { return Vec::new() };
        let whole = self.stdout.get(self.read..=end).unwrap_or_default();
        let found: Vec<_> = whole.lines().filter_map(Verdict::parse).collect();
        self.read = self.read.max(end + 1);
        self.verdicts.extend(found.iter().cloned());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_that_comes_in_two_pieces_is_counted_once() {
        let mut lines = Lines::default();
        assert!(lines.take(Stream::Stdout, b"running 2 tests\ntest a ... ").is_empty());
        assert_eq!(lines.take(Stream::Stdout, b"ok\ntest b ... FAILED\n").len(), 2);
        assert!(lines.take(Stream::Stdout, b"\n").is_empty());
        assert_eq!(lines.verdicts.len(), 2);
    }

    #[test]
    fn what_a_program_says_in_between_breaks_no_verdict() {
        let mut lines = Lines::default();
        assert!(lines.take(Stream::Stdout, b"test a ... ").is_empty());
        assert!(lines.take(Stream::Stderr, b"last words\n").is_empty());
        assert_eq!(lines.take(Stream::Stdout, b"ok\n").len(), 1);
        assert!(lines.text.contains("last words"));
    }
}
