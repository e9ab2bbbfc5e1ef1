//! The configuration side: the guest's context identifier and the saved state.

use std::sync::{Arc, Mutex};

use orlop_state::{Record, State, StateError};
use orlop_virtio::{Device, DeviceType};
use serde::{Deserialize, Serialize};

use crate::backend::lock;
use crate::counters::Counters;
use crate::muxer::Muxer;

/// `VIRTIO_VSOCK_F_STREAM` (virtio 1.3 §5.10.3).
const F_STREAM: u64 = 1 << 0;

/// Entries of the queues: packets to the guest, packets from it, events.
const QUEUE_SIZES: [u16; 3] = [256, 256, 16];

/// What the device keeps across a snapshot, beside what the frame saves. Connections are not kept: a restored guest
/// finds them reset, and reads its context identifier anew, which may be another one then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct VsockState {
    /// The context identifier that the guest had, 3 to 2^32 - 2.
    guest_cid: u64,
}

impl State for VsockState {
    const KIND: &'static str = "virtio-vsock";
    const VERSION: u16 = 1;
}

/// Whether a guest may have this context identifier (virtio 1.3 §5.10.4).
pub(crate) fn is_guest_cid(cid: u64) -> bool {
    (3..u64::from(u32::MAX)).contains(&cid)
}

pub(crate) struct VsockDevice {
    pub(crate) name: String,
    pub(crate) guest_cid: u64,
    pub(crate) muxer: Arc<Mutex<Muxer>>,
    pub(crate) counters: Arc<Counters>,
}

impl Device for VsockDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Vsock
    }

    fn features(&self) -> u64 {
        F_STREAM
    }

    fn queue_max_sizes(&self) -> Vec<u16> {
        QUEUE_SIZES.to_vec()
    }

    /// Streams are all there is, agreed on or not.
    fn negotiated(&mut self, _features: u64) {}

    /// `struct virtio_vsock_config { le64 guest_cid; }` (virtio 1.3 §5.10.4).
    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let space = self.guest_cid.to_le_bytes();
        let rest = usize::try_from(offset).ok().and_then(|offset| space.get(offset..)).unwrap_or_default();
        data.fill(0);
        data.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }

    /// Nothing is writable.
    fn config_write(&mut self, _offset: u64, _data: &[u8]) {}

    fn reset(&mut self) {
        lock(&self.muxer).clear();
    }

    fn save(&self) -> Result<Record, StateError> {
        Record::write(&self.name, &VsockState { guest_cid: self.guest_cid })
    }

    fn restore(&mut self, record: &Record) -> Result<(), StateError> {
        let VsockState { guest_cid } = record.read()?;
        if !is_guest_cid(guest_cid) {
            let reason = format!("{guest_cid} is not a guest's context identifier");
            return Err(StateError::Invalid { kind: VsockState::KIND, reason });
        }
        let mut muxer = lock(&self.muxer);
        muxer.clear();
        muxer.owes_transport_reset = true;
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.counters.named()
    }
}
