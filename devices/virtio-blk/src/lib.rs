//! The virtio blk device.
