//! The host's side: what it wants of the guest and what it knows about it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::{PAGE_BYTES, Statistics};

/// A target that a balloon cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a balloon of {0} bytes is impossible: the largest has 2^32 - 1 pages of 4096 bytes")]
pub struct TargetError(pub u64);

/// What the device counted since power-on.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub inflated_pages: AtomicU64,
    pub deflated_pages: AtomicU64,
    pub reported_bytes: AtomicU64,
    /// Page numbers outside guest memory, and what is beyond the bound of a request.
    pub bad_pages: AtomicU64,
    /// Pages that the host's kernel would not take.
    pub refused_pages: AtomicU64,
}

/// What host, configuration side and thread share. The host writes the target and its wishes, the driver the actual
/// size, the thread the statistics.
pub(crate) struct Shared {
    pub target_pages: AtomicU32,
    pub actual_pages: AtomicU32,
    /// The target changed and the driver does not know yet.
    pub target_changed: AtomicBool,
    /// The host wants new statistics.
    pub stats_wanted: AtomicBool,
    pub stats: Mutex<Option<Statistics>>,
    /// Wakes the thread for the two above.
    pub event: EventFd,
    pub counters: Counters,
}

impl Shared {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            target_pages: AtomicU32::new(0),
            actual_pages: AtomicU32::new(0),
            target_changed: AtomicBool::new(false),
            stats_wanted: AtomicBool::new(false),
            stats: Mutex::new(None),
            event: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
            counters: Counters::default(),
        })
    }

    /// Wakes the thread; where no driver is ready it looks once one is.
    fn wake(&self) {
        // Fails only when the count is at its end, and then the thread has not looked yet.
        let _ = self.event.write(1);
    }
}

/// The host's hold on a balloon. Cheap to clone, usable from any thread, never blocks on the guest.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Asks the guest to give `bytes` (whole pages of them) to the host, or to take back what is more. The guest
    /// follows as it can; see [`Self::actual_bytes`].
    pub fn set_target_bytes(&self, bytes: u64) -> Result<(), TargetError> {
        let pages = u32::try_from(bytes / PAGE_BYTES).map_err(|_| TargetError(bytes))?;
        self.shared.target_pages.store(pages, SeqCst);
        self.shared.target_changed.store(true, SeqCst);
        self.shared.wake();
        Ok(())
    }

    /// What the guest was asked for, in bytes.
    pub fn target_bytes(&self) -> u64 {
        u64::from(self.shared.target_pages.load(SeqCst)).saturating_mul(PAGE_BYTES)
    }

    /// What the guest says that it gave, in bytes.
    pub fn actual_bytes(&self) -> u64 {
        u64::from(self.shared.actual_pages.load(SeqCst)).saturating_mul(PAGE_BYTES)
    }

    /// Asks the guest for new statistics; [`Self::stats`] shows them with another `update` once they are there.
    pub fn request_stats(&self) {
        self.shared.stats_wanted.store(true, SeqCst);
        self.shared.wake();
    }

    /// The statistics that the guest gave last, if it ever did since it started its driver.
    pub fn stats(&self) -> Option<Statistics> {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
