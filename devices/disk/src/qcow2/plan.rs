//! What a request does next, decided under the lock.

use super::entry::Cluster;
use super::tables::{Fault, Tables};
use super::{Inner, Qcow2};

/// The most that is allocated for one request at once, in bytes; at least one cluster.
const ALLOCATE_MAX_BYTES: u64 = 2 << 20;
/// As many clusters are made zero before others have a turn.
const ZERO_MAX_CLUSTERS: u64 = 4096;

/// What comes of the next part of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// It goes to `host`, `len` bytes of it.
    InPlace { host: u64, len: u64 },
    /// It goes to clusters that are the guest's once they are written.
    Allocated(Allocation),
    /// Another request is allocating the cluster.
    Busy,
}

/// Clusters on their way to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// The first guest cluster.
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Where they are in the file.
    pub(crate) host: u64,
    /// There is nothing but zeroes so far.
    pub(crate) fresh: bool,
    /// They belonged to the guest cluster already, and read as zeroes.
    pub(crate) kept: bool,
    /// What is not written is copied from what was there: in the first cluster, and in the last one.
    pub(crate) copy_head: bool,
    pub(crate) copy_tail: bool,
}

/// What comes of the next part of making a range zero.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Zero {
    /// `len` bytes are done; these ranges of the file may be punched out.
    Done { len: u64, punch: Vec<(u64, u64)> },
    /// `len` bytes are to be written as zeroes.
    Write { len: u64 },
    /// Another request is allocating the cluster.
    Busy,
}

impl Qcow2 {
    /// Plans the write of the first of `len` bytes at `at`, up to a change of place.
    pub(crate) fn plan_write(&self, inner: &mut Inner, at: u64, len: u64) -> Result<Write, Fault> {
        let (first, skip) = (at >> self.cluster_bits, at & (self.cluster_bytes() - 1));
        if inner.is_busy(first, 1) {
            return Ok(Write::Busy);
        }
        let old = inner.tables.cluster(first)?;
        match old {
            Cluster::Normal { offset, owned: true } => {
                let len = self.owned_run(inner, first, offset, skip + len) - skip;
                Ok(Write::InPlace { host: offset + skip, len })
            }
            Cluster::Zero { kept: Some((host, true)) } if inner.tables.corrupt.is_none() => {
                inner.busy.push((first, 1));
                let allocation = Allocation {
                    first,
                    count: 1,
                    host,
                    fresh: false,
                    kept: true,
                    copy_head: false,
                    copy_tail: false,
                };
                Ok(Write::Allocated(allocation))
            }
            _ => self.allocate(inner, first, skip + len).map(Write::Allocated),
        }
    }

    /// How many of `wanted` bytes from the start of guest cluster `first` lie in a row from `offset` on, writable.
    fn owned_run(&self, inner: &mut Inner, first: u64, offset: u64, wanted: u64) -> u64 {
        let bytes = self.cluster_bytes();
        let mut held = bytes;
        let mut next = first + 1;
        while held < wanted && !inner.is_busy(next, 1) {
            match inner.tables.cluster(next) {
                Ok(Cluster::Normal { offset: here, owned: true }) if here == offset + held => {}
                _ => break,
            }
            held += bytes;
            next += 1;
        }
        held.min(wanted)
    }

    /// Allocates for `wanted` bytes from the start of guest cluster `first` on, as far as there is nothing to keep.
    fn allocate(&self, inner: &mut Inner, first: u64, wanted: u64) -> Result<Allocation, Fault> {
        let bytes = self.cluster_bytes();
        let most = (ALLOCATE_MAX_BYTES / bytes).max(1).min(wanted.div_ceil(bytes));
        let mut count = 1;
        while count < most && !inner.is_busy(first + count, 1) {
            match inner.tables.cluster(first + count)? {
                Cluster::Normal { owned: true, .. } | Cluster::Zero { kept: Some((_, true)) } => break,
                _ => count += 1,
            }
        }
        let tables = &mut inner.tables;
        let (l1_first, _) = tables.indices(first);
        let (l1_last, _) = tables.indices(first + count - 1);
        for l1_index in l1_first..=l1_last {
            tables.own_l2(l1_index)?;
        }
        let run = tables.allocate(count)?;
        let last = first + run.count - 1;
        let (copy_head, copy_tail) = (self.has_content(tables, first)?, self.has_content(tables, last)?);
        inner.busy.push((first, run.count));
        Ok(Allocation {
            first,
            count: run.count,
            host: run.first << self.cluster_bits,
            fresh: run.fresh,
            kept: false,
            copy_head,
            copy_tail,
        })
    }

