//! `cargo xtask demo`: one manifest, one VM.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use orlop_nested::cache::{say, seconds};
use orlop_nested::{Job, Node, NodeOptions, env, host};

use crate::test::cargo;

/// What is demonstrated, and the name of the machine in it.
const SAMPLE: &str = "deploy/samples/debian.yaml";
const NAME: &str = "debian";

/// The guest is at its prompt when its console says this.
const PROMPT: &str = "login:";

/// A Debian under an emulated machine needs a minute or two; longer than this and it hangs.
const BOOT_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The directories that the samples name: images that guests boot, and a disk that this guest may write to.
const PREPARE: &str = "
    if [ -z \"${ORLOP_VIRTUAL_NODE:-}\" ]; then
        mkdir -p /var/lib/orlop/images /var/lib/orlop/disks
        cp --update --sparse=always \"$ORLOP_IMAGES\"/* /var/lib/orlop/images/
    fi
    [ -e /var/lib/orlop/disks/debian.raw ] ||
        cp --sparse=always \"$ORLOP_IMAGES/debian.raw\" /var/lib/orlop/disks/debian.raw";

/// Boot the sample, an unmodified Debian, to its login prompt and hand over its console
///
/// Builds the product, prepares the guest image and, where this machine has no KVM of its own, a virtual node, and carries out
/// deploy/samples/debian.yaml with `orlop-agent run`. Log in as debian with the password orlop; Ctrl-] leaves the console, and
/// Ctrl-C then stops the machine. A virtual node ends with its demo: for more, run the samples in `cargo xtask node`.
#[derive(Args)]
pub struct Arguments {
    /// Power the guest off at its prompt and exit with 0, having said what each step took
    #[arg(long)]
    once: bool,
}

/// Carries the command out.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut steps = Steps::default();
    steps.take("build orlop-vmm and orlop-agent", build)?;
    let options = NodeOptions::default();
    let node = steps.take("prepare images and node", || Ok(Node::start(&options)?))?;
    steps.take("copy the guest's disk", || prepare(&node))?;
    let code = if arguments.once {
        once(&node, &mut steps)?
    } else {
        steps.report();
        node.attach(&agent(&["run", SAMPLE]), io::stdin().is_terminal())?
    };
    if arguments.once {
        steps.report();
    }
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn build() -> Result<()> {
    let status = cargo()
        .args(["build", "--release", "--package", "orlop-vmm", "--package", "orlop-agent", "--bins"])
        .status()
        .context("failed to start cargo")?;
    ensure!(status.success(), "the product does not build");
    Ok(())
}

fn prepare(node: &Node) -> Result<()> {
    let outcome = node.run(&Job::script(PREPARE))?;
    ensure!(
        outcome.code == 0,
        "failed to copy the guest's disk: {}",
        String::from_utf8_lossy(&outcome.stderr)
    );
    Ok(())
}

fn agent(arguments: &[&str]) -> Job {
    let release = host::target_dir().join("release");
    let mut argv = vec![release.join("orlop-agent").display().to_string()];
    argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Job::new(argv).env(env::VMM, release.join("orlop-vmm").display().to_string())
}

/// Boots to the prompt, showing the console, and powers off from outside, as `orlop-agent stop` does.
fn once(node: &Node, steps: &mut Steps) -> Result<i32> {
    let began = Instant::now();
    let mut watch = Watch::default();
    let code = std::thread::scope(|scope| {
        let mut stop = None;
        let job = agent(&["run", SAMPLE]).deadline(BOOT_LIMIT);
        let code = node.stream(&job, &mut |_, bytes| {
            io::stdout().write_all(bytes)?;
            io::stdout().flush()?;
            if stop.is_none() && watch.sees_the_prompt(bytes) {
                steps.note("boot to the prompt", began.elapsed());
                stop = Some(scope.spawn(|| (Instant::now(), node.run(&agent(&["stop", NAME])))));
            }
            Ok(())
        })?;
        let stop = stop.context("the guest ended before it came to its prompt")?;
        let (asked, stopped) =
            stop.join().map_err(|_| anyhow::anyhow!("the thread that stops the guest panicked"))?;
        let stopped = stopped?;
        ensure!(stopped.code == 0, "orlop-agent stop: {}", String::from_utf8_lossy(&stopped.stderr));
        steps.note("power off", asked.elapsed());
        Ok(code)
    })?;
    println!();
    Ok(code)
}

/// Looks for the prompt in output that comes in pieces.
#[derive(Default)]
struct Watch(Vec<u8>);

impl Watch {
    fn sees_the_prompt(&mut self, bytes: &[u8]) -> bool {
        self.0.extend_from_slice(bytes);
        let found = self.0.windows(PROMPT.len()).any(|window| window == PROMPT.as_bytes());
        let kept = self.0.len().saturating_sub(PROMPT.len());
        self.0.drain(..kept);
        found
    }
}

/// What was done, and how long it took.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn take<T>(&mut self, what: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let done = work()?;
        self.note(what, began.elapsed());
        Ok(done)
    }

    fn note(&mut self, what: &'static str, took: Duration) {
        self.0.push((what, took));
    }

    fn report(&self) {
        for (what, took) in &self.0 {
            say(format_args!("{what:32} {:>7}", seconds(*took)));
        }
        say(format_args!("{:32} {:>7}", "all of it", seconds(self.0.iter().map(|(_, took)| *took).sum())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_in_two_pieces_is_seen() {
        let mut watch = Watch::default();
        assert!(!watch.sees_the_prompt(b"Debian GNU/Linux 13 debian ttyS0\r\n\r\ndebian lo"));
        assert!(watch.sees_the_prompt(b"gin: "));
    }
}
