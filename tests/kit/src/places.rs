//! Where the things are that a test needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use orlop_nested::env;

fn from_env(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(path) => path.into(),
        None => panic!("{name} is not set: run guest tests with `cargo xtask test` or in `cargo xtask node`"),
    }
}

/// A guest image by file name, for example `bzImage`. Read-only.
pub fn image(name: &str) -> PathBuf {
    from_env(env::IMAGES).join(name)
}

/// A directory for files that a guest writes to.
pub fn scratch() -> PathBuf {
    from_env(env::SCRATCH)
}

/// The `orlop-vmm` under test.
pub fn vmm() -> PathBuf {
    from_env(env::VMM)
}

/// The `orlop-agent` under test.
pub fn agent() -> PathBuf {
    from_env(env::AGENT)
}

/// The guest that attacks devices (`firmware/probe`).
pub fn probe() -> PathBuf {
    from_env(env::PROBE)
}

/// A writable, sparse copy of a guest image at `to`.
pub fn copy_of(name: &str, to: &Path) {
    let status = Command::new("cp").args(["--sparse=always", "--"]).arg(image(name)).arg(to).status();
    assert!(status.is_ok_and(|s| s.success()), "cannot copy {name} to {}", to.display());
}
