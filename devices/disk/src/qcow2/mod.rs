//! qcow2 images, versions 2 and 3 (QEMU docs/interop/qcow2.rst).
//!
//! ```text
//!   Engine of a queue ─ map ─▶ Tables (one for all queues, locked for moments) ─ part ─▶ Slices ─▶ file
//!        │  │                     └── allocate, give up, write back in order
//!        │  └─ data ─▶ engine on the file          (io_uring or plain calls)
//!        └──── old  ─▶ engine on the backing image (any format)
//! ```
//!
//! Everything in the file is hostile: it may have been made by anyone. What contradicts itself is an I/O error for the
//! request that met it; the image is marked as corrupt, and nothing is allocated in it any more. What a request reaches
//! is this file, and the backing image that the caller opened: no name in an image is ever opened.

mod alloc;
mod engine;
mod entry;
mod filling;
mod frees;
mod header;
mod inflate;
mod parts;
mod plan;
mod reading;
mod resize;
mod slices;
mod tables;
mod work;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::Disk;
use crate::format::{FormatError, read_up_to};
use crate::host::HostFile;
use header::{AT_AUTOCLEAR, CORRUPT, Compression, DIRTY, HEADER_MAX_BYTES, Header};
use tables::{Fault, Tables};

pub(crate) use engine::Qcow2Engine;
pub(crate) use resize::create;

/// An opened image; every queue of a device has an engine on it.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    host: Arc<HostFile>,
    backing: Option<Arc<Disk>>,
    compression: Compression,
    cluster_bits: u32,
    version: u32,
    size_bytes: AtomicU64,
    faults: AtomicU64,
    inner: Mutex<Inner>,
}

/// What engines share.
#[derive(Debug)]
pub(crate) struct Inner {
    tables: Tables,
    /// Guest clusters that are being allocated, as first and number.
    busy: Vec<(u64, u64)>,
    /// Engines that wait for one of them.
    waiting: Vec<Arc<EventFd>>,
}

impl Inner {
    /// Whether one of `count` guest clusters from `first` on is being allocated.
    fn is_busy(&self, first: u64, count: u64) -> bool {
        self.busy.iter().any(|(start, len)| first < start + len && *start < first + count)
    }

    /// Makes the tables durable, so that what was given up can be used again.
    fn make_room(&mut self) -> Result<(), Fault> {
        let epoch = self.tables.write_back()?;
        self.tables.sync()?;
        self.tables.frees.durable(epoch);
        self.tables.reclaim()
    }

    /// The allocation that began at `first` has ended; whoever waited may try again.
    fn done(&mut self, first: u64) {
        self.busy.retain(|(start, _)| *start != first);
        for event in self.waiting.drain(..) {
            // A counter that is full wakes as well.
            let _ = event.write(1);
        }
    }
}

impl Qcow2 {
    /// Reads the tables of the image in `host`, over `backing` if the image has one.
    pub(crate) fn open(host: Arc<HostFile>, backing: Option<Arc<Disk>>) -> Result<Self, FormatError> {
        let mut start = vec![0; HEADER_MAX_BYTES];
        let found = match host.direct() {
            None => read_up_to(host.file(), &mut start, 0)?,
            Some(_) => {
                start = crate::host_io::read_start(host.file(), true, HEADER_MAX_BYTES)?;
                start.len()
            }
        };
        start.truncate(found);
        let header = Header::parse(&start, host.stored_bytes())?;
        match (&header.backing, &backing) {
            (Some(name), None) => return Err(FormatError::NeedsBacking(name.clone())),
            (None, Some(_)) => return Err(FormatError::NeedsNoBacking),
            _ => {}
        }
        let blocks = backing.as_ref().map_or(0, |disk| disk.block_bytes()).max(host.block_bytes());
        if header.cluster_bytes() < u64::from(blocks) {
            let problem = format!("clusters of {} bytes on larger blocks", header.cluster_bytes());
            return Err(FormatError::Unsupported(problem));
        }
        if !host.is_read_only() {
            prepare_for_writing(&host, &header)?;
        }
        if header.size_bytes > u64::MAX >> 2 {
            return Err(FormatError::Limit { what: "size", value: header.size_bytes, limit: u64::MAX >> 2 });
        }
        let tables = Tables::read(&host, &header)?;
        host.unbound();
        Ok(Self {
            host,
            backing,
            compression: header.compression,
            cluster_bits: header.cluster_bits,
            version: header.version,
            size_bytes: AtomicU64::new(header.size_bytes),
            faults: AtomicU64::new(0),
            inner: Mutex::new(Inner { tables, busy: Vec::new(), waiting: Vec::new() }),
        })
    }

    /// The disk's size in bytes, up to a whole block.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire).next_multiple_of(u64::from(self.block_bytes()))
    }

    /// The smallest unit that can be read or written, in bytes.
    pub(crate) fn block_bytes(&self) -> u32 {
        self.backing.as_ref().map_or(0, |disk| disk.block_bytes()).max(self.host.block_bytes())
    }

    /// Bytes of the backing image; beyond them it is zeroes.
    fn backing_bytes(&self) -> u64 {
        self.backing.as_ref().map_or(0, |disk| disk.size_bytes())
    }

    /// Bytes of a cluster.
    pub(crate) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub(crate) fn host(&self) -> &Arc<HostFile> {
        &self.host
    }

    /// How often the image contradicted itself.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Makes the disk longer.
    pub(crate) fn grow(&self, size_bytes: u64) -> io::Result<()> {
        let mut inner = self.lock();
        if self.backing_bytes() > inner.tables.size_bytes {
            return Err(io::Error::other("its backing image is longer and would appear in what is new"));
        }
        let grown = inner.tables.grow(size_bytes);
        grown.map_err(|fault| self.error(&mut inner.tables, fault))?;
        self.size_bytes.store(size_bytes, Ordering::Release);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked has ended the process.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the request hears that met `fault`.
    fn error(&self, tables: &mut Tables, fault: Fault) -> io::Error {
        match fault {
            Fault::Io(error) => error,
            Fault::Corrupt(reason) => {
                self.faults.fetch_add(1, Ordering::Relaxed);
                tables.mark_corrupt(reason);
                io::Error::other(reason)
            }
        }
    }
}

/// Refuses an image whose counts cannot be trusted, and takes away marks of what is not kept up here.
fn prepare_for_writing(host: &HostFile, header: &Header) -> Result<(), FormatError> {
    if header.incompatible & CORRUPT != 0 {
        return Err(FormatError::ReadOnly("corrupt"));
    }
    if header.incompatible & DIRTY != 0 {
        return Err(FormatError::ReadOnly("not closed properly (dirty)"));
    }
    if header.autoclear != 0 {
        crate::host_io::write(host, &0_u64.to_be_bytes(), AT_AUTOCLEAR)?;
    }
    Ok(())
}

impl Drop for Qcow2 {
    /// Writes what is left: every engine is gone by now, so that no cluster needs to stay leaked.
    fn drop(&mut self) {
        if self.host.is_read_only() {
            return;
        }
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        // There is nobody left to tell; a guest that wanted to be sure has flushed.
        if inner.make_room().is_ok() && inner.tables.write_back().is_ok() {
            let _ = inner.tables.sync();
        }
    }
}
