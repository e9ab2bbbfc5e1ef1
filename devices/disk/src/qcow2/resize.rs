//! Growing the disk of an image, and making a new image.

use std::io;

use super::header::{AT_L1, AT_SIZE, Fresh, L1_MAX_BYTES, fresh, l1_entries_for};
use super::tables::{Fault, Owner, Tables};
use crate::format::FormatError;
use crate::host::HostFile;
use crate::host_io;

/// Clusters of new images, 64 KiB: QEMU's choice as well.
const CLUSTER_BITS: u32 = 16;

impl Tables {
    /// Makes the disk `size_bytes` long; what is new reads as zeroes.
    pub(crate) fn grow(&mut self, size_bytes: u64) -> Result<(), Fault> {
        let entries = l1_entries_for(size_bytes, self.cluster_bits);
        if entries * 8 > L1_MAX_BYTES {
            return Err(Fault::Io(io::Error::other("its L1 table would be too large")));
        }
        if self.snapshots > 0 && self.version < 3 {
            return Err(Fault::Io(io::Error::other("a version 2 image with snapshots cannot be resized")));
        }
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        if entries > self.l1.len() {
            self.move_l1(entries)?;
        }
        host_io::write(&self.host, &size_bytes.to_be_bytes(), AT_SIZE)?;
        self.sync()?;
        self.size_bytes = size_bytes;
        Ok(())
    }

    /// Writes the L1 table anew, with room for `entries`.
    fn move_l1(&mut self, entries: usize) -> Result<(), Fault> {
        // Everything that the table refers to is durable before it is written.
        self.write_back()?;
        let bytes = u64::try_from(entries).unwrap_or(u64::MAX) * 8;
        let wanted = bytes.div_ceil(self.cluster_bytes());
        let first = self.allocate_row(wanted)?;
        let mut table = self.l1.clone();
        table.resize(usize::try_from(wanted * self.cluster_bytes() / 8).unwrap_or(entries), 0);
        let raw: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        let offset = first << self.cluster_bits;
        host_io::write(&self.host, &raw, offset)?;
        self.write_back()?;
        self.sync()?;
        let count = u32::try_from(entries).unwrap_or(u32::MAX);
        let fields = [&count.to_be_bytes()[..], &offset.to_be_bytes()].concat();
        host_io::write(&self.host, &fields, AT_L1)?;
        self.sync()?;
        let old = self.clusters(self.l1_offset, u64::try_from(self.l1.len()).unwrap_or_default() * 8);
        table.truncate(entries);
        (self.l1, self.l1_offset) = (table, offset);
        for cluster in first..first + wanted {
            self.owners.insert(cluster, Owner::L1);
        }
        for cluster in old {
            self.owners.remove(&cluster);
            self.frees.push(cluster, 1);
        }
        Ok(())
    }

    /// Allocates `want` clusters in one row.
    fn allocate_row(&mut self, want: u64) -> Result<u64, Fault> {
        let mut short = Vec::new();
        let row = loop {
            let run = self.allocate(want);
            match run {
                Ok(run) if run.count >= want => break Ok(run.first),
                Ok(run) => short.push(run),
                Err(fault) => break Err(fault),
            }
        };
        for run in short {
            self.give_back(run.first, run.count);
        }
        row
    }
}

/// Makes a new image of `size_bytes` in an empty file, over a backing image with that name and format if there is one.
pub(crate) fn create(
    host: &HostFile,
    size_bytes: u64,
    backing: Option<(&str, &str)>,
) -> Result<(), FormatError> {
    let cluster = 1_u64 << CLUSTER_BITS;
    let entries = l1_entries_for(size_bytes, CLUSTER_BITS);
    let l1_bytes = entries * 8;
    if l1_bytes > L1_MAX_BYTES {
        return Err(FormatError::Limit { what: "L1 table in bytes", value: l1_bytes, limit: L1_MAX_BYTES });
    }
    // Header, refcount table, one block of reference counts, L1 table.
    let layout = Fresh { cluster_bits: CLUSTER_BITS, reftable_offset: cluster, l1_offset: cluster * 3 };
    let clusters = 3 + l1_bytes.div_ceil(cluster);
    let l1_entries = u32::try_from(entries).unwrap_or(u32::MAX);
    let header = fresh(size_bytes, l1_entries, &layout, backing);
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    host.file().set_len(clusters * cluster)?;
    host_io::write(host, &counts, cluster * 2)?;
    host_io::write(host, &(cluster * 2).to_be_bytes(), cluster)?;
    // The header last: an image that was not finished is none.
    host.file().sync_all()?;
    host_io::write(host, &header, 0)?;
    host.file().sync_all()?;
    host.set_stored_bytes(clusters * cluster);
    Ok(())
}
