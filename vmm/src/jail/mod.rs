//! Confinement of the process before the guest runs.

use orlop_api::config::VmConfig;

/// How the process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JailPolicy {
    /// System calls.
    pub seccomp: Seccomp,
    /// Whether the file system is closed.
    pub landlock: bool,
}

/// What a forbidden system call leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Seccomp {
    /// The process ends, saying which.
    #[default]
    Enforce,
    /// Nothing.
    Off,
}

/// Why the process cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// x
    #[error("x")]
    X,
}

/// Kinds of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadKind {
    /// x
    Main,
    /// x
    Machine,
    /// x
    Vcpu,
    /// x
    Device,
}

impl ThreadKind {
    /// x
    pub fn device(_kind: &str) -> Self {
        Self::Device
    }
}

/// x
#[derive(Debug)]
pub struct Jail {
    _policy: JailPolicy,
}

impl Jail {
    /// x
    pub fn new(policy: JailPolicy) -> Self {
        Self { _policy: policy }
    }
    /// x
    pub fn close_files(&self, _config: &VmConfig) -> Result<(), JailError> {
        Ok(())
    }
    /// x
    pub fn confine(&self, _kind: ThreadKind) -> Result<(), JailError> {
        Ok(())
    }
    /// x
    pub fn confine_or_end(&self, _kind: ThreadKind) {}
}
