//! The virtio net device.
