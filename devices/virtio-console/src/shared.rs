//! What the configuration side and the thread of a console have in common.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::PortInfo;
use crate::state::{ConsoleState, PortState};

/// What a console counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// From host peers to the guest.
    pub(crate) rx_bytes: AtomicU64,
    /// From the guest to host peers.
    pub(crate) tx_bytes: AtomicU64,
    /// From the guest to nobody.
    pub(crate) tx_dropped_bytes: AtomicU64,
    /// Host peers that were let in.
    pub(crate) peers: AtomicU64,
    /// Host peers that were sent away because the port had one.
    pub(crate) peers_refused: AtomicU64,
    /// Control messages that make no sense, and control buffers that are too small.
    pub(crate) invalid_requests: AtomicU64,
}

impl Counters {
    pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
        let Self { rx_bytes, tx_bytes, tx_dropped_bytes, peers, peers_refused, invalid_requests } = self;
        [
            ("rx_bytes", rx_bytes),
            ("tx_bytes", tx_bytes),
            ("tx_dropped_bytes", tx_dropped_bytes),
            ("peers", peers),
            ("peers_refused", peers_refused),
            ("invalid_requests", invalid_requests),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
        .to_vec()
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// What the host is shown about a port.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) guest_open: AtomicBool,
    pub(crate) connected: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) names: Vec<String>,
    pub(crate) views: Vec<View>,
    pub(crate) counters: Counters,
    /// The thread takes it when queues start and puts it back when they stop; in between it is not looked at.
    state: Mutex<ConsoleState>,
}

impl Shared {
    pub(crate) fn new(names: Vec<String>) -> Self {
        let views = names.iter().map(|_| View::default()).collect();
        let state = Mutex::new(fresh(&names));
        Self { names, views, counters: Counters::default(), state }
    }

    /// The state while queues are stopped.
    pub(crate) fn state(&self) -> MutexGuard<'_, ConsoleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Back to the state after power-on.
    pub(crate) fn reset(&self) {
        *self.state() = fresh(&self.names);
        for view in &self.views {
            view.guest_open.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn ports(&self) -> Vec<PortInfo> {
        let info = |(name, view): (&String, &View)| PortInfo {
            name: name.clone(),
            guest_open: view.guest_open.load(Ordering::Relaxed),
            connected: view.connected.load(Ordering::Relaxed),
        };
        self.names.iter().zip(&self.views).map(info).collect()
    }
}

fn fresh(names: &[String]) -> ConsoleState {
    let port = |name: &String| PortState { name: name.clone(), ..PortState::default() };
    ConsoleState { ports: names.iter().map(port).collect() }
}
