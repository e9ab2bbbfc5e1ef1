//! The tables that say where a guest's bytes are, and the order in which they reach the disk.
//!
//! Tables are changed in memory and written by [`Tables::write_back`], so that a crash finds every reference after what
//! it refers to: reference counts, then the clusters' bytes, then L2 tables, then the L1 table.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::entry::{self, COPIED, Cluster, ZERO};
use super::frees::Frees;
use super::header::{AT_INCOMPATIBLE, CORRUPT, Header};
use super::slices::{Kind, Slices};
use crate::format::FormatError;
use crate::host::HostFile;
use crate::{host_io, sys};

/// Why a table cannot be used.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The host.
    Io(io::Error),
    /// The image contradicts itself.
    Corrupt(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Corrupt("a table goes beyond the end of the file");
        }
        Self::Io(error)
    }
}

/// What a cluster of the file is, if it is not data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Header,
    L1,
    RefTable,
    /// By its place in the refcount table.
    RefBlock(usize),
    /// By its place in the L1 table.
    L2(usize),
}

/// A part of the disk that lies in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// In the file from here on.
    Data(u64),
    Zero,
    /// Wherever the backing image has it.
    Backing,
    /// Compressed: its place in the file, its length there, and where in the cluster the extent begins.
    Compressed {
        offset: u64,
        len: u64,
        skip: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) host: Arc<HostFile>,
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) refcount_order: u32,
    pub(crate) snapshots: u32,
    pub(crate) has_backing: bool,
    pub(crate) size_bytes: u64,
    pub(crate) l1: Vec<u64>,
    pub(crate) l1_offset: u64,
    pub(crate) dirty_l1: BTreeSet<usize>,
    pub(crate) reftable: Vec<u64>,
    pub(crate) reftable_offset: u64,
    pub(crate) dirty_reftable: BTreeSet<usize>,
    pub(crate) slices: Slices,
    /// By cluster number: tables in use, which no data may overlap.
    pub(crate) owners: HashMap<u64, Owner>,
    pub(crate) file_bytes: u64,
    /// From here on nothing was ever written.
    pub(crate) zeroes_from: u64,
    /// No cluster before this one is free.
    pub(crate) hint: u64,
    pub(crate) frees: Frees,
    /// Why nothing is allocated any more.
    pub(crate) corrupt: Option<&'static str>,
    incompatible: u64,
}

impl Tables {
    /// Reads the L1 and refcount tables that `header` names.
    pub(crate) fn read(host: &Arc<HostFile>, header: &Header) -> Result<Self, FormatError> {
        let l1 = read_table(host, header.l1_offset, u64::from(header.l1_entries))?;
        let reftable_bytes = u64::from(header.reftable_clusters) << header.cluster_bits;
        let reftable = read_table(host, header.reftable_offset, reftable_bytes / 8)?;
        let file_bytes = host.stored_bytes();
        let mut tables = Self {
            host: Arc::clone(host),
            version: header.version,
            cluster_bits: header.cluster_bits,
            refcount_order: header.refcount_order,
            snapshots: header.snapshots,
            has_backing: header.backing.is_some(),
            size_bytes: header.size_bytes,
            l1,
            l1_offset: header.l1_offset,
            dirty_l1: BTreeSet::new(),
            reftable,
            reftable_offset: header.reftable_offset,
            dirty_reftable: BTreeSet::new(),
            slices: Slices::new(header.cluster_bytes()),
            owners: HashMap::new(),
            file_bytes,
            zeroes_from: file_bytes,
            hint: 0,
            frees: Frees::default(),
            corrupt: None,
            incompatible: header.incompatible,
        };
        tables.find_owners()?;
        Ok(tables)
    }

    /// Notes where tables are. Two at one place: the first one has it, and the other one is corrupt when it is used.
    fn find_owners(&mut self) -> Result<(), FormatError> {
        let l1_bytes = u64::try_from(self.l1.len()).unwrap_or(u64::MAX) * 8;
        let reftable_bytes = u64::try_from(self.reftable.len()).unwrap_or(u64::MAX) * 8;
        self.owners.insert(0, Owner::Header);
        for (at, len, owner) in
            [(self.reftable_offset, reftable_bytes, Owner::RefTable), (self.l1_offset, l1_bytes, Owner::L1)]
        {
            for cluster in self.clusters(at, len) {
                if self.owners.insert(cluster, owner).is_some() {
                    return Err(FormatError::Corrupt("its tables overlap"));
                }
            }
        }
        let blocks = self.reftable.iter().enumerate().map(|(index, at)| (*at, Owner::RefBlock(index)));
        let l2 = self.l1.iter().enumerate().filter_map(|(index, entry)| {
            let table = entry::l2_table(*entry).ok().flatten()?;
            Some((table.offset, Owner::L2(index)))
        });
        let within = |at: u64| at != 0 && at.is_multiple_of(self.cluster_bytes()) && at < self.file_bytes;
        let places: Vec<(u64, Owner)> = l2.chain(blocks).filter(|(at, _)| within(*at)).collect();
        for (at, owner) in places {
            self.owners.entry(at >> self.cluster_bits).or_insert(owner);
        }
        Ok(())
    }