    /// Whether guest cluster `index` may hold anything but zeroes.
    fn has_content(&self, tables: &mut Tables, index: u64) -> Result<bool, Fault> {
        Ok(match tables.cluster(index)? {
            Cluster::Unallocated => index << self.cluster_bits < self.backing_bytes(),
            Cluster::Zero { .. } => false,
            Cluster::Normal { .. } | Cluster::Compressed { .. } => true,
        })
    }

    /// The clusters of `allocation` are written: they are the guest's from now on.
    pub(crate) fn settle(&self, inner: &mut Inner, allocation: &Allocation) -> Result<(), Fault> {
        let Allocation { first, count, host, kept, .. } = *allocation;
        let tables = &mut inner.tables;
        for index in 0..count {
            let here = host + (index << self.cluster_bits);
            let settled = tables.cluster(first + index).and_then(|old| {
                tables.set_cluster(first + index, here | super::entry::COPIED)?;
                Ok(old)
            });
            match settled {
                Ok(_) if kept => {}
                Ok(old) => tables.give_up(old),
                Err(fault) => {
                    if !kept {
                        tables.give_back(here >> self.cluster_bits, count - index);
                    }
                    inner.done(first);
                    return Err(fault);
                }
            }
        }
        inner.done(first);
        Ok(())
    }

    /// The clusters of `allocation` could not be written: the guest's are as they were.
    pub(crate) fn unsettle(&self, inner: &mut Inner, allocation: &Allocation) {
        if !allocation.kept {
            inner.tables.give_back(allocation.host >> self.cluster_bits, allocation.count);
        }
        inner.done(allocation.first);
    }

    /// Makes the first of `len` bytes at `at` zero, or only forgets them if it is a `discard`.
    pub(crate) fn plan_zero(
        &self,
        inner: &mut Inner,
        at: u64,
        len: u64,
        unmap: bool,
        discard: bool,
    ) -> Result<Zero, Fault> {
        if inner.tables.corrupt.is_some() {
            return Err(Fault::Io(std::io::Error::from_raw_os_error(libc::EIO)));
        }
        let bytes = self.cluster_bytes();
        let (first, skip) = (at >> self.cluster_bits, at & (bytes - 1));
        // The disk may end within its last cluster.
        let whole = (bytes - skip).min(self.size_bytes().saturating_sub(at)).max(1);
        let marks = self.version > 2 || !inner.tables.has_backing;
        if skip != 0 || len < whole || !marks {
            let len = len.min(whole);
            let skipped =
                discard || !inner.is_busy(first, 1) && !self.has_content(&mut inner.tables, first)?;
            return Ok(if skipped { Zero::Done { len, punch: Vec::new() } } else { Zero::Write { len } });
        }
        if inner.tables.frees.is_crowded() {
            inner.make_room()?;
        }
        let mut done = 0;
        let mut punch: Vec<(u64, u64)> = Vec::new();
        for index in first..first + ZERO_MAX_CLUSTERS {
            let here = bytes.min(self.size_bytes().saturating_sub(at + done)).max(1);
            if len - done < here || inner.is_busy(index, 1) {
                break;
            }
            if let Some(host) = inner.tables.zero_cluster(index, unmap)? {
                match punch.last_mut() {
                    Some((start, len)) if *start + *len == host => *len += bytes,
                    _ => punch.push((host, bytes)),
                }
            }
            done += here;
            if done == len {
                break;
            }
        }
        Ok(if done == 0 { Zero::Busy } else { Zero::Done { len: done, punch } })
    }
}
