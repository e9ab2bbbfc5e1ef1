//! What the device counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters since power-on. Written by the device's thread, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) guest_connections: AtomicU64,
    pub(crate) host_connections: AtomicU64,
    /// Connections and handshakes that were refused: nobody there, too many, too slow, not understood.
    pub(crate) refusals: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) rx_packets: AtomicU64,
    pub(crate) rx_bytes: AtomicU64,
    pub(crate) tx_packets: AtomicU64,
    pub(crate) tx_bytes: AtomicU64,
    /// Packets and buffers of the guest that broke a rule.
    pub(crate) malformed_packets: AtomicU64,
}

pub(crate) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

pub(crate) fn add(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
}

impl Counters {
    pub(crate) fn named(&self) -> Vec<(&'static str, u64)> {
        [
            ("guest_connections", &self.guest_connections),
            ("host_connections", &self.host_connections),
            ("refused_connections", &self.refusals),
            ("resets", &self.resets),
            ("rx_packets", &self.rx_packets),
            ("rx_bytes", &self.rx_bytes),
            ("tx_packets", &self.tx_packets),
            ("tx_bytes", &self.tx_bytes),
            ("malformed_packets", &self.malformed_packets),
        ]
        .map(|(name, counter)| (name, counter.load(Relaxed)))
        .to_vec()
    }
}
