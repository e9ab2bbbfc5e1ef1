//! The virtio rng device.
