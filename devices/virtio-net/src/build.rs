//! From a configuration to the parts of a device.

use std::sync::Arc;

use orlop_net::Tap;
use orlop_virtio::{Parts, QueueSet};

use crate::device::NetDevice;
use crate::features;
use crate::limit::RateLimit;
use crate::pair::Pair;
use crate::shared::{NetHandle, Shared, is_station};

/// The most pairs of queues that one card has; the tap may have more.
pub const PAIRS_MAX: usize = 64;

/// What a network card is told. Everything is decided by the caller; nothing has a default.
#[derive(Debug)]
pub struct NetConfig {
    /// What its threads and log lines are called, for example `net0`; at most 10 bytes of it are used for threads.
    pub name: String,
    /// Where its frames go: one pair of queues per queue of the tap.
    pub tap: Tap,
    /// Its address at power-on: not zero and not a group's.
    pub mac: [u8; 6],
    /// Whether the cable is in; [`NetHandle::set_link`] changes it.
    pub link_up: bool,
    /// The longest packet that it promises to carry, in bytes without Ethernet header, 68 to 65535; `None` leaves the
    /// guest's default, which is 1500.
    pub mtu: Option<u16>,
    /// The size of each queue: a power of two up to 32768.
    pub queue_size: u16,
    /// A limit on what the guest receives.
    pub rx_limit: Option<RateLimit>,
    /// A limit on what the guest sends.
    pub tx_limit: Option<RateLimit>,
}

/// Why a network card cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address is zero or a group's.
    #[error("{} is not the address of a network card", colons(.0))]
    Mac([u8; 6]),
    /// The MTU is outside what virtio allows (virtio 1.3 §5.1.4.1).
    #[error("an MTU of {0} is less than 68")]
    Mtu(u16),
    /// The queue size is no power of two, or too large.
    #[error("a queue of {0} entries: it must be a power of two up to 32768")]
    QueueSize(u16),
    /// The tap has more queues than [`PAIRS_MAX`].
    #[error("tap with {0} queues: at most {PAIRS_MAX} are used")]
    Pairs(usize),
    /// The host has no more descriptors or memory.
    #[error("cannot watch tap '{tap}': {source}")]
    Host {
        /// The interface.
        tap: String,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Builds the card. Its tap is left alone until the driver is ready.
pub fn build(config: NetConfig) -> Result<(Parts, NetHandle), BuildError> {
    let NetConfig { name, tap, mac, link_up, mtu, queue_size, rx_limit, tx_limit } = config;
    if !is_station(mac) {
        return Err(BuildError::Mac(mac));
    }
    if let Some(mtu) = mtu.filter(|mtu| *mtu < 68) {
        return Err(BuildError::Mtu(mtu));
    }
    if !queue_size.is_power_of_two() || queue_size > 1 << 15 {
        return Err(BuildError::QueueSize(queue_size));
    }
    let count = tap.queue_count();
    let pairs = u16::try_from(count).ok().filter(|_| count <= PAIRS_MAX).ok_or(BuildError::Pairs(count))?;
    let tap_name = tap.name().to_owned();
    let host = |source| BuildError::Host { tap: tap_name.clone(), source };
    let features = features::offered(tap.supported_offloads(), pairs, mtu.is_some());
    let shared = Shared::new(&name, tap, mac, [rx_limit, tx_limit]).map_err(host)?;
    shared.set_link(link_up);
    let shared = Arc::new(shared);
    let mut sets = Vec::with_capacity(count);
    for pair in 0..pairs {
        let mut queues = vec![2 * pair, 2 * pair + 1];
        if pair == 0 {
            queues.push(2 * pairs);
        }
        let backend = Pair::new(pair, Arc::clone(&shared), mtu.unwrap_or(1500)).map_err(host)?;
        let short: String = name.chars().filter(char::is_ascii).take(10).collect();
        sets.push(QueueSet { name: format!("{short}-q{pair}"), queues, backend: Box::new(backend) });
    }
    let device = NetDevice::new(name, Arc::clone(&shared), mac, mtu, features, queue_size);
    Ok((Parts { device: Box::new(device), sets }, NetHandle::new(shared)))
}

fn colons(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
