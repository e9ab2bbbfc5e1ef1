//! Reference counts, and clusters that have none.

use std::io;

use super::entry::{self, COPIED};
use super::header::{AT_REFTABLE, REFTABLE_MAX_BYTES};
use super::slices::Kind;
use super::tables::{Fault, Owner, Tables};
use crate::host_io;

/// The file grows by this many bytes at least, sparsely.
const GROW_BYTES: u64 = 1 << 20;

/// Clusters that were free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Number of the first one.
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Nothing was ever written there: they read as zeroes.
    pub(crate) fresh: bool,
}

impl Tables {
    /// How many bits of a cluster's number are its place in a block of reference counts.
    fn block_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.refcount_order
    }

    /// The block that counts `cluster`, and the cluster's place in it.
    fn block_of(&self, cluster: u64) -> (usize, u64) {
        let bits = self.block_bits();
        (usize::try_from(cluster >> bits).unwrap_or(usize::MAX), cluster & ((1 << bits) - 1))
    }

    /// Where the count of `cluster` is: the offset of the byte, and its number in the part of the table that holds it.
    fn count_place(&self, cluster: u64) -> Result<Option<(u64, usize)>, Fault> {
        let (block, index) = self.block_of(cluster);
        let at = self.reftable.get(block).copied().unwrap_or_default();
        if at == 0 {
            return Ok(None);
        }
        let aligned = at.is_multiple_of(self.cluster_bytes());
        if !aligned || self.owners.get(&(at >> self.cluster_bits)) != Some(&Owner::RefBlock(block)) {
            return Err(Fault::Corrupt("the refcount table refers to no block of reference counts"));
        }
        let per_slice = (self.slices.slice_bytes() * 8) >> self.refcount_order;
        let byte = at + (index << self.refcount_order) / 8;
        Ok(Some((byte, usize::try_from(index % per_slice).unwrap_or_default())))
    }

    /// The reference count of `cluster`.
    pub(crate) fn refcount(&mut self, cluster: u64) -> Result<u64, Fault> {
        let order = self.refcount_order;
        let Some((byte, index)) = self.count_place(cluster)? else { return Ok(0) };
        let (slice, _) = self.part(byte, Kind::Refcounts)?;
        Ok(entry::refcount(&slice.bytes, index, order).unwrap_or_default())
    }

    /// Sets it, where there is a block for it.
    fn set_refcount(&mut self, cluster: u64, count: u64) -> Result<(), Fault> {
        let order = self.refcount_order;
        let Some((byte, index)) = self.count_place(cluster)? else {
            return Err(Fault::Corrupt("a cluster in use has no reference count"));
        };
        let (slice, _) = self.part(byte, Kind::Refcounts)?;
        if !entry::set_refcount(&mut slice.bytes, index, order, count) {
            return Err(Fault::Corrupt("a reference count is too large"));
        }
        slice.dirty = true;
        Ok(())
    }

    /// Finds up to `want` clusters in a row, at least one; their count is 1 from now on.
    pub(crate) fn allocate(&mut self, want: u64) -> Result<Run, Fault> {
        if self.corrupt.is_some() {
            return Err(Fault::Io(io::Error::from_raw_os_error(libc::EIO)));
        }
        let mut first = self.hint;
        loop {
            if !self.is_free(first)? {
                first += 1;
            } else if self.has_block(first) {
                break;
            } else {
                // The block counts itself, and takes the place that was found; or its table moved.
                self.make_block(first)?;
            }
        }
        let mut count = 1;
        while count < want && self.has_block(first + count) && self.is_free(first + count)? {
            count += 1;
        }
        let fresh = self.reach(first, count)?;
        for cluster in first..first + count {
            self.set_refcount(cluster, 1)?;
        }
        self.hint = first + count;
        Ok(Run { first, count, fresh })
    }

    /// Gives back clusters to which nothing ever referred.
    pub(crate) fn give_back(&mut self, first: u64, count: u64) {
        for cluster in first..first + count {
            // If the count cannot be changed, the cluster is leaked, no worse.
            let _ = self.set_refcount(cluster, 0);
        }
        self.hint = self.hint.min(first);
    }

    fn is_free(&mut self, cluster: u64) -> Result<bool, Fault> {
        let free = self.refcount(cluster)? == 0;
        if free && self.owners.contains_key(&cluster) {
            return Err(Fault::Corrupt("a table has no reference"));
        }
        Ok(free)
    }

    fn has_block(&self, cluster: u64) -> bool {
        self.reftable.get(self.block_of(cluster).0).is_some_and(|at| *at != 0)
    }

    /// Makes the file long enough for `count` clusters from `first` on. Whether they were never written.
    fn reach(&mut self, first: u64, count: u64) -> Result<bool, Fault> {
        let (start, end) = (first << self.cluster_bits, (first + count) << self.cluster_bits);
        if end > self.file_bytes {
            let longer = if self.host.is_device() { end } else { end.next_multiple_of(GROW_BYTES) };
            if self.host.is_device() {
                return Err(Fault::Io(io::ErrorKind::StorageFull.into()));
            }
            self.host.file().set_len(longer)?;
            self.host.set_stored_bytes(longer);
            self.file_bytes = longer;
        }
        let fresh = start >= self.zeroes_from && !self.host.is_device();
        self.zeroes_from = self.zeroes_from.max(end);
        Ok(fresh)
    }

    /// Like [`Self::reach`] for one cluster that becomes a table: it reads as zeroes.
    fn clear(&mut self, cluster: u64, fresh: bool) -> Result<(), Fault> {
        if !fresh {
            let zeroes = vec![0; usize::try_from(self.cluster_bytes()).unwrap_or_default()];
            host_io::write(&self.host, &zeroes, cluster << self.cluster_bits)?;
        }
        Ok(())
    }

    /// Makes `cluster` the block of reference counts that counts it; or a larger table, if there is no place for it.
    fn make_block(&mut self, cluster: u64) -> Result<(), Fault> {
        let (block, _) = self.block_of(cluster);
        if block >= self.reftable.len() {
            return self.grow_reftable(block);
        }
        let fresh = self.reach(cluster, 1)?;
        self.clear(cluster, fresh)?;
        self.slices.forget(cluster << self.cluster_bits, self.cluster_bytes());
        self.install_block(block, cluster);
        self.set_refcount(cluster, 1)
    }

    /// Writes the block of reference counts number `block` to `cluster`: those of the clusters `used` are 1.
    fn write_block(&mut self, block: usize, cluster: u64, used: std::ops::Range<u64>) -> Result<(), Fault> {
        let mut bytes = vec![0; usize::try_from(self.cluster_bytes()).unwrap_or_default()];
        for number in used {
            let (counted_by, index) = self.block_of(number);
            if counted_by == block {
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                entry::set_refcount(&mut bytes, index, self.refcount_order, 1);
            }
        }
        self.slices.forget(cluster << self.cluster_bits, self.cluster_bytes());
        Ok(host_io::write(&self.host, &bytes, cluster << self.cluster_bits)?)
    }

    fn install_block(&mut self, block: usize, cluster: u64) {
        if let Some(entry) = self.reftable.get_mut(block) {
            *entry = cluster << self.cluster_bits;
            self.dirty_reftable.insert(block);
            self.owners.insert(cluster, Owner::RefBlock(block));
        }
    }

    /// Moves the refcount table to where it has an entry for `block`, with the blocks that count the new table.
    fn grow_reftable(&mut self, block: usize) -> Result<(), Fault> {
        let per_table = self.cluster_bytes() / 8;
        let old_clusters = u64::try_from(self.reftable.len()).unwrap_or(u64::MAX) / per_table;
        let block = u64::try_from(block).unwrap_or(u64::MAX);
        // Behind everything: where no block counts and where the file has no bytes.
        let counted = (old_clusters * per_table) << self.block_bits();
        let first = counted.max(self.file_bytes.div_ceil(self.cluster_bytes()));
        let (mut table, mut blocks) = (old_clusters * 2, 1);
        loop {
            let last_block = (first + table + blocks - 1) >> self.block_bits();
            let needed_blocks = last_block + 1 - (first >> self.block_bits());
            let needed_table = (last_block.max(block) + 1).div_ceil(per_table);
            if needed_blocks <= blocks && needed_table <= table {
                break;
            }
            (blocks, table) = (needed_blocks.max(blocks), needed_table.max(table));
        }
        if table << self.cluster_bits > REFTABLE_MAX_BYTES {
            return Err(Fault::Io(io::ErrorKind::StorageFull.into()));
        }
        self.reach(first, table + blocks)?;
        self.move_reftable(first, table, blocks, old_clusters)
    }

    fn move_reftable(&mut self, first: u64, table: u64, blocks: u64, old_clusters: u64) -> Result<(), Fault> {
        // What is in memory belongs to the table that is still in force.
        self.write_back()?;
        let mut entries = self.reftable.clone();
        entries.resize(usize::try_from(table * self.cluster_bytes() / 8).unwrap_or_default(), 0);
        let new = first..first + table + blocks;
        let first_block = first >> self.block_bits();
        let places: Vec<(usize, u64)> = (first_block..)
            .zip(first + table..new.end)
            .map(|(block, cluster)| (usize::try_from(block).unwrap_or(usize::MAX), cluster))
            .collect();
        for (block, cluster) in &places {
            self.write_block(*block, *cluster, new.clone())?;
            if let Some(entry) = entries.get_mut(*block) {
                *entry = cluster << self.cluster_bits;
            }
        }
        // The blocks first, then the table that refers to them, then the header that refers to the table.
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        let offset = first << self.cluster_bits;
        host_io::write(&self.host, &bytes, offset)?;
        self.sync()?;
        let clusters = u32::try_from(table).unwrap_or(u32::MAX);
        let fields = [&offset.to_be_bytes()[..], &clusters.to_be_bytes()].concat();
        host_io::write(&self.host, &fields, AT_REFTABLE)?;
        self.sync()?;
        self.reftable = entries;
        for cluster in first..first + table {
            self.owners.insert(cluster, Owner::RefTable);
        }
        for (block, cluster) in places {
            self.owners.insert(cluster, Owner::RefBlock(block));
        }
        let old = self.reftable_offset >> self.cluster_bits;
        self.reftable_offset = offset;
        for cluster in old..old + old_clusters {
            self.owners.remove(&cluster);
            self.drop_reference(cluster)?;
        }
        Ok(())
    }

    /// Makes sure that the L2 table number `l1_index` exists and belongs to the disk alone.
    pub(crate) fn own_l2(&mut self, l1_index: usize) -> Result<(), Fault> {
        let entry = self.l1.get(l1_index).copied().ok_or(Fault::Corrupt("the L1 table is too small"))?;
        let shared = match entry::l2_table(entry).map_err(Fault::Corrupt)? {
            Some(table) if table.owned => return Ok(()),
            shared => shared,
        };
        let run = self.allocate(1)?;
        let (to, bytes) = (run.first << self.cluster_bits, self.cluster_bytes());
        self.slices.forget(to, bytes);
        match shared {
            None => self.clear(run.first, run.fresh)?,
            // A snapshot refers to it as well. Its clusters are counted for both already.
            Some(table) => {
                let from = table.offset;
                if self.owners.get(&(from >> self.cluster_bits)) != Some(&Owner::L2(l1_index)) {
                    return Err(Fault::Corrupt("an L1 entry refers to no L2 table"));
                }
                let mut at = 0;
                while at < bytes {
                    let part = self.part(from + at, Kind::L2)?.0.bytes.clone();
                    host_io::write(&self.host, &part, to + at)?;
                    at += self.slices.slice_bytes();
                }
                self.owners.remove(&(from >> self.cluster_bits));
                self.frees.push(from >> self.cluster_bits, 1);
            }
        }
        self.owners.insert(run.first, Owner::L2(l1_index));
        if let Some(place) = self.l1.get_mut(l1_index) {
            *place = to | COPIED;
            self.dirty_l1.insert(l1_index);
        }
        Ok(())
    }

    /// Takes back what may be used again.
    pub(crate) fn reclaim(&mut self) -> Result<(), Fault> {
        while let Some(free) = self.frees.next() {
            for cluster in free.first..free.first + free.count {
                self.drop_reference(cluster)?;
            }
        }
        Ok(())
    }

    fn drop_reference(&mut self, cluster: u64) -> Result<(), Fault> {
        let count = self.refcount(cluster)?;
        let less = count.checked_sub(1).ok_or(Fault::Corrupt("a cluster in use has no reference"))?;
        self.set_refcount(cluster, less)?;
        if less == 0 {
            self.hint = self.hint.min(cluster);
            self.slices.forget(cluster << self.cluster_bits, self.cluster_bytes());
        }
        Ok(())
    }
}
