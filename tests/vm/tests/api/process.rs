//! A VMM process of one test.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use orlop_client::Client;
use tempfile::TempDir;

/// How long anything in these tests may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The process and its directory; ended and removed when dropped.
pub struct Vmm {
    child: Child,
    directory: TempDir,
    socket: PathBuf,
}

impl Vmm {
    /// Starts a process that waits for a machine, and returns when it answers.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("api.sock");
        let child = serve(&socket).spawn().expect("the product was built before the tests");
        let vmm = Self { child, directory, socket };
        vmm.client().wait_ready(DEADLINE).await.expect("it answers");
        vmm
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(&self.socket).with_timeout(DEADLINE)
    }

    /// A bare connection to it.
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A directory of its own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            // The kernel has no wait with a deadline for a child; a pidfd would be more code than this.
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the process did not end within {DEADLINE:?}");
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `orlop-vmm serve` on `socket`.
pub fn serve(socket: &Path) -> Command {
    let mut command = Command::new(orlop_kit::vmm());
    command.args(["serve", "--api-socket"]).arg(socket).stdin(Stdio::null());
    command
}

/// `orlop-vmm api`, speaking to the VMM on `socket`.
pub fn api(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(orlop_kit::vmm());
    command.arg("api").args(arguments).env("ORLOP_API_SOCKET", socket).stdin(Stdio::null());
    command
}
