//! What of a console survives a snapshot.

use orlop_state::State;
use serde::{Deserialize, Serialize};

/// Saved state of a console, version 1. Host peers are not part of it: they connect again, and the guest is told that
/// its ports were closed meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// The named ports in order; there must be the same ones where the state is restored.
    pub ports: Vec<PortState>,
}

/// One named port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// Its name.
    pub name: String,
    /// The driver is still to be told that the port exists (`PORT_ADD`).
    pub add_due: bool,
    /// The driver is still to be told the name (`PORT_NAME`).
    pub name_due: bool,
    /// The driver has set the port up (`PORT_READY`).
    pub ready: bool,
    /// A program in the guest has the port open.
    pub guest_open: bool,
    /// What the driver was told last: a host peer is connected.
    pub host_open: bool,
    /// Bytes of the next request on the transmit queue that were sent already.
    pub sent_bytes: u32,
}

impl State for ConsoleState {
    const KIND: &'static str = "virtio-console";
    const VERSION: u16 = 1;
}
