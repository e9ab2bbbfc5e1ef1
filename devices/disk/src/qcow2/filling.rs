//! Clusters that are written for the first time: what they keep is read, then all of it is written, then they are the
//! guest's.

use std::io;

use super::engine::{Layer, Qcow2Engine};
use super::parts::{Part, whole, zeroes};
use super::work::Waiter;
use crate::engine::Operation;
use crate::memory::Memory;

impl<M: Memory> Qcow2Engine<M> {
    /// Reads what an allocation keeps of what was there before.
    pub(super) fn copy_edges(&mut self, number: usize) {
        let bytes = self.image.cluster_bytes();
        let Some(filling) = self.fillings.get(number) else { return };
        let (allocation, data_end) = (filling.allocation.clone(), filling.at + filling.len);
        let start = allocation.first * bytes;
        let end = start + allocation.count * bytes;
        let size = |bytes: u64| vec![0; usize::try_from(bytes).unwrap_or_default()];
        // The disk may end within its last cluster, whose rest is zeroes.
        let disk_end = self.image.size_bytes().clamp(data_end, end);
        let keeps = |copy: bool, len: u64| copy && len > 0;
        let mut reads = Vec::new();
        if keeps(allocation.copy_head, filling.at - start) {
            let head = filling.head.insert(size(filling.at - start));
            reads.push((start, whole(head)));
        }
        if keeps(allocation.copy_tail, disk_end - data_end) {
            let mut tail = size(disk_end - data_end);
            reads.push((data_end, whole(&mut tail)));
            filling.tail = Some(tail);
        }
        // One more, so that a read that is done at once does not go on before all are begun.
        filling.pending = 1;
        for (at, piece) in reads {
            let len = u64::try_from(piece.iov_len).unwrap_or_default();
            let (parts, result) = self.read_range(Waiter::Filling(number), at, len, &[piece]);
            if let Some(filling) = self.fillings.get(number) {
                filling.pending += parts;
                filling.error = filling.error.take().or(result.err());
            }
        }
        self.filled(number, Ok(()));
    }

    /// A part of an allocation is done.
    pub(super) fn filled(&mut self, number: usize, result: io::Result<()>) {
        let Some(filling) = self.fillings.get(number) else { return };
        filling.error = filling.error.take().or(result.err());
        filling.pending -= 1;
        if filling.pending > 0 {
            return;
        }
        if filling.error.is_none() && !filling.writing {
            self.write_clusters(number);
            return;
        }
        let Some(filling) = self.fillings.take(number) else { return };
        let settled = {
            let mut inner = self.image.lock();
            match filling.error {
                Some(error) => {
                    self.image.unsettle(&mut inner, &filling.allocation);
                    Err(error)
                }
                None => {
                    let settled = self.image.settle(&mut inner, &filling.allocation);
                    settled.map_err(|fault| self.image.error(&mut inner.tables, fault))
                }
            }
        };
        self.part_of_request(filling.request, settled);
    }

    pub(super) fn write_clusters(&mut self, number: usize) {
        let bytes = self.image.cluster_bytes();
        let Some(filling) = self.fillings.get(number) else { return };
        filling.writing = true;
        filling.pending = 1;
        let (slot, at, len) = (filling.request, filling.at, filling.len);
        let data = self.data(slot, at, len);
        let Some(filling) = self.fillings.get(number) else { return };
        let allocation = &filling.allocation;
        let start = allocation.first * bytes;
        let before = at - start;
        let after = start + allocation.count * bytes - (at + len);
        let (mut host, mut pieces) = (allocation.host, Vec::new());
        match &mut filling.head {
            Some(head) => pieces.push(whole(head)),
            None if allocation.fresh => host += before,
            None => pieces.extend(zeroes(before)),
        }
        pieces.extend(data);
        let kept = filling.tail.as_ref().map_or(0, |tail| u64::try_from(tail.len()).unwrap_or_default());
        pieces.extend(filling.tail.as_mut().map(|tail| whole(tail)));
        if !allocation.fresh {
            pieces.extend(zeroes(after - kept));
        }
        let from = Part::new(pieces);
        self.queue(Layer::File, Waiter::Filling(number), Operation::Write { offset: host, from });
    }
}
