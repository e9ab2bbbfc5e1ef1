//! A machine under test: a process whose standard output is its guest's serial port.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a guest may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// What the guest's init says before it does anything else.
pub const READY: &str = "orlop-init: ready";
/// What it says when its drivers are loaded and it waits for commands.
pub const COMMANDS: &str = "orlop-init: commands";

/// Measures once more what failed once: under emulated KVM a guest now and then hangs for good, whichever machine it runs in.
/// Every such failure is shown.
pub fn with_patience<T>(measure: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    measure().or_else(|error| {
        eprintln!("once more, since: {error:#}");
        measure()
    })
}

/// A running machine; killed when dropped.
pub struct Guest {
    child: Child,
    started: Instant,
    output: Receiver<(Instant, Vec<u8>)>,
    said: String,
}

impl Guest {
    /// Starts `command`.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = Instant::now();
        let mut child =
            command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let mut stdout = child.stdout.take().context("standard output is a pipe")?;
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                let chunk = buffer.get(..count).unwrap_or_default().to_vec();
                if sender.send((Instant::now(), chunk)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, started, output, said: String::new() })
    }

    /// The process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the guest says `text`, and returns the time since the process started.
    pub fn wait_for(&mut self, text: &str) -> anyhow::Result<Duration> {
        loop {
            let Ok((at, chunk)) = self.output.recv_timeout(SILENCE) else {
                bail!("the guest never said '{text}', but:\n{}", self.said);
            };
            self.said.push_str(&String::from_utf8_lossy(&chunk));
            if self.said.contains(text) {
                return Ok(at - self.started);
            }
        }
    }

    /// Everything that the guest said so far.
    pub fn said(&self) -> &str {
        &self.said
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
