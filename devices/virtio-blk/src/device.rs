//! The configuration side.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use orlop_state::{Record, State, StateError};
use orlop_virtio::{Device, DeviceType};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_CONFIG_WCE;

use crate::Shared;
use crate::space::{Geometry, WRITEBACK};
use crate::state::BlockState;

pub(crate) struct Block {
    shared: Arc<Shared>,
    negotiated: u64,
}

impl Block {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, negotiated: 0 }
    }

    fn state(&self) -> BlockState {
        let Geometry {
            size_bytes,
            block_bytes,
            physical_block_bytes: _,
            discard_bytes: _,
            read_only,
            queues,
            queue_size,
        } = self.shared.geometry();
        let writeback = self.shared.writeback.load(Ordering::Relaxed);
        BlockState { size_bytes, block_bytes, read_only, queues, queue_size, writeback }
    }
}

impl Device for Block {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn features(&self) -> u64 {
        self.shared.geometry.features()
    }

    fn queue_max_sizes(&self) -> Vec<u16> {
        vec![self.shared.geometry.queue_size; usize::from(self.shared.geometry.queues)]
    }

    fn negotiated(&mut self, features: u64) {
        self.negotiated = features;
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let space = self.shared.geometry().space(self.shared.writeback.load(Ordering::Relaxed));
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = space.get(start..).unwrap_or_default();
        data.fill(0);
        for (to, from) in data.iter_mut().zip(there) {
            *to = *from;
        }
    }

    fn config_write(&mut self, offset: u64, data: &[u8]) {
        if self.negotiated & 1 << VIRTIO_BLK_F_CONFIG_WCE == 0 {
            return;
        }
        let byte = WRITEBACK.checked_sub(offset).and_then(|at| data.get(usize::try_from(at).ok()?));
        if let Some(byte) = byte {
            self.shared.writeback.store(byte & 1 == 1, Ordering::Relaxed);
        }
    }

    fn reset(&mut self) {
        self.negotiated = 0;
        self.shared.writeback.store(self.shared.caches, Ordering::Relaxed);
        self.shared.resets.fetch_add(1, Ordering::Relaxed);
        self.shared.held.store(0, Ordering::Relaxed);
    }

    fn save(&self) -> Result<Record, StateError> {
        let held = self.shared.held.load(Ordering::Relaxed);
        if held > 0 {
            let reason = format!("{held} requests wait for the machine to go on after an error of the host");
            return Err(StateError::Invalid { kind: BlockState::KIND, reason });
        }
        Record::write("", &self.state())
    }

    fn restore(&mut self, record: &Record) -> Result<(), StateError> {
        let saved: BlockState = record.read()?;
        let expected = BlockState { writeback: saved.writeback, ..self.state() };
        if saved != expected {
            let reason = format!("the disk was {saved:?} and is {expected:?}");
            return Err(StateError::Invalid { kind: BlockState::KIND, reason });
        }
        self.shared.writeback.store(saved.writeback, Ordering::Relaxed);
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters()
    }
}
