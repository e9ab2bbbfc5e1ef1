//! The file system, closed (`landlock(7)`): what was opened stays open, and beyond it there is only what a device does
//! with its sockets later.
//!
//! Best effort: a kernel enforces as much of this as it knows, down to nothing before Linux 5.13.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError,
};
use orlop_api::config::VmConfig;

/// The newest landlock that this was written for: file system, TCP, devices.
const KNOWN: ABI = ABI::V5;

/// Closes the file system, and TCP, for this thread and all that it starts. `sockets` are removed at the end.
pub fn close(config: &VmConfig, sockets: &[PathBuf]) -> Result<(), RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .create()?;
    for directory in directories(config, sockets) {
        // A directory that is gone needs no rule.
        if let Ok(directory) = PathFd::new(directory) {
            rules = rules.add_rule(PathBeneath::new(directory, socket_access()))?;
        }
    }
    rules.restrict_self().map(|_| ())
}

/// What may be done in a directory that holds a socket: remove it.
fn socket_access() -> BitFlags<AccessFs> {
    AccessFs::RemoveFile.into()
}

/// Directories of the sockets that are removed at the end.
fn directories(config: &VmConfig, sockets: &[PathBuf]) -> BTreeSet<PathBuf> {
    let ports = config.console.iter().flat_map(|console| &console.ports).map(|port| Path::new(&port.socket));
    let vsock = config.vsock.iter().map(|vsock| Path::new(&vsock.socket));
    let all = ports.chain(vsock).chain(sockets.iter().map(PathBuf::as_path));
    all.filter_map(Path::parent).map(Path::to_owned).collect()
}
