//! What sits on the machine's buses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// virtio block device (virtio 1.3 §5.2).
    Block,
    /// virtio SCSI controller (virtio 1.3 §5.6).
    Scsi,
    /// AHCI controller (AHCI 1.3.1).
    Ahci,
    /// Disk behind a controller.
    Disk,
    /// CD-ROM drive behind a controller.
    Cdrom,
    /// virtio network card (virtio 1.3 §5.1).
    Net,
    /// virtio console (virtio 1.3 §5.3).
    Console,
    /// virtio entropy source (virtio 1.3 §5.4).
    Rng,
    /// virtio memory balloon (virtio 1.3 §5.5).
    Balloon,
    /// virtio socket device (virtio 1.3 §5.10).
    Vsock,
    /// Part of the platform: host bridge, serial port, clock, power management.
    Platform,
}

/// One device, as in the answer of `GET /vm/devices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceInfo {
    /// Its name in the machine: that of its configuration, or of the device itself where there can be only one.
    pub id: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Its PCI address, `0000:00:03.0`; absent when it is not on that bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// How far the guest's driver is; absent for what is not virtio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtio: Option<VirtioInfo>,
    /// How its tray stands; absent for what is no CD-ROM drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tray: Option<TrayInfo>,
    /// What it counted since power-on; names carry their units: `read_bytes`.
    pub counters: BTreeMap<String, u64>,
}

/// How the tray of a CD-ROM drive stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrayInfo {
    /// It is out.
    pub open: bool,
    /// The guest has locked it.
    pub locked: bool,
    /// There is a medium on it.
    pub medium: bool,
}

/// The state of a virtio device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtioInfo {
    /// Device status (virtio 1.3 §2.1): 1 acknowledge, 2 driver, 4 driver ok, 8 features ok, 64 needs reset, 128 failed.
    pub status: u8,
    /// Numbers of the feature bits offered (virtio 1.3 §6).
    pub features_offered: Vec<u8>,
    /// Numbers of the feature bits that the driver took.
    pub features_accepted: Vec<u8>,
    /// Why the device needs a reset, when it does: the guest broke the contract in this way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Its queues in the order of their numbers.
    pub queues: Vec<QueueInfo>,
}

/// The state of a virtqueue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueInfo {
    /// Its number.
    pub index: u16,
    /// The size that the driver chose, in descriptors.
    pub size: u16,
    /// The largest size it may choose.
    pub max_size: u16,
    /// The driver enabled it.
    pub ready: bool,
    /// The device's next index into the available ring, free running; absent while the queue is being served and
    /// its thread could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_avail: Option<u16>,
    /// The device's next index into the used ring, free running; absent like `next_avail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_used: Option<u16>,
    /// Its MSI-X vector; absent while the driver gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vector: Option<u16>,
}

/// The numbers of the bits set in `features`, in rising order.
pub fn feature_bits(features: u64) -> Vec<u8> {
    (0..64).filter(|bit| features >> bit & 1 == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_bits_are_numbers_in_rising_order() {
        assert_eq!(feature_bits(1 << 63 | 1 << 32 | 1), [0, 32, 63]);
        assert!(feature_bits(0).is_empty());
    }
}
