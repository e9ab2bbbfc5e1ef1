//! The configuration side: there is next to nothing to configure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use orlop_state::{Record, State, StateError};
use orlop_virtio::{Device, DeviceType};
use serde::{Deserialize, Serialize};

/// Size of the queue; a driver has a handful of requests in flight.
const QUEUE_SIZE: u16 = 64;

/// What the device counted since power-on.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub entropy_bytes: AtomicU64,
    pub failed_requests: AtomicU64,
    pub throttled_requests: AtomicU64,
}

/// The state of an entropy device, version 1: nothing of it outlives a request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RngState {}

impl State for RngState {
    const KIND: &'static str = "virtio-rng";
    const VERSION: u16 = 1;
}

pub(crate) struct Entropy {
    counters: Arc<Counters>,
}

impl Entropy {
    pub fn new(counters: Arc<Counters>) -> Self {
        Self { counters }
    }
}

impl Device for Entropy {
    fn device_type(&self) -> DeviceType {
        DeviceType::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn negotiated(&mut self, _features: u64) {}

    fn config_read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn config_write(&mut self, _offset: u64, _data: &[u8]) {}

    fn reset(&mut self) {}

    fn save(&self) -> Result<Record, StateError> {
        Record::write("", &RngState {})
    }

    fn restore(&mut self, record: &Record) -> Result<(), StateError> {
        let RngState {} = record.read()?;
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counters { entropy_bytes, failed_requests, throttled_requests } = &*self.counters;
        vec![
            ("entropy_bytes", entropy_bytes.load(Relaxed)),
            ("failed_requests", failed_requests.load(Relaxed)),
            ("throttled_requests", throttled_requests.load(Relaxed)),
        ]
    }
}
