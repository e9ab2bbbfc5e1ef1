//! A node that stays up between commands and takes the jobs of other processes.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::cache::{self, Recipe};
use crate::host;
use crate::link::RunDir;
use crate::node::{Node, NodeOptions, StartError};
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

/// A node that stays up between commands, under a name of its own. Two checkouts have two of the same name, because each sees
/// its own files.
#[derive(Clone, Debug)]
pub struct Standing {
    run_dir: RunDir,
}

impl Standing {
    /// The node `name` of this checkout, up or not.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let key = Recipe::new().with(host::checkout().as_os_str().as_encoded_bytes()).key();
        Self { run_dir: RunDir::new(cache::directory().join("run").join(format!("{name}-{key}"))) }
    }

    /// Brings it up, to go on when this process ends. If it is up already, it is left as it is.
    ///
    /// # Errors
    /// See [`UpError`].
    pub fn up(&self, options: &NodeOptions) -> Result<UpNode, UpError> {
        if host::has_hardware_kvm() && !options.always_virtual {
            return Err(UpError::NotNeeded);
        }
        if let Some(node) = self.status() {
            return Ok(node);
        }
        let run_dir = &self.run_dir;
        // What a node that was killed has left.
        let _ = fs::remove_dir_all(run_dir.path());
        fs::create_dir_all(run_dir.path()).map_err(StartError::files(run_dir.path()))?;
        let mut qemu = launch(run_dir, options, false)?;
        if let Err(e) = wait_for(run_dir, &mut qemu) {
            // Both fail only if it has ended by itself.
            let _ = qemu.kill();
            let _ = qemu.wait();
            return Err(e.into());
        }
        self.status().ok_or_else(|| StartError::Qemu("it ended right after its first job".into()).into())
    }

    /// What is known of it, if it is up.
    #[must_use]
    pub fn status(&self) -> Option<UpNode> {
        let run_dir = &self.run_dir;
        let pid = fs::read_to_string(run_dir.pid_path()).ok()?.trim().parse().ok()?;
        if run_dir.is_dead() {
            return None;
        }
        Some(UpNode { pid, job_dir: run_dir.job_path(), console: run_dir.console_path() })
    }

    /// The node, to run jobs in, if it is up. Dropping it leaves it up.
    #[must_use]
    pub fn attach(&self) -> Option<Node> {
        self.status().map(|_| Node::attached(self.run_dir.clone()))
    }

    /// Ends it and tells whether it was up.
    ///
    /// # Errors
    /// See [`UpError`].
    pub fn down(&self) -> Result<bool, UpError> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let Some(node) = self.status() else { return Ok(false) };
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
        let _ = fs::remove_dir_all(self.run_dir.path());
        Ok(true)
    }
}
