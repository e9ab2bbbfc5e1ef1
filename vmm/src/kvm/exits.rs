//! Returns from `KVM_RUN`, counted by reason.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why `KVM_RUN` returned (KVM api §5), I/O by direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum ExitReason {
    /// `KVM_EXIT_IO`, a read from a port.
    IoIn,
    /// `KVM_EXIT_IO`, a write to a port.
    IoOut,
    /// `KVM_EXIT_MMIO`, a read.
    MmioRead,
    /// `KVM_EXIT_MMIO`, a write.
    MmioWrite,
    /// `KVM_EXIT_HLT`.
    Hlt,
    /// `KVM_EXIT_SHUTDOWN`: triple fault.
    Shutdown,
    /// `KVM_EXIT_SYSTEM_EVENT`.
    SystemEvent,
    /// A signal or `immediate_exit`: somebody wants this vCPU to stop.
    Interrupted,
    /// `KVM_EXIT_FAIL_ENTRY`.
    FailEntry,
    /// `KVM_EXIT_INTERNAL_ERROR`.
    InternalError,
    /// Any other.
    Other,
}

/// Every reason with its name, in the order of its number.
const NAMES: [&str; 11] = [
    "io_in",
    "io_out",
    "mmio_read",
    "mmio_write",
    "hlt",
    "shutdown",
    "system_event",
    "interrupted",
    "fail_entry",
    "internal_error",
    "other",
];

/// Counters of one vCPU: written by its thread alone, read by anyone.
#[derive(Debug, Default)]
pub struct ExitCounters {
    counts: [AtomicU64; NAMES.len()],
}

impl ExitCounters {
    /// Counts one exit. Only the vCPU's own thread calls it, so no locked instruction is needed.
    pub(super) fn count(&self, reason: ExitReason) {
        let counter = &self.counts[reason as usize];
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The counts by name; a reason that never occurred is absent.
    pub fn snapshot(&self) -> BTreeMap<String, u64> {
        NAMES
            .iter()
            .zip(&self.counts)
            .map(|(name, count)| ((*name).to_owned(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_counted_under_their_own_name() {
        let counters = ExitCounters::default();
        counters.count(ExitReason::IoIn);
        counters.count(ExitReason::Other);
        counters.count(ExitReason::Other);
        let expected = [("io_in".to_owned(), 1), ("other".to_owned(), 2)];
        assert_eq!(counters.snapshot(), expected.into_iter().collect());
    }
}
