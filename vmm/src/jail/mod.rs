//! Confinement of the process before the guest runs.
//!
//! Three walls, each on its own: no new privileges, from the start; the file system closed but for what is needed later
//! ([`files`]); and, thread by thread, only the system calls that its kind makes ([`filter`]). What a machine needs is
//! opened before, and all threads exist by then: the thread that builds the machine closes the file system for itself,
//! so every thread that it starts is born behind that wall, and each new thread filters its own calls first of all.
//!
//! A forbidden call is shown as what it is ([`report`]) and ends the process with [`crate::exit::FORBIDDEN_CALL`].

mod files;
mod filter;
mod kind;
mod report;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use orlop_api::config::VmConfig;

pub use kind::ThreadKind;

/// How the process is confined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailPolicy {
    /// System calls.
    pub seccomp: Seccomp,
    /// Whether the file system is closed.
    pub landlock: bool,
    /// Sockets whose files are removed at the end, beside those that the configuration names.
    pub sockets: Vec<PathBuf>,
}

/// What a forbidden system call leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Seccomp {
    /// The process ends and says which call it was.
    #[default]
    Enforce,
    /// The kernel's audit log has it, and the call is made.
    Log,
    /// Nothing: system calls are not filtered.
    Off,
}

/// Why the process cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The kernel does not take the promise.
    #[error("cannot give up new privileges: {0}")]
    NoNewPrivileges(std::io::Error),
    /// The file system cannot be closed.
    #[error("cannot close the file system (landlock): {0}; --no-landlock goes on without")]
    Landlock(String),
    /// System calls cannot be filtered.
    #[error(
        "cannot filter the system calls of a thread of kind '{kind}': {reason}; --seccomp=off goes on without"
    )]
    Seccomp {
        /// The kind of thread.
        kind: ThreadKind,
        /// What the kernel or the compiler of filters says.
        reason: String,
    },
}

/// The confinement of one process.
#[derive(Debug)]
pub struct Jail {
    policy: JailPolicy,
}

impl Jail {
    /// Confinement by `policy`. Gives up new privileges for this thread and all that it starts, and installs the handler
    /// that reports forbidden calls.
    pub fn new(policy: JailPolicy) -> Result<Self, JailError> {
        keep_one_arena();
        rustix::thread::set_no_new_privs(true).map_err(|e| JailError::NoNewPrivileges(e.into()))?;
        if policy.seccomp == Seccomp::Enforce {
            report::install().map_err(|reason| JailError::Seccomp { kind: ThreadKind::Main, reason })?;
        }
        Ok(Self { policy })
    }

    /// Closes the file system for this thread and all that it starts from now on. Open files stay open.
    pub fn close_files(&self, config: &VmConfig) -> Result<(), JailError> {
        if !self.policy.landlock {
            return Ok(());
        }
        files::close(config, &self.policy.sockets).map_err(|e| JailError::Landlock(e.to_string()))
    }

    /// Filters the calls of this thread from now on. Not to be undone.
    pub fn confine(&self, kind: ThreadKind) -> Result<(), JailError> {
        if kind != ThreadKind::Main {
            leave_signals_to_main();
        }
        let refuse = |reason: String| JailError::Seccomp { kind, reason };
        let otherwise = match self.policy.seccomp {
            Seccomp::Off => return Ok(()),
            Seccomp::Log => seccompiler::SeccompAction::Log,
            Seccomp::Enforce => seccompiler::SeccompAction::Trap,
        };
        report::remember(kind);
        let program = filter::program(kind, otherwise).map_err(|e| refuse(e.to_string()))?;
        seccompiler::apply_filter(&program).map_err(|e| refuse(e.to_string()))
    }

    /// Filters the calls of this thread, or ends the process: a thread that cannot be confined must not run.
    pub fn confine_or_end(&self, kind: ThreadKind) {
        if let Err(error) = self.confine(kind) {
            eprintln!("orlop-vmm: {error}");
            std::process::exit(i32::from(crate::exit::FAILED));
        }
    }
}

/// Signals that end the process are for the first thread: what their handler does to wake the runtime is a system call that no other
/// thread makes.
fn leave_signals_to_main() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // It fails only where the thread that started this one blocks it already.
        let _ = vmm_sys_util::signal::block_signal(signal);
    }
}

/// Keeps the allocator to one arena: it looks into files when it makes a second one, and each costs memory that a VMM,
/// whose threads allocate little, has no use for.
fn keep_one_arena() {
    #[expect(unsafe_code, reason = "mallopt(3)")]
    // SAFETY: the parameter is one that mallopt knows; it takes the allocator's own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
