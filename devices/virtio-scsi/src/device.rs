//! The configuration side.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use orlop_state::{Record, State, StateError};
use orlop_virtio::{Device, DeviceType};

use crate::space::{FIRST_REQUEST_QUEUE, space};
use crate::state::ScsiState;
use crate::{Shared, lock};

pub(crate) struct Controller(Arc<Shared>);

impl Controller {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

impl Device for Controller {
    fn device_type(&self) -> DeviceType {
        DeviceType::Scsi
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> Vec<u16> {
        vec![self.0.queue_size; usize::from(self.0.queues.saturating_add(FIRST_REQUEST_QUEUE))]
    }

    fn negotiated(&mut self, _features: u64) {}

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let Shared { queues, queue_size, targets, sizes, .. } = &*self.0;
        let space = space(*queues, *queue_size, targets.len(), sizes);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        data.fill(0);
        for (to, from) in data.iter_mut().zip(space.get(start..).unwrap_or_default()) {
            *to = *from;
        }
    }

    fn config_write(&mut self, offset: u64, data: &[u8]) {
        self.0.sizes.write(offset, data);
    }

    fn reset(&mut self) {
        self.0.sizes.reset();
        self.0.resets.fetch_add(1, Ordering::Relaxed);
        for target in &self.0.targets {
            lock(&target.bay).unit.reset();
        }
    }

    fn save(&self) -> Result<Record, StateError> {
        let held: usize = self.0.targets.iter().map(|target| lock(&target.bay).held()).sum();
        if held > 0 {
            let reason = format!("{held} requests wait for the machine to go on after an error of the host");
            return Err(StateError::Invalid { kind: ScsiState::KIND, reason });
        }
        let (sense_bytes, cdb_bytes) = self.0.sizes.save();
        let units = self.0.targets.iter().map(|target| lock(&target.bay).unit.save()).collect();
        let Shared { queues, queue_size, .. } = *self.0;
        Record::write("", &ScsiState { queues, queue_size, sense_bytes, cdb_bytes, units })
    }

    fn restore(&mut self, record: &Record) -> Result<(), StateError> {
        let ScsiState { queues, queue_size, sense_bytes, cdb_bytes, units } = record.read()?;
        let invalid = |reason: String| StateError::Invalid { kind: ScsiState::KIND, reason };
        let own = (self.0.queues, self.0.queue_size, self.0.targets.len());
        if (queues, queue_size, units.len()) != own {
            return Err(invalid(format!(
                "queues, their size and units were {queues}, {queue_size}, {} and are {own:?}",
                units.len()
            )));
        }
        if !self.0.sizes.set((sense_bytes, cdb_bytes)) {
            return Err(invalid(format!("sense data of {sense_bytes} or commands of {cdb_bytes} bytes")));
        }
        for (number, (target, state)) in self.0.targets.iter().zip(&units).enumerate() {
            let restored = lock(&target.bay).restore(state);
            restored.map_err(|reason| invalid(format!("unit {number}: {reason}")))?;
        }
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.0.counters.list()
    }
}
