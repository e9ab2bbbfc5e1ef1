//! The configuration side: features, configuration space, saved state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use orlop_state::{Record, State, StateError};
use orlop_virtio::{Device, DeviceType};
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

use crate::features;
use crate::shared::{Direction, Port, Shared, is_station};

/// What a card keeps across a snapshot, beside what the frame saves. The link state belongs to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NetState {
    /// The address, which the driver may have changed.
    mac: [u8; 6],
    /// How many pairs of queues the driver uses, 1 to as many as the card has.
    pairs: u16,
    /// Which guest offloads are on, as feature bits (virtio 1.3 §5.1.6.5.6).
    offloads: u64,
}

impl State for NetState {
    const KIND: &'static str = "virtio-net";
    const VERSION: u16 = 1;
}

pub(crate) struct NetDevice {
    name: String,
    shared: Arc<Shared>,
    /// The address at power-on.
    mac: [u8; 6],
    mtu: Option<u16>,
    features: u64,
    queue_size: u16,
}

impl NetDevice {
    pub(crate) fn new(
        name: String,
        shared: Arc<Shared>,
        mac: [u8; 6],
        mtu: Option<u16>,
        features: u64,
        queue_size: u16,
    ) -> Self {
        Self { name, shared, mac, mtu, features, queue_size }
    }

    /// `struct virtio_net_config` up to its MTU (virtio 1.3 §5.1.4).
    fn config_space(&self) -> [u8; 12] {
        let [a, b, c, d, e, f] = self.shared.mac();
        let status = if self.shared.is_link_up() { VIRTIO_NET_S_LINK_UP } else { 0 };
        let [status, _, _, _] = status.to_le_bytes();
        let [pairs_low, pairs_high] = self.shared.pairs_max().to_le_bytes();
        let [mtu_low, mtu_high] = self.mtu.unwrap_or_default().to_le_bytes();
        [a, b, c, d, e, f, status, 0, pairs_low, pairs_high, mtu_low, mtu_high]
    }
}

impl Device for NetDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_max_sizes(&self) -> Vec<u16> {
        vec![self.queue_size; self.shared.ports.len() * 2 + 1]
    }

    fn negotiated(&mut self, features: u64) {
        self.shared.set_offloads(features & features::GUEST_OFFLOADS);
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let space = self.config_space();
        let rest = usize::try_from(offset).ok().and_then(|offset| space.get(offset..)).unwrap_or_default();
        data.fill(0);
        data.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }

    /// Nothing is writable: the address is set through the control queue (virtio 1.3 §5.1.4.2).
    fn config_write(&mut self, _offset: u64, _data: &[u8]) {}

    fn reset(&mut self) {
        self.shared.set_mac(self.mac);
        self.shared.set_pairs(1);
        self.shared.set_offloads(0);
    }

    fn save(&self) -> Result<Record, StateError> {
        let state =
            NetState { mac: self.shared.mac(), pairs: self.shared.pairs(), offloads: self.shared.offloads() };
        Record::write(&self.name, &state)
    }

    fn restore(&mut self, record: &Record) -> Result<(), StateError> {
        let NetState { mac, pairs, offloads } = record.read()?;
        let invalid = |reason: String| StateError::Invalid { kind: NetState::KIND, reason };
        if !is_station(mac) {
            return Err(invalid(format!("mac {mac:02x?} is not a card's")));
        }
        if pairs == 0 || pairs > self.shared.pairs_max() {
            return Err(invalid(format!("{pairs} pairs of queues, of {}", self.shared.pairs_max())));
        }
        if offloads & !(self.features & features::GUEST_OFFLOADS) != 0 {
            return Err(invalid(format!("offloads {offloads:#x} that are not offered")));
        }
        self.shared.set_mac(mac);
        self.shared.set_pairs(pairs);
        self.shared.set_offloads(offloads);
        // Whether the cable is in is the host's to say, here as there; the guest is told to look.
        self.shared.announce_link();
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let sum = |of: fn(&Port) -> &Direction, field: fn(&Direction) -> &AtomicU64| {
            self.shared.ports.iter().fold(0u64, |sum, port| sum.saturating_add(field(of(port)).load(Relaxed)))
        };
        vec![
            ("rx_packets", sum(|p| &p.rx, |d| &d.packets)),
            ("rx_bytes", sum(|p| &p.rx, |d| &d.bytes)),
            ("rx_drops", sum(|p| &p.rx, |d| &d.drops)),
            ("rx_errors", sum(|p| &p.rx, |d| &d.errors)),
            ("tx_packets", sum(|p| &p.tx, |d| &d.packets)),
            ("tx_bytes", sum(|p| &p.tx, |d| &d.bytes)),
            ("tx_drops", sum(|p| &p.tx, |d| &d.drops)),
            ("tx_errors", sum(|p| &p.tx, |d| &d.errors)),
        ]
    }
}
