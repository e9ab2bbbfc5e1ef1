//! The VMM process of a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::unistd::geteuid;
use tokio::process::{Child, Command};

use crate::reaper::inherit;

/// The user and group that KubeVirt's launchers run as, and ours.
const VMM_USER: u32 = 107;

/// Why there is no VMM process.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The program is not there.
    #[error(
        "cannot find orlop-vmm beside {0} or in $PATH: build it (cargo build -p orlop-vmm) or say --vmm PATH"
    )]
    NotFound(PathBuf),
    /// `/dev/kvm` cannot be opened.
    #[error("/dev/kvm: {0}: {1}")]
    Kvm(io::Error, &'static str),
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> VmmError {
    move |source| VmmError::Io { doing, source }
}

/// Finds the program: as given, beside this one, or in `$PATH`.
pub fn find(given: Option<PathBuf>) -> Result<PathBuf, VmmError> {
    if let Some(path) = given {
        return Ok(path);
    }
    let own = std::env::current_exe().map_err(doing("find this program"))?;
    let beside = own.with_file_name("orlop-vmm");
    let in_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|d| d.join("orlop-vmm")).find(|p| p.is_file())
    };
    if beside.is_file() { Ok(beside) } else { in_path().ok_or(VmmError::NotFound(own)) }
}

/// Opens `/dev/kvm`, with a word on what to do where that fails.
pub fn open_kvm() -> Result<File, VmmError> {
    File::options().read(true).write(true).open("/dev/kvm").map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => {
                "this machine has no KVM: enable virtualization in its firmware (and load kvm_amd or kvm_intel), or use \
                 the project's virtual node (cargo xtask node)"
            }
            io::ErrorKind::PermissionDenied => "add this user to the group kvm, or run as root",
            _ => "KVM cannot be used",
        };
        VmmError::Kvm(error, advice)
    })
}

/// Starts `program` with the descriptors of `files` under their names, listening on `socket`. As root it runs as uid 107
/// without capabilities. It ends with this process.
pub fn spawn(program: &Path, socket: &Path, files: BTreeMap<String, OwnedFd>) -> Result<Child, VmmError> {
    let listener = OwnedFd::from(UnixListener::bind(socket).map_err(doing("make the API socket"))?);
    let kvm = OwnedFd::from(open_kvm()?);
    let mut command = Command::new(program);
    command.args(["serve", "--die-with-parent"]).stdin(Stdio::null()).kill_on_drop(true);
    inherit(&listener).map_err(doing("hand the API socket over"))?;
    command.arg("--api-fd").arg(listener.as_raw_fd().to_string());
    for (name, file) in files.iter().map(|(n, f)| (n.as_str(), f)).chain([("kvm", &kvm)]) {
        inherit(file).map_err(doing("hand a file over"))?;
        command.arg("--fd").arg(format!("{name}={}", file.as_raw_fd()));
    }
    // A signal from the terminal is for the run, which then asks the guest to power off.
    command.process_group(0);
    if geteuid().is_root() {
        command.uid(VMM_USER).gid(VMM_USER);
    }
    command.spawn().map_err(doing("start orlop-vmm"))
}

/// What an exit status of the VMM is worth as this program's own.
pub fn exit_code(status: ExitStatus) -> u8 {
    // Ended by a signal, for example the kernel's OOM killer.
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(crate::exit::KILLED)
}
