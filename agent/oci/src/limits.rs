//! What an image may cost.

use std::time::Duration;

/// Bounds on everything that an image or a registry can size. All of them hold per image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest manifest, index or configuration, in bytes. The distribution specification 1.1 asks registries for 4 MiB.
    pub document_bytes: u64,
    /// Most layers. Docker's own limit is 125, by the mounts that overlayfs takes.
    pub layers: usize,
    /// Most entries in all layers together; each costs memory.
    pub entries: usize,
    /// Most bytes of names and link targets in all layers together; they are kept in memory.
    pub names_bytes: u64,
    /// Longest header of one entry in a layer (long names, PAX records), in bytes; it is kept in memory.
    pub header_bytes: u64,
    /// Most bytes in all layers together, decompressed, holes included.
    pub unpacked_bytes: u64,
    /// What stays free in the cache's file system, in bytes.
    pub reserve_bytes: u64,
    /// How long a registry may be silent.
    pub idle: Duration,
    /// Slowest download, in bytes for each [`Limits::idle`].
    pub trickle_bytes: u64,
    /// How often a request is tried, the first time included.
    pub attempts: u32,
    /// Longest wait before it is tried again, whatever the registry asks for.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes: 4 << 20,
            layers: 128,
            entries: 250_000,
            names_bytes: 64 << 20,
            header_bytes: 1 << 20,
            unpacked_bytes: 256 << 30,
            reserve_bytes: 512 << 20,
            idle: Duration::from_secs(30),
            trickle_bytes: 16 << 10,
            attempts: 4,
            wait: Duration::from_secs(20),
        }
    }
}
