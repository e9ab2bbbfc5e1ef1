//! The configuration side: the target, what the driver says it gave, and the features.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, PoisonError};

use orlop_bus::{read_from, value};
use orlop_state::{Record, State, StateError};
use orlop_virtio::{Device, DeviceType};
use serde::{Deserialize, Serialize};

use crate::handle::{Counters, Shared};

/// There is a statistics queue (virtio 1.3 §5.5.3).
pub(crate) const F_STATS_VQ: u64 = 1 << 1;
/// The guest may deflate when it runs out of memory.
pub(crate) const F_DEFLATE_ON_OOM: u64 = 1 << 2;
/// There is a queue for reporting free pages.
pub(crate) const F_PAGE_REPORTING: u64 = 1 << 5;

/// Size of the queues: Linux reports 32 runs of free pages in one request.
const QUEUE_SIZE: u16 = 128;
/// Offset of `actual` in the configuration (virtio 1.3 §5.5.4).
const ACTUAL: u64 = 4;

/// The state of a balloon, version 1.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BalloonState {
    /// What the host asked for, in pages.
    target_pages: u32,
    /// What the driver said that it gave, in pages.
    actual_pages: u32,
}

impl State for BalloonState {
    const KIND: &'static str = "virtio-balloon";
    const VERSION: u16 = 1;
}

pub(crate) struct Balloon {
    features: u64,
    shared: Arc<Shared>,
}

impl Balloon {
    pub fn new(deflate_on_oom: bool, free_page_reporting: bool, shared: Arc<Shared>) -> Self {
        let oom = if deflate_on_oom { F_DEFLATE_ON_OOM } else { 0 };
        let reporting = if free_page_reporting { F_PAGE_REPORTING } else { 0 };
        Self { features: F_STATS_VQ | oom | reporting, shared }
    }

    /// The numbers of its queues: inflate, deflate, statistics, and free pages if they are reported.
    pub fn queues(&self) -> std::ops::Range<u16> {
        0..if self.features & F_PAGE_REPORTING != 0 { 4 } else { 3 }
    }
}

impl Device for Balloon {
    fn device_type(&self) -> DeviceType {
        DeviceType::Balloon
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_max_sizes(&self) -> Vec<u16> {
        self.queues().map(|_| QUEUE_SIZE).collect()
    }

    fn negotiated(&mut self, _features: u64) {}

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let pages = [&self.shared.target_pages, &self.shared.actual_pages];
        let image: Vec<u8> = pages.iter().flat_map(|pages| pages.load(SeqCst).to_le_bytes()).collect();
        read_from(&image, offset, data);
    }

    fn config_write(&mut self, offset: u64, data: &[u8]) {
        if let (ACTUAL, 4, Ok(pages)) = (offset, data.len(), u32::try_from(value(data))) {
            self.shared.actual_pages.store(pages, SeqCst);
        }
    }

    /// A driver that starts anew holds nothing; what the host wants stays.
    fn reset(&mut self) {
        self.shared.actual_pages.store(0, SeqCst);
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn save(&self) -> Result<Record, StateError> {
        let target_pages = self.shared.target_pages.load(SeqCst);
        let actual_pages = self.shared.actual_pages.load(SeqCst);
        Record::write("", &BalloonState { target_pages, actual_pages })
    }

    fn restore(&mut self, record: &Record) -> Result<(), StateError> {
        let BalloonState { target_pages, actual_pages } = record.read()?;
        self.shared.target_pages.store(target_pages, SeqCst);
        self.shared.actual_pages.store(actual_pages, SeqCst);
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counters { inflated_pages, deflated_pages, reported_bytes, bad_pages, refused_pages } =
            &self.shared.counters;
        vec![
            ("inflated_pages", inflated_pages.load(Relaxed)),
            ("deflated_pages", deflated_pages.load(Relaxed)),
            ("reported_bytes", reported_bytes.load(Relaxed)),
            ("bad_pages", bad_pages.load(Relaxed)),
            ("refused_pages", refused_pages.load(Relaxed)),
        ]
    }
}
