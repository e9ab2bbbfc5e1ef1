//! What of a controller is in a snapshot.

use orlop_scsi::UnitState;
use orlop_state::State;
use serde::{Deserialize, Serialize};

/// Saved state of a controller, version 1. Requests in flight are none: the device is drained before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScsiState {
    /// Number of request queues; the same where the state is restored.
    pub queues: u16,
    /// Size of each queue; the same where the state is restored.
    pub queue_size: u16,
    /// Length of the sense field that the driver chose, in bytes.
    pub sense_bytes: u32,
    /// Length of the command field that the driver chose, in bytes.
    pub cdb_bytes: u32,
    /// The units by target.
    pub units: Vec<UnitState>,
}

impl State for ScsiState {
    const KIND: &'static str = "virtio-scsi";
    const VERSION: u16 = 1;
}
