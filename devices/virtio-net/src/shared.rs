//! What the threads of one card share. Each value has one writer: the control queue, or the handle.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};

use orlop_net::{Tap, TapQueue};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::features;
use crate::limit::{Limiter, RateLimit};

/// Counters of one direction of one pair of queues.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    pub(crate) packets: AtomicU64,
    /// Frames without their virtio headers.
    pub(crate) bytes: AtomicU64,
    /// Frames that were good and had no way to go: link down, tap down or gone, no room.
    pub(crate) drops: AtomicU64,
    /// Frames and buffers that broke a rule: too long, too short, a header that was not negotiated, refused by the
    /// kernel.
    pub(crate) errors: AtomicU64,
}

impl Direction {
    pub(crate) fn passed(&self, bytes: usize) {
        self.packets.fetch_add(1, Relaxed);
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn dropped(&self) {
        self.drops.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }
}

/// One queue of the tap, and what was counted on it.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) tap: TapQueue,
    pub(crate) rx: Direction,
    pub(crate) tx: Direction,
}

#[derive(Debug)]
pub(crate) struct Shared {
    name: String,
    tap_name: String,
    pub(crate) ports: Vec<Port>,
    pub(crate) rx_limit: Limiter,
    pub(crate) tx_limit: Limiter,
    /// Written by the handle.
    link_up: AtomicBool,
    /// The tap went away under the card.
    gone: AtomicBool,
    /// Tells the first pair that the link state changed.
    pub(crate) link_event: EventFd,
    /// The address, first byte lowest; written by the control queue.
    mac: AtomicU64,
    /// How many pairs the driver uses; written by the control queue.
    pairs: AtomicU16,
    /// Which of the negotiated guest offloads are on; written by the control queue.
    offloads: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        name: &str,
        tap: Tap,
        mac: [u8; 6],
        [rx, tx]: [Option<RateLimit>; 2],
    ) -> io::Result<Self> {
        let tap_name = tap.name().to_owned();
        let ports = tap.into_queues().into_iter().map(|tap| Port {
            tap,
            rx: Direction::default(),
            tx: Direction::default(),
        });
        Ok(Self {
            name: name.to_owned(),
            tap_name,
            ports: ports.collect(),
            rx_limit: Limiter::new(rx),
            tx_limit: Limiter::new(tx),
            link_up: AtomicBool::new(true),
            gone: AtomicBool::new(false),
            link_event: EventFd::new(EFD_NONBLOCK)?,
            mac: AtomicU64::new(packed(mac)),
            pairs: AtomicU16::new(1),
            offloads: AtomicU64::new(0),
        })
    }

    /// Whether frames pass: the link is up and the tap is there.
    pub(crate) fn is_link_up(&self) -> bool {
        self.link_up.load(Relaxed) && !self.gone.load(Relaxed)
    }

    /// Has the guest look at the link state anew.
    pub(crate) fn announce_link(&self) {
        // Fails only when it was signalled 2^64 times without a look.
        let _ = self.link_event.write(1);
    }

    pub(crate) fn set_link(&self, up: bool) {
        self.link_up.store(up, Relaxed);
    }

    /// The tap went away: the link is down for good. Says so once, and returns whether this was the first time.
    pub(crate) fn tap_is_gone(&self) -> bool {
        let first = !self.gone.swap(true, Relaxed);
        if first {
            tracing::warn!(
                device = self.name,
                tap = self.tap_name,
                "the tap is gone: the guest goes on with its link down"
            );
        }
        first
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.mac.load(Relaxed).to_le_bytes();
        [a, b, c, d, e, f]
    }

    pub(crate) fn set_mac(&self, mac: [u8; 6]) {
        self.mac.store(packed(mac), Relaxed);
    }

    pub(crate) fn pairs(&self) -> u16 {
        self.pairs.load(Relaxed)
    }

    /// How many pairs there are.
    pub(crate) fn pairs_max(&self) -> u16 {
        u16::try_from(self.ports.len()).unwrap_or(u16::MAX)
    }

    pub(crate) fn set_pairs(&self, pairs: u16) {
        self.pairs.store(pairs, Relaxed);
    }

    pub(crate) fn offloads(&self) -> u64 {
        self.offloads.load(Relaxed)
    }

    pub(crate) fn set_offloads(&self, offloads: u64) {
        self.offloads.store(offloads, Relaxed);
    }

    /// Makes the tap as the settings say: which queues get frames, and which frames may be unfinished. The tap refuses
    /// only when it is gone, which the next frame finds out.
    pub(crate) fn apply_to_tap(&self) {
        let pairs = usize::from(self.pairs());
        for (index, port) in self.ports.iter().enumerate().skip(1) {
            let _ = port.tap.set_attached(index < pairs);
        }
        if let Some(first) = self.ports.first() {
            let _ = first.tap.set_offloads(features::of_tap(self.offloads()));
        }
    }
}

/// Whether `mac` is one station's address, as a network card must have (IEEE 802 §8.2.2).
pub(crate) fn is_station(mac: [u8; 6]) -> bool {
    let [first, ..] = mac;
    mac != [0; 6] && first & 1 == 0
}

fn packed([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// The live side of a card, for whoever runs the machine.
#[derive(Debug, Clone)]
pub struct NetHandle(Arc<Shared>);

impl NetHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Plugs the cable in or out: the guest sees its link change, and while it is down no frame passes either way.
    pub fn set_link(&self, up: bool) {
        self.0.set_link(up);
        self.0.announce_link();
    }

    /// Whether frames pass: the cable is in and the tap is there.
    pub fn is_link_up(&self) -> bool {
        self.0.is_link_up()
    }
}
