//! From a configuration to the parts of a device.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use orlop_virtio::{Parts, QueueSet};

use crate::backend::VsockBackend;
use crate::counters::Counters;
use crate::device::{VsockDevice, is_guest_cid};
use crate::host::{ListenError, Listener};
use crate::muxer::Muxer;

/// What a socket device is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockConfig {
    /// What its thread and its record are called, for example `vsock0`; at most 15 bytes of it are used.
    pub name: String,
    /// The guest's context identifier, 3 to 4294967294.
    pub guest_cid: u32,
    /// The unix socket that peers connect to; the guest's connections go to this path with `_<port>` behind it. At most
    /// 96 bytes long.
    pub socket: PathBuf,
}

/// Why a socket device cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Such an identifier is not a guest's.
    #[error("{0} is not a guest's vsock context identifier: it must be 3 to 4294967294")]
    Cid(u32),
    /// The socket cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The host has no more descriptors.
    #[error("cannot watch the vsock socket: {0}")]
    Host(std::io::Error),
}

/// Builds the device. Its socket is there from now on; peers are accepted once the driver is ready.
pub fn build(config: VsockConfig) -> Result<Parts, BuildError> {
    let VsockConfig { name, guest_cid, socket } = config;
    let cid = u64::from(guest_cid);
    if !is_guest_cid(cid) {
        return Err(BuildError::Cid(guest_cid));
    }
    let listener = Listener::bind(&socket)?;
    let counters = Arc::new(Counters::default());
    let muxer = Muxer::new(cid, listener, Arc::clone(&counters)).map_err(BuildError::Host)?;
    let muxer = Arc::new(Mutex::new(muxer));
    let backend = Box::new(VsockBackend::new(Arc::clone(&muxer)));
    let thread = name.chars().filter(char::is_ascii).take(15).collect();
    let device = Box::new(VsockDevice { name, guest_cid: cid, muxer, counters });
    Ok(Parts { device, sets: vec![QueueSet { name: thread, queues: vec![0, 1, 2], backend }] })
}
