//! A node that stays up between commands and takes the jobs of other processes.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::cache::{self, Recipe};
use crate::host;
use crate::link::RunDir;
use crate::node::{NodeOptions, StartError};
use crate::virtual_node::{launch, wait_for};

/// Why the node that stays up could not be brought up or down.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// This machine has KVM of its own.
    #[error("this machine has KVM of its own: jobs run on it directly, there is no node to bring up or down")]
    NotNeeded,
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It does not end.
    #[error("failed to end QEMU (process {pid}): {reason}")]
    Stuck {
        /// Its process.
        pid: i32,
        /// Why not.
        reason: String,
    },
}

/// What is known of a node that is up.
#[derive(Clone, Debug)]
pub struct UpNode {
    /// The process of its QEMU.
    pub pid: i32,
    /// The directory outside that its jobs see, writable, as `/job`.
    pub job_dir: PathBuf,
    /// Its console log.
    pub console: PathBuf,
}

/// The directory of this checkout's node: two checkouts have two nodes, because each sees its own files.
fn run_dir() -> RunDir {
    let key = Recipe::new().with(host::checkout().as_os_str().as_encoded_bytes()).key();
    RunDir::new(cache::directory().join("run").join(format!("up-{key}")))
}

/// Brings a node up that goes on when this process ends. If one is up already, that one.
///
/// # Errors
/// See [`UpError`].
pub fn up(options: &NodeOptions) -> Result<UpNode, UpError> {
    if host::has_hardware_kvm() {
        return Err(UpError::NotNeeded);
    }
    if let Some(node) = status() {
        return Ok(node);
    }
    let run_dir = run_dir();
    // What a node that was killed has left.
    let _ = fs::remove_dir_all(run_dir.path());
    fs::create_dir_all(run_dir.path()).map_err(StartError::files(run_dir.path()))?;
    let mut qemu = launch(&run_dir, options, false)?;
    if let Err(e) = wait_for(&run_dir, &mut qemu) {
        // Both fail only if it has ended by itself.
        let _ = qemu.kill();
        let _ = qemu.wait();
        return Err(e.into());
    }
    status().ok_or_else(|| StartError::Qemu("it ended right after its first job".into()).into())
}

/// The node that is up, if one is.
#[must_use]
pub fn status() -> Option<UpNode> {
    let run_dir = run_dir();
    let pid = fs::read_to_string(run_dir.pid_path()).ok()?.trim().parse().ok()?;
    if run_dir.is_dead() {
        return None;
    }
    Some(UpNode { pid, job_dir: run_dir.job_path(), console: run_dir.console_path() })
}

/// The directory of the node that is up, if one is.
pub(crate) fn attached() -> Option<RunDir> {
    status().map(|_| run_dir())
}

/// Ends the node that is up and tells whether there was one.
///
/// # Errors
/// See [`UpError`].
pub fn down() -> Result<bool, UpError> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let Some(node) = status() else { return Ok(false) };
    let stuck = |reason: String| UpError::Stuck { pid: node.pid, reason };
    let pid = Pid::from_raw(node.pid).ok_or_else(|| stuck("not a process".into()))?;
    kill_process(pid, Signal::TERM).map_err(|e| stuck(io::Error::from(e).to_string()))?;
    let began = Instant::now();
    while test_kill_process(pid).is_ok() {
        if began.elapsed() > PATIENCE {
            return Err(stuck(format!("it is still there after {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // Its sockets and its scratch disk; the next node removes them if this fails.
    let _ = fs::remove_dir_all(run_dir().path());
    Ok(true)
}
