//! The virtio console device.
