//! Clusters that are given up, and when they may be used again.
//!
//! A cluster may be used again when two things are certain: the table that no longer refers to it is on stable storage,
//! or a crash would bring the old reference back; and every operation that began before has ended, or one of them would
//! write into what the cluster has become. Until then it keeps its reference count; a crash leaves it leaked, no worse.

use std::collections::{BTreeSet, VecDeque};

/// As many runs may wait before they are hurried, 32 bytes each.
const WAITING_MAX: usize = 1 << 16;

/// A run of clusters, each of which loses one reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Free {
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// No operation with a smaller number is on its way any more.
    turn: u64,
    /// What was written to the tables up to this epoch must be durable.
    epoch: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Frees {
    waiting: VecDeque<Free>,
    active: BTreeSet<u64>,
    next_turn: u64,
    epoch: u64,
    durable: u64,
}

impl Frees {
    /// An operation begins; its number.
    pub(crate) fn begin(&mut self) -> u64 {
        self.next_turn += 1;
        self.active.insert(self.next_turn);
        self.next_turn
    }

    /// The operation with this number has ended.
    pub(crate) fn end(&mut self, turn: u64) {
        self.active.remove(&turn);
    }

    /// Gives up `count` clusters from `first` on.
    pub(crate) fn push(&mut self, first: u64, count: u64) {
        let free = Free { first, count, turn: self.next_turn, epoch: self.epoch };
        if let Some(last) = self.waiting.back_mut()
            && last.first.checked_add(last.count) == Some(first)
            && (last.turn, last.epoch) == (free.turn, free.epoch)
        {
            last.count += count;
            return;
        }
        self.waiting.push_back(free);
    }

    /// All tables have been written; what is durable once the file is synchronized.
    pub(crate) fn written(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// The file was synchronized after [`Self::written`] had said `epoch`.
    pub(crate) fn durable(&mut self, epoch: u64) {
        self.durable = self.durable.max(epoch);
    }

    /// The next run that may be used again.
    pub(crate) fn next(&mut self) -> Option<Free> {
        let oldest = self.active.first().copied().unwrap_or(u64::MAX);
        let (durable, waiting) = (self.durable, &mut self.waiting);
        waiting.pop_front_if(|free| free.epoch < durable && free.turn < oldest)
    }

    /// Whether so many wait that the tables should be made durable now.
    pub(crate) fn is_crowded(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_used_again_when_its_tables_are_durable_and_old_operations_have_ended() {
        let mut frees = Frees::default();
        let reader = frees.begin();
        frees.push(7, 1);
        frees.push(8, 1);
        let epoch = frees.written();
        frees.push(20, 1);
        assert_eq!(frees.next(), None, "nothing is durable");
        frees.durable(epoch);
        assert_eq!(frees.next(), None, "a reader may be looking");
        frees.end(reader);
        let free = frees.next().unwrap();
        assert_eq!((free.first, free.count), (7, 2));
        assert_eq!(frees.next(), None, "it was given up after the tables were written");
        let epoch = frees.written();
        frees.durable(epoch);
        assert_eq!(frees.next().map(|free| free.first), Some(20));
    }
}
