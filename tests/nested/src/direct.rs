//! The node of a machine that has KVM of its own: the machine.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::cache;
use crate::job::{Job, JobError, Stream};
use crate::node::{NodeOptions, StartError};
use crate::{env, host, images};

/// Runs jobs as ordinary processes, with a scratch directory of their own.
pub(crate) struct Direct {
    scratch: tempfile::TempDir,
    images: Option<PathBuf>,
}

impl Direct {
    pub(crate) fn start(options: &NodeOptions) -> Result<Self, StartError> {
        let images = if options.images { Some(images::directory()?) } else { None };
        let runs = cache::directory().join("run");
        std::fs::create_dir_all(&runs).map_err(StartError::files(&runs))?;
        let scratch = tempfile::Builder::new()
            .prefix("scratch-")
            .tempdir_in(&runs)
            .map_err(StartError::files(&runs))?;
        Ok(Self { scratch, images })
    }

    pub(crate) fn job_dir(&self) -> PathBuf {
        self.scratch.path().to_path_buf()
    }

    fn command(&self, job: &Job) -> Result<Command, JobError> {
        let (program, arguments) =
            job.argv.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env(env::SCRATCH, self.scratch.path())
            .envs(self.images.iter().map(|images| (env::IMAGES, images)))
            .envs(job.env.iter().map(|(name, value)| (name, value)))
            .current_dir(job.cwd.clone().unwrap_or_else(host::checkout));
        Ok(command)
    }

    pub(crate) fn attach(&self, job: &Job) -> Result<i32, JobError> {
        let status = self.command(job)?.status().map_err(|e| refused(job, &e))?;
        Ok(code(status))
    }

    pub(crate) fn stream(
        &self,
        job: &Job,
        output: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> Result<i32, JobError> {
        let mut child = self
            .command(job)?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|e| refused(job, &e))?;
        let group = Pid::from_child(&child);
        let (sender, pieces) = mpsc::sync_channel(16);
        if let Some(stdout) = child.stdout.take() {
            pump(stdout, Stream::Stdout, sender.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            pump(stderr, Stream::Stderr, sender);
        }
        let end = job.deadline.map(|deadline| Instant::now() + deadline);
        loop {
            let piece = match end {
                None => pieces.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                Some(end) => pieces.recv_timeout(end.saturating_duration_since(Instant::now())),
            };
            match piece {
                Ok((stream, bytes)) => output(stream, &bytes)?,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(code(child.wait()?)),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    kill_process_group(group, Signal::KILL).map_err(io::Error::from)?;
                    child.wait()?;
                    let deadline = job.deadline.unwrap_or_default();
                    return Err(JobError::Late { command: job.argv.join(" "), deadline });
                }
            }
        }
    }
}

fn pump(mut from: impl Read + Send + 'static, stream: Stream, to: mpsc::SyncSender<(Stream, Vec<u8>)>) {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if to.send((stream, buffer[..n].to_vec())).is_err() {
                return;
            }
        }
    });
}

/// The code that a shell would give the same end.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn refused(job: &Job, error: &io::Error) -> JobError {
    JobError::Refused { command: job.argv.join(" "), reason: error.to_string() }
}