    pub(crate) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The numbers of the clusters that hold `len` bytes from `offset` on.
    pub(crate) fn clusters(&self, offset: u64, len: u64) -> std::ops::Range<u64> {
        let end = offset.saturating_add(len).div_ceil(self.cluster_bytes());
        offset >> self.cluster_bits..end
    }

    /// The part of a table that holds the byte at `offset`, and where in it that is.
    pub(crate) fn part(
        &mut self,
        offset: u64,
        kind: Kind,
    ) -> Result<(&mut super::slices::Slice, usize), Fault> {
        let (at, within) = self.slices.split(offset);
        if !self.slices.contains(at) {
            while self.slices.is_full() && !self.slices.evict() {
                self.write_back()?;
            }
            let len = usize::try_from(self.slices.slice_bytes()).unwrap_or_default();
            let mut bytes = vec![0; len].into_boxed_slice();
            host_io::read(&self.host, &mut bytes, at)?;
            self.slices.insert(at, kind, bytes);
        }
        match self.slices.get(at) {
            Some(slice) if slice.kind == kind => Ok((slice, within)),
            _ => Err(Fault::Corrupt("one cluster is two tables")),
        }
    }

    /// Where the L2 entry of guest cluster `index` is in the file, and whether its table may be changed.
    fn place(&self, index: u64) -> Result<Option<(u64, bool)>, Fault> {
        let (l1_index, l2_index) = self.indices(index);
        let entry = self.l1.get(l1_index).copied().unwrap_or_default();
        let Some(table) = entry::l2_table(entry).map_err(Fault::Corrupt)? else { return Ok(None) };
        let aligned = table.offset.is_multiple_of(self.cluster_bytes());
        if !aligned || self.owners.get(&(table.offset >> self.cluster_bits)) != Some(&Owner::L2(l1_index)) {
            return Err(Fault::Corrupt("an L1 entry refers to no L2 table"));
        }
        Ok(Some((table.offset + l2_index * 8, table.owned)))
    }

    /// Where guest cluster `index` is noted: in which L2 table, and where in it.
    pub(crate) fn indices(&self, index: u64) -> (usize, u64) {
        let bits = self.cluster_bits - 3;
        (usize::try_from(index >> bits).unwrap_or(usize::MAX), index & ((1 << bits) - 1))
    }

    /// Where guest cluster `index` is.
    pub(crate) fn cluster(&mut self, index: u64) -> Result<Cluster, Fault> {
        let Some((place, _)) = self.place(index)? else { return Ok(Cluster::Unallocated) };
        let (slice, at) = self.part(place, Kind::L2)?;
        let raw = entry::get(&slice.bytes, at / 8).unwrap_or_default();
        let cluster = entry::cluster(raw, self.cluster_bits, self.version).map_err(Fault::Corrupt)?;
        let (offset, len) = match cluster {
            Cluster::Normal { offset, .. } | Cluster::Zero { kept: Some((offset, _)) } => (offset, 1),
            Cluster::Compressed { offset, len } => (offset, len),
            Cluster::Unallocated | Cluster::Zero { kept: None } => return Ok(cluster),
        };
        if offset >= self.file_bytes {
            return Err(Fault::Corrupt("an L2 entry refers beyond the end of the file"));
        }
        if self.clusters(offset, len).any(|cluster| self.owners.contains_key(&cluster)) {
            return Err(Fault::Corrupt("an L2 entry refers to a table"));
        }
        Ok(cluster)
    }

    /// Sets the L2 entry of guest cluster `index`, in a table that may be changed.
    pub(crate) fn set_cluster(&mut self, index: u64, raw: u64) -> Result<(), Fault> {
        self.own_l2(self.indices(index).0)?;
        let Some((place, true)) = self.place(index)? else {
            return Err(Fault::Corrupt("an L2 table is not where it was put"));
        };
        let (slice, at) = self.part(place, Kind::L2)?;
        entry::set(&mut slice.bytes, at / 8, raw);
        slice.dirty = true;
        Ok(())
    }

    /// What holds the first of `len` bytes at `offset` of the disk, and how many of them it holds.
    pub(crate) fn extent(&mut self, offset: u64, len: u64) -> Result<(Extent, u64), Fault> {
        let bytes = self.cluster_bytes();
        let skip = offset & (bytes - 1);
        let first = offset >> self.cluster_bits;
        let extent = match self.cluster(first)? {
            Cluster::Compressed { offset, len: stored } => {
                return Ok((Extent::Compressed { offset, len: stored, skip }, len.min(bytes - skip)));
            }
            other => Self::plain(other, skip, self.has_backing),
        };
        let mut held = bytes - skip;
        let mut next = first + 1;
        while held < len {
            let Ok(cluster) = self.cluster(next) else { break };
            let follows = match (extent, Self::plain(cluster, 0, self.has_backing)) {
                _ if matches!(cluster, Cluster::Compressed { .. }) => false,
                (Extent::Data(start), Extent::Data(here)) => start.checked_add(held) == Some(here),
                (one, other) => one == other,
            };
            if !follows {
                break;
            }
            held += bytes;
            next += 1;
        }
        Ok((extent, held.min(len)))
    }

