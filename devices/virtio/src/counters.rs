//! What the frame counts, and the picture of a device that it gives to whoever looks.

use std::sync::atomic::{AtomicU16, AtomicU64};

use crate::DeviceType;

/// Counts of one queue since power-on, and where it stands. Written by the worker, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct QueueCounters {
    /// Notifications from the driver.
    pub kicks: AtomicU64,
    /// Requests taken.
    pub requests: AtomicU64,
    /// Interrupts sent.
    pub interrupts: AtomicU64,
    /// Next entry of the available ring.
    pub next_avail: AtomicU16,
    /// Next entry of the used ring.
    pub next_used: AtomicU16,
}

/// A device as it is at this moment, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What it is.
    pub device_type: DeviceType,
    /// Device status as the driver reads it (virtio 1.3 §2.1).
    pub status: u8,
    /// The features that the device has.
    pub offered: u64,
    /// The features that the driver accepted.
    pub features: u64,
    /// Whether its threads serve queues now.
    pub serving: bool,
    /// Guest faults since power-on.
    pub faults: u64,
    /// The fault that broke the device; `None` while it is not broken.
    pub fault: Option<&'static str>,
    /// Configuration change interrupts since power-on.
    pub config_interrupts: u64,
    /// By queue number.
    pub queues: Vec<QueueInspection>,
    /// The device's own counters.
    pub counters: Vec<(&'static str, u64)>,
}

/// One queue as it is at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueInspection {
    /// The largest size.
    pub max_size: u16,
    /// The size that the driver chose.
    pub size: u16,
    /// Whether the driver enabled it.
    pub ready: bool,
    /// MSI-X vector; `None` when the driver wants no interrupt.
    pub vector: Option<u16>,
    /// Next entry of the available ring.
    pub next_avail: u16,
    /// Next entry of the used ring.
    pub next_used: u16,
    /// Notifications from the driver since power-on.
    pub kicks: u64,
    /// Requests taken since power-on.
    pub requests: u64,
    /// Interrupts sent since power-on.
    pub interrupts: u64,
}
