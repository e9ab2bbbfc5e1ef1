//! What a drive counts, whichever bus it is on.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::unit::Step;

/// What a command did, as far as it is counted one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Reading the medium.
    Read,
    /// Writing it.
    Write,
    /// Making it durable.
    Flush,
    /// Giving space back.
    Discard,
    /// Making zeroes.
    WriteZeroes,
    /// Anything that does not move the medium's data.
    Other,
}

impl Step {
    /// How it is counted, and over how many bytes.
    pub fn measure(&self) -> (Work, u64) {
        match self {
            Self::Data(_) => (Work::Other, 0),
            Self::Read(range) => (Work::Read, range.len),
            Self::Write { range, .. } => (Work::Write, range.len),
            Self::Flush => (Work::Flush, 0),
            Self::Discard(ranges) => {
                (Work::Discard, ranges.iter().fold(0, |sum, range| sum.saturating_add(range.len)))
            }
            Self::WriteZeroes { range, .. } => (Work::WriteZeroes, range.len),
        }
    }
}

#[derive(Debug, Default)]
struct Row {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

/// Written by the thread of a drive, read by anyone.
#[derive(Debug, Default)]
pub struct DriveCounters {
    read: Row,
    write: Row,
    flush: Row,
    discard: Row,
    write_zeroes: Row,
    other: Row,
    refused: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl DriveCounters {
    fn row(&self, work: Work) -> &Row {
        match work {
            Work::Read => &self.read,
            Work::Write => &self.write,
            Work::Flush => &self.flush,
            Work::Discard => &self.discard,
            Work::WriteZeroes => &self.write_zeroes,
            Work::Other => &self.other,
        }
    }

    /// A command over `bytes` was done.
    pub fn done(&self, work: Work, bytes: u64) {
        let row = self.row(work);
        add(&row.requests, 1);
        add(&row.bytes, bytes);
    }

    /// A command failed on the host.
    pub fn failed(&self, work: Work) {
        let row = self.row(work);
        add(&row.requests, 1);
        add(&row.errors, 1);
    }

    /// A command was refused: unknown, beyond the end, without a medium, malformed.
    pub fn refused(&self) {
        add(&self.refused, 1);
    }

    /// All of them by name.
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        let Self { read, write, flush, discard, write_zeroes, other, refused } = self;
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
            ("other_requests", &other.requests),
            ("refused_requests", refused),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
        .to_vec()
    }
}
