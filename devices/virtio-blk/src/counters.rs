//! What a disk counts, over all its queues.

use std::sync::atomic::{AtomicU64, Ordering};

/// The kinds of request that are counted one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
    Id,
}

/// Counts of one kind.
#[derive(Debug, Default)]
struct Row {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

/// Written by the queues' threads, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    read: Row,
    write: Row,
    flush: Row,
    discard: Row,
    write_zeroes: Row,
    id: Row,
    invalid: AtomicU64,
    unsupported: AtomicU64,
    throttled: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counters {
    fn row(&self, kind: Kind) -> &Row {
        match kind {
            Kind::Read => &self.read,
            Kind::Write => &self.write,
            Kind::Flush => &self.flush,
            Kind::Discard => &self.discard,
            Kind::WriteZeroes => &self.write_zeroes,
            Kind::Id => &self.id,
        }
    }

    /// A request of `kind` over `bytes` was done.
    pub(crate) fn done(&self, kind: Kind, bytes: u64) {
        let row = self.row(kind);
        add(&row.requests, 1);
        add(&row.bytes, bytes);
    }

    /// A request of `kind` failed on the host.
    pub(crate) fn failed(&self, kind: Kind) {
        let row = self.row(kind);
        add(&row.requests, 1);
        add(&row.errors, 1);
    }

    /// A request that cannot be.
    pub(crate) fn invalid(&self) {
        add(&self.invalid, 1);
    }

    /// A request of a type, or with a flag, that is not offered.
    pub(crate) fn unsupported(&self) {
        add(&self.unsupported, 1);
    }

    /// A queue has to wait for its rate limit.
    pub(crate) fn throttled(&self) {
        add(&self.throttled, 1);
    }

    /// All of them by name.
    pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
        let Self { read, write, flush, discard, write_zeroes, id, invalid, unsupported, throttled } = self;
        [
            ("read_requests", &read.requests),
            ("read_bytes", &read.bytes),
            ("read_errors", &read.errors),
            ("write_requests", &write.requests),
            ("write_bytes", &write.bytes),
            ("write_errors", &write.errors),
            ("flush_requests", &flush.requests),
            ("flush_errors", &flush.errors),
            ("discard_requests", &discard.requests),
            ("discard_bytes", &discard.bytes),
            ("discard_errors", &discard.errors),
            ("write_zeroes_requests", &write_zeroes.requests),
            ("write_zeroes_bytes", &write_zeroes.bytes),
            ("write_zeroes_errors", &write_zeroes.errors),
            ("id_requests", &id.requests),
            ("invalid_requests", invalid),
            ("unsupported_requests", unsupported),
            ("throttled_events", throttled),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
        .to_vec()
    }
}
