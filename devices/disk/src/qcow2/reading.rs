//! Reading: from the file, from the backing image, or out of a compressed cluster.

use std::io;
use std::sync::Arc;

use super::engine::{Layer, Qcow2Engine, Step};
use super::inflate::inflate;
use super::parts::{Part, clear, slice, store, whole};
use super::tables::{Extent, Fault};
use super::work::{Packed, Underway, Waiter};
use crate::engine::Operation;
use crate::memory::Memory;

/// Decompressed clusters that are kept, in bytes: a reader that goes on finds the rest of its cluster.
const KEPT_BYTES: u64 = 256 << 10;

impl<M: Memory> Qcow2Engine<M> {
    pub(super) fn read(&mut self, slot: usize, at: u64, len: u64) -> io::Result<Step> {
        let Some(request) = self.requests.get(slot) else { return Ok(Step::Taken) };
        // Whole requests are read in one step.
        let whole = request.pieces.clone();
        let (parts, result) = self.read_range(Waiter::Request(slot), at, len, whole.pieces());
        self.took(slot, len, parts);
        result.map(|()| Step::Taken)
    }

    /// Reads a range of the disk into `pieces`, as it is now. How many parts are on their way, whatever the result.
    pub(super) fn read_range(
        &mut self,
        waiter: Waiter,
        at: u64,
        len: u64,
        pieces: &[libc::iovec],
    ) -> (usize, io::Result<()>) {
        let image = Arc::clone(&self.image);
        let mut inner = image.lock();
        let (mut done, mut parts) = (0, 0);
        while done < len {
            let (extent, held) = match inner.tables.extent(at + done, len - done) {
                Ok(found) => found,
                Err(fault) => return (parts, Err(image.error(&mut inner.tables, fault))),
            };
            parts += self.read_extent(waiter, extent, at + done, slice(pieces, done, held), held);
            done += held;
        }
        (parts, Ok(()))
    }

    pub(super) fn read_extent(
        &mut self,
        waiter: Waiter,
        extent: Extent,
        at: u64,
        to: Vec<libc::iovec>,
        len: u64,
    ) -> usize {
        match extent {
            Extent::Zero => clear(to),
            Extent::Data(offset) => {
                self.queue(Layer::File, waiter, Operation::Read { offset, to: Part::new(to) });
                return 1;
            }
            Extent::Backing => {
                let there = self.image.backing_bytes().saturating_sub(at).min(len);
                clear(slice(&to, there, len - there));
                if there > 0 {
                    let to = Part::new(slice(&to, 0, there));
                    self.queue(Layer::Backing, waiter, Operation::Read { offset: at, to });
                    return 1;
                }
            }
            Extent::Compressed { offset, len: stored, skip } => {
                let skip = usize::try_from(skip).unwrap_or_default();
                if let Some((_, cluster)) = self.kept.iter().find(|(place, _)| *place == offset) {
                    store(&Part::new(to), cluster.get(skip..).unwrap_or_default());
                } else {
                    self.read_packed(waiter, offset, stored, skip, Part::new(to));
                    return 1;
                }
            }
        }
        0
    }

    pub(super) fn read_packed(&mut self, waiter: Waiter, offset: u64, len: u64, skip: usize, to: Part) {
        let block = u64::from(self.image.host().block_bytes());
        let start = offset & !(block - 1);
        let end = (offset + len).next_multiple_of(block);
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or_default();
        let mut packed = Packed {
            stored: vec![0; size(end - start)],
            from: size(offset - start),
            len: size(len),
            offset,
            skip,
            to,
        };
        let piece = whole(&mut packed.stored);
        let number = self.underway.insert(Underway { waiter, packed: Some(packed) });
        let to = Part::new(vec![piece]);
        self.queued.push_back((Layer::File, number, Operation::Read { offset: start, to }));
    }

    pub(super) fn unpack(&mut self, packed: Packed) -> io::Result<()> {
        let Packed { stored, from, len, offset, skip, to } = packed;
        if let Some((_, cluster)) = self.kept.iter().find(|(place, _)| *place == offset) {
            store(&to, cluster.get(skip..).unwrap_or_default());
            return Ok(());
        }
        let size = usize::try_from(self.image.cluster_bytes()).unwrap_or_default();
        let stored = stored.get(from..from.saturating_add(len)).unwrap_or_default();
        let cluster = inflate(stored, self.image.compression, size).map_err(|reason| {
            let mut inner = self.image.lock();
            self.image.error(&mut inner.tables, Fault::Corrupt(reason))
        })?;
        store(&to, cluster.get(skip..).unwrap_or_default());
        let most = usize::try_from(KEPT_BYTES / self.image.cluster_bytes()).unwrap_or_default().clamp(1, 64);
        self.kept.truncate(most.saturating_sub(1));
        self.kept.push_front((offset, cluster));
        Ok(())
    }
}
