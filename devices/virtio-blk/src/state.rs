//! What of a disk survives a snapshot.

use orlop_state::State;
use serde::{Deserialize, Serialize};

/// Saved state of a block device, version 1. Requests in flight are none: the device is drained before.
///
/// All but `writeback` describe the disk itself and must be the same where the state is restored: a driver does not
/// expect its disk to change behind its back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    /// Capacity in bytes.
    pub size_bytes: u64,
    /// Logical block size in bytes.
    pub block_bytes: u32,
    /// Whether the guest was told that it cannot write.
    pub read_only: bool,
    /// Number of queues.
    pub queues: u16,
    /// Size of each queue.
    pub queue_size: u16,
    /// The driver's choice of cache mode (`VIRTIO_BLK_F_CONFIG_WCE`): false is write-through.
    pub writeback: bool,
}

impl State for BlockState {
    const KIND: &'static str = "virtio-blk";
    const VERSION: u16 = 1;
}
