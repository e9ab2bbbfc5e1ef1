//! A job: what is asked of a node, what comes back, and everything that can go wrong in between.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::console::ConsoleLog;
use crate::link::{Port, RunDir};
use crate::wire::{BEAT_SECONDS, Message, Spec};

/// A command to run in a node.
#[derive(Clone, Debug, Default)]
pub struct Job {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) deadline: Option<Duration>,
}

impl Job {
    /// The program and its arguments.
    #[must_use]
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// A script for `sh -ec`.
    #[must_use]
    pub fn script(text: &str) -> Self {
        Self::new(["sh", "-ec", text])
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Runs it in this directory instead of the root of the checkout.
    #[must_use]
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// Gives it so long to end; then it is killed and the error says so.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// How a job ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit code; 128 + N if signal N ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// Where bytes of a job come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a job has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The node's kernel gave up while the job ran.
    #[error("the virtual node panicked; {0}")]
    Panicked(ConsoleLog),
    /// The node ended while the job ran.
    #[error("the virtual node ended while the job ran; {0}")]
    Gone(ConsoleLog),
    /// The node said nothing for so long that it must be stuck.
    #[error("the virtual node gave no sign of life for {} s; {console}", silence.as_secs())]
    Silent {
        /// For how long.
        silence: Duration,
        /// What the console said.
        console: ConsoleLog,
    },
    /// The job did not end in time; it was killed, the node lives.
    #[error("the job did not end within {} s and was killed: {command}", deadline.as_secs())]
    Late {
        /// What it was.
        command: String,
        /// How long it had.
        deadline: Duration,
    },
    /// The program could not be started.
    #[error("failed to start {command} in the node: {reason}")]
    Refused {
        /// What was to be started.
        command: String,
        /// Why it was not.
        reason: String,
    },
    /// Every job port is taken.
    #[error("the node runs as many jobs as it can ({})", crate::wire::PORTS)]
    Busy,
    /// The connection to the node, or this process's own standard streams, failed.
    #[error("failed to speak to the node: {0}")]
    Io(#[from] io::Error),
}

impl JobError {
    /// Whether the node itself broke, so that a fresh node may well carry the same job out.
    #[must_use]
    pub fn is_the_nodes_fault(&self) -> bool {
        matches!(self, Self::Panicked(_) | Self::Gone(_) | Self::Silent { .. })
    }
}

/// A node that lives says something every [`BEAT_SECONDS`]; on a busy machine it may be late, but not by this much.
const SILENCE_LIMIT: Duration = Duration::from_secs(30 * BEAT_SECONDS);

/// Carries one job out over `port`: calls `started` once it is asked for, then `output` with every piece as it comes.
pub(crate) fn drive(
    run_dir: &RunDir,
    mut port: Port,
    spec: Spec,
    deadline: Option<Duration>,
    started: &mut dyn FnMut() -> io::Result<()>,
    output: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
) -> Result<i32, JobError> {
    let began = Instant::now();
    let command = spec.argv.join(" ");
    let session = port.session;
    if let Err(e) = Message::Start(spec).write(session, &mut port.stream) {
        return Err(if e.kind() == io::ErrorKind::InvalidInput { e.into() } else { ended(run_dir) });
    }
    started()?;
    let mut last_sign = Instant::now();
    loop {
        let mut patience = SILENCE_LIMIT.saturating_sub(last_sign.elapsed());
        if let Some(deadline) = deadline {
            patience = patience.min(deadline.saturating_sub(began.elapsed()));
        }
        port.stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        match read_whole(&mut port.stream) {
            Ok((from, message)) if from == session => {
                last_sign = Instant::now();
                match message {
                    Message::Stdout(bytes) => output(Stream::Stdout, &bytes)?,
                    Message::Stderr(bytes) => output(Stream::Stderr, &bytes)?,
                    Message::Exit(code) => return Ok(code),
                    Message::Refused(reason) => return Err(JobError::Refused { command, reason }),
                    _ => {}
                }
            }
            Ok(_) => last_sign = Instant::now(),
            Err(e) if is_timeout(&e) => {}
            Err(_) => return Err(ended(run_dir)),
        }
        if last_sign.elapsed() >= SILENCE_LIMIT {
            return Err(JobError::Silent { silence: SILENCE_LIMIT, console: run_dir.console() });
        }
        if let Some(deadline) = deadline.filter(|deadline| began.elapsed() >= *deadline) {
            return Err(JobError::Late { command, deadline });
        }
    }
}

/// Reads one frame; once its first byte is there a time-out no longer tears it apart.
fn read_whole(stream: &mut std::os::unix::net::UnixStream) -> io::Result<(u32, Message)> {
    struct Patient<'a> {
        stream: &'a mut std::os::unix::net::UnixStream,
        begun: bool,
    }
    impl Read for Patient<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let began = Instant::now();
            loop {
                match self.stream.read(buffer) {
                    Err(e) if is_timeout(&e) && self.begun && began.elapsed() < SILENCE_LIMIT => {}
                    result => {
                        self.begun = true;
                        return result;
                    }
                }
            }
        }
    }
    Message::read(&mut Patient { stream, begun: false })
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The connection ended, so the node did: tells a panic from the rest.
fn ended(run_dir: &RunDir) -> JobError {
    let console = run_dir.console();
    if console.panicked { JobError::Panicked(console) } else { JobError::Gone(console) }
}
