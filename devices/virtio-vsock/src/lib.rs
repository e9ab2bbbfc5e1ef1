//! The virtio vsock device.
