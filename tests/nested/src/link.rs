//! The directory of a running node, and the connections that jobs make through it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::console::ConsoleLog;
use crate::wire::PORTS;

/// The directory of one node: its sockets, its console log, its scratch disk.
#[derive(Clone, Debug)]
pub(crate) struct RunDir(PathBuf);

impl RunDir {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Logs outlive the node, beside the directories of the running ones: `log/NAME.log`.
    pub(crate) fn log_directory(&self) -> PathBuf {
        self.0.ancestors().nth(2).unwrap_or(&self.0).join("log")
    }

    pub(crate) fn console_path(&self) -> PathBuf {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        self.log_directory().join(format!("{name}.log"))
    }

    /// Removes all but the newest console logs.
    pub(crate) fn forget_old_logs(&self) {
        const KEPT: usize = 20;
        let Ok(entries) = fs::read_dir(self.log_directory()) else { return };
        let mut logs: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        logs.sort();
        for (_, path) in logs.iter().rev().skip(KEPT) {
            // A log too many costs a few kilobytes.
            let _ = fs::remove_file(path);
        }
    }

    pub(crate) fn console(&self) -> ConsoleLog {
        ConsoleLog::read(&self.console_path())
    }

    /// Everything that QEMU itself complained about.
    pub(crate) fn complaints_path(&self) -> PathBuf {
        self.0.join("qemu.log")
    }

    pub(crate) fn pid_path(&self) -> PathBuf {
        self.0.join("qemu.pid")
    }

    pub(crate) fn scratch_path(&self) -> PathBuf {
        self.0.join("scratch.raw")
    }

    /// The directory that the node sees, writable, as `/job`.
    pub(crate) fn job_path(&self) -> PathBuf {
        self.0.join("job")
    }

    /// Marks the node of this directory as alive for as long as the file is open, in whatever process.
    pub(crate) fn hold(&self) -> io::Result<File> {
        let held = File::create(self.held_path())?;
        held.lock()?;
        Ok(held)
    }

    /// Whether the node was alive once and is not any more. Its sockets do not tell: QEMU has one connection waiting
    /// at most, and whoever comes after waits with it.
    pub(crate) fn is_dead(&self) -> bool {
        File::open(self.held_path()).is_ok_and(|held| held.try_lock_shared().is_ok())
    }

    fn held_path(&self) -> PathBuf {
        self.0.join("held")
    }

    /// Connects to the socket `name` of the node. The path goes through a descriptor of the directory, because the
    /// address of a unix socket holds only 108 bytes (unix(7)) and a cache may lie deep.
    pub(crate) fn connect(&self, name: &str) -> io::Result<UnixStream> {
        let directory = File::open(&self.0)?;
        UnixStream::connect(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
    }

    /// Takes a free job port. `None` if all are taken.
    pub(crate) fn free_port(&self) -> io::Result<Option<Port>> {
        let session = new_session();
        for n in 0..PORTS {
            // Not always the first, so that a port rests between two jobs and its hang-up is seen inside.
            let n = (n + session as usize) % PORTS;
            let lock = File::create(self.0.join(format!("job{n}.lock")))?;
            match lock.try_lock() {
                Ok(()) => {
                    let stream = self.connect(&format!("job{n}"))?;
                    return Ok(Some(Port { stream, session, _lock: lock }));
                }
                Err(fs::TryLockError::WouldBlock) => {}
                Err(fs::TryLockError::Error(e)) => return Err(e),
            }
        }
        Ok(None)
    }
}

/// A job port that is ours until it is dropped.
pub(crate) struct Port {
    pub(crate) stream: UnixStream,
    pub(crate) session: u32,
    _lock: File,
}

/// A number that the job before on the same port has not had.
fn new_session() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (random >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_alive_for_as_long_as_somebody_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = RunDir::new(directory.path().to_path_buf());
        assert!(!run_dir.is_dead(), "a node that is about to start");
        let held = run_dir.hold().unwrap();
        let mut process =
            std::process::Command::new("sleep").arg("1000").stdin(held.try_clone().unwrap()).spawn().unwrap();
        drop(held);
        assert!(!run_dir.is_dead(), "its process holds it");
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(run_dir.is_dead());
    }
}
