//! What clears up after a run that was killed: a process of its own that waits for the run to end, whichever way.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::instance::Claim;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "reap";

/// The reaper of one run, on the run's side. Dropping it lets it clear up.
pub struct Reaper {
    process: Child,
}

impl Reaper {
    /// Starts it; it shares the claim's lock, so that nobody takes the name before it is done.
    pub fn start(claim: &Claim) -> io::Result<Self> {
        let lock = OwnedFd::from(claim.share_lock().map_err(io::Error::other)?);
        inherit(&lock)?;
        let process = Command::new(std::env::current_exe()?)
            .args([SUBCOMMAND, &lock.as_raw_fd().to_string()])
            .arg(claim.place.directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of a signal to the terminal's process group.
            .process_group(0)
            .spawn()?;
        Ok(Self { process })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It ends by itself once its work is done; how it ended changes nothing here.
        drop(self.process.wait());
    }
}

/// Lets a descriptor through the next `exec`.
pub fn inherit(descriptor: &OwnedFd) -> io::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// The reaper's own side: returns when the run is over and its directory is gone.
pub fn reap(directory: &Path) -> io::Result<()> {
    // The run's end of the pipe closes with the run.
    let mut rest = Vec::new();
    io::stdin().lock().read_to_end(&mut rest)?;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