    fn plain(cluster: Cluster, skip: u64, has_backing: bool) -> Extent {
        match cluster {
            Cluster::Normal { offset, .. } => Extent::Data(offset + skip),
            Cluster::Unallocated if has_backing => Extent::Backing,
            _ => Extent::Zero,
        }
    }

    /// Makes guest cluster `index` read as zeroes. With `unmap` its space is given up; then what was there may be
    /// punched out of the file, if it is returned. Without zero clusters (version 2) only an image without a backing
    /// image can do this.
    pub(crate) fn zero_cluster(&mut self, index: u64, unmap: bool) -> Result<Option<u64>, Fault> {
        let nothing = if self.has_backing { ZERO } else { 0 };
        let cluster = self.cluster(index)?;
        match cluster {
            Cluster::Unallocated if !self.has_backing => {}
            Cluster::Unallocated => self.set_cluster(index, nothing)?,
            Cluster::Zero { kept: None } => {}
            Cluster::Zero { kept: Some(_) } if !unmap => {}
            Cluster::Normal { offset, owned } if !unmap && self.version > 2 => {
                self.set_cluster(index, offset | ZERO | if owned { COPIED } else { 0 })?;
            }
            Cluster::Normal { .. } | Cluster::Zero { .. } | Cluster::Compressed { .. } => {
                self.set_cluster(index, nothing)?;
                self.give_up(cluster);
                if let Cluster::Normal { offset, owned: true } = cluster {
                    return Ok(Some(offset));
                }
            }
        }
        Ok(None)
    }

    /// What `cluster` referred to loses a reference.
    pub(crate) fn give_up(&mut self, cluster: Cluster) {
        let (offset, len) = match cluster {
            Cluster::Normal { offset, .. } | Cluster::Zero { kept: Some((offset, _)) } => (offset, 1),
            Cluster::Compressed { offset, len } => (offset, len),
            Cluster::Unallocated | Cluster::Zero { kept: None } => return,
        };
        let clusters = self.clusters(offset, len);
        self.frees.push(clusters.start, clusters.end - clusters.start);
    }

    /// Writes every table that was changed. Everything that was written before is durable where a reference to it was
    /// written; the references themselves are when the file is synchronized next. Returns what is durable then.
    pub(crate) fn write_back(&mut self) -> Result<u64, Fault> {
        self.write_slices(Kind::Refcounts)?;
        if !self.dirty_reftable.is_empty() {
            self.sync()?;
            let (table, at) = (&self.reftable, self.reftable_offset);
            write_entries(&self.host, table, at, &mut self.dirty_reftable)?;
        }
        let l2 = self.slices.dirty(Kind::L2);
        if !l2.is_empty() || !self.dirty_l1.is_empty() {
            self.sync()?;
            self.write_slices(Kind::L2)?;
        }
        if !self.dirty_l1.is_empty() {
            self.sync()?;
            write_entries(&self.host, &self.l1, self.l1_offset, &mut self.dirty_l1)?;
        }
        Ok(self.frees.written())
    }

    fn write_slices(&mut self, kind: Kind) -> Result<(), Fault> {
        for at in self.slices.dirty(kind) {
            if let Some(slice) = self.slices.get(at) {
                host_io::write(&self.host, &slice.bytes, at)?;
                slice.dirty = false;
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        sys::sync_data(self.host.as_raw_fd())
    }

    /// Marks the image as corrupt, in the file as well where it can be; nothing is allocated any more.
    pub(crate) fn mark_corrupt(&mut self, reason: &'static str) {
        if self.corrupt.is_some() {
            return;
        }
        self.corrupt = Some(reason);
        if !self.host.is_read_only() && self.version > 2 {
            self.incompatible |= CORRUPT;
            // What matters is that the request fails; that the mark may not be written changes nothing.
            let _ = host_io::write(&self.host, &self.incompatible.to_be_bytes(), AT_INCOMPATIBLE);
        }
    }
}

fn read_table(host: &HostFile, offset: u64, entries: u64) -> Result<Vec<u64>, FormatError> {
    // The header's limits bound it to a few MiB.
    let len = usize::try_from(entries * 8).unwrap_or_default();
    let mut bytes = vec![0; len];
    host_io::read(host, &mut bytes, offset)?;
    let (entries, _) = bytes.as_chunks::<8>();
    Ok(entries.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect())
}

fn write_entries(
    host: &HostFile,
    table: &[u64],
    offset: u64,
    dirty: &mut BTreeSet<usize>,
) -> Result<(), Fault> {
    while let Some(index) = dirty.first().copied() {
        let entry = table.get(index).copied().unwrap_or_default();
        let at = offset + u64::try_from(index).unwrap_or_default() * 8;
        host_io::write(host, &entry.to_be_bytes(), at)?;
        dirty.remove(&index);
    }
    Ok(())
}
