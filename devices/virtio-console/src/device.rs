//! The configuration side.

use std::sync::Arc;

use orlop_state::{Record, State, StateError};
use orlop_virtio::{CHAIN_MAX_BYTES, Device, DeviceType};

use crate::shared::Shared;
use crate::state::ConsoleState;

/// `VIRTIO_CONSOLE_F_MULTIPORT` (virtio 1.3 §5.3.3).
pub(crate) const MULTIPORT: u32 = 1;
/// Size of each queue.
const QUEUE_SIZE: u16 = 128;
/// `struct virtio_console_config`: le16 cols, le16 rows, le32 max_nr_ports, le32 emerg_wr.
const MAX_PORTS_OFFSET: usize = 4;

pub(crate) struct Console {
    shared: Arc<Shared>,
}

impl Console {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Port 0 and the named ones.
    fn port_count(&self) -> u16 {
        u16::try_from(self.shared.names.len()).unwrap_or(u16::MAX).saturating_add(1)
    }

    /// Two queues per port and two for control messages (virtio 1.3 §5.3.2).
    pub(crate) fn queue_count(&self) -> u16 {
        self.port_count().saturating_add(1).saturating_mul(2)
    }
}

impl Device for Console {
    fn device_type(&self) -> DeviceType {
        DeviceType::Console
    }

    fn features(&self) -> u64 {
        1 << MULTIPORT
    }

    fn queue_max_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; usize::from(self.queue_count())]
    }

    fn negotiated(&mut self, _features: u64) {}

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let count = u32::from(self.port_count()).to_le_bytes();
        data.fill(0);
        for (to, at) in data.iter_mut().zip(usize::try_from(offset).unwrap_or(usize::MAX)..) {
            *to = at.checked_sub(MAX_PORTS_OFFSET).and_then(|at| count.get(at)).copied().unwrap_or(0);
        }
    }

    fn config_write(&mut self, _offset: u64, _data: &[u8]) {}

    fn reset(&mut self) {
        self.shared.reset();
    }

    fn save(&self) -> Result<Record, StateError> {
        Record::write("", &*self.shared.state())
    }

    fn restore(&mut self, record: &Record) -> Result<(), StateError> {
        let saved: ConsoleState = record.read()?;
        let invalid = |reason: String| StateError::Invalid { kind: ConsoleState::KIND, reason };
        let same_ports = saved.ports.iter().map(|port| &port.name).eq(&self.shared.names);
        if !same_ports {
            let found: Vec<_> = saved.ports.iter().map(|port| &port.name).collect();
            return Err(invalid(format!("the ports were {found:?} and are {:?}", self.shared.names)));
        }
        let sent_max = u32::try_from(CHAIN_MAX_BYTES).unwrap_or(u32::MAX);
        if let Some(port) = saved.ports.iter().find(|port| port.sent_bytes > sent_max) {
            let reason = format!("port '{}' has sent {} bytes of one request", port.name, port.sent_bytes);
            return Err(invalid(reason));
        }
        *self.shared.state() = saved;
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters.list()
    }
}
