//! What the controller counts beside its units.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests without room for a response, or too short to be one.
    pub(crate) invalid: AtomicU64,
    /// Requests to a target that is not there.
    pub(crate) no_target: AtomicU64,
    /// Requests with less room for data than their command moves.
    pub(crate) overrun: AtomicU64,
    /// Task management functions.
    pub(crate) tasks: AtomicU64,
}

impl Counters {
    /// All of them by name.
    pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
        let Self { invalid, no_target, overrun, tasks } = self;
        vec![
            ("invalid_requests", invalid.load(Relaxed)),
            ("no_target_requests", no_target.load(Relaxed)),
            ("overrun_requests", overrun.load(Relaxed)),
            ("task_management_requests", tasks.load(Relaxed)),
        ]
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
