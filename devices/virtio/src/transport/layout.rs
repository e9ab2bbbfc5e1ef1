//! Where things are: the one BAR of a virtio-pci function, and what identifies it (virtio 1.3 §4.1).
//!
//! ```text
//!   0x0000  common configuration     0x4000  MSI-X table
//!   0x1000  ISR status               0x6000  MSI-X pending bits
//!   0x2000  device configuration     0x8000  end
//!   0x3000  notifications: queue N at 0x3000 + 4 × N
//! ```

use crate::DeviceType;

/// The BAR that holds everything: 64 bits, BAR 0 and 1.
pub const BAR: u8 = 0;
/// Its length in bytes; its address is a multiple of it.
pub const BAR_BYTES: u64 = 0x8000;
/// Common configuration (virtio 1.3 §4.1.4.3).
pub const COMMON: u64 = 0x0000;
/// Length of the common configuration in bytes, up to and with `queue_reset`.
pub const COMMON_BYTES: u32 = 0x3c;
/// ISR status (virtio 1.3 §4.1.4.5).
pub const ISR: u64 = 0x1000;
/// Device-specific configuration (virtio 1.3 §4.1.4.6).
pub const DEVICE: u64 = 0x2000;
/// Notifications (virtio 1.3 §4.1.4.4).
pub const NOTIFY: u64 = 0x3000;
/// Bytes between the notification addresses of two queues.
pub const NOTIFY_MULTIPLIER: u32 = 4;
/// MSI-X table.
pub const TABLE: u64 = 0x4000;
/// MSI-X pending bits.
pub const PBA: u64 = 0x6000;
/// Granularity of the layout in bytes.
pub const PAGE_BYTES: u64 = 0x1000;
/// The most queues that fit: the MSI-X table holds one vector per queue and one for the configuration.
pub const QUEUES_MAX: usize = 511;

/// PCI vendor of virtio devices.
pub const VENDOR: u16 = 0x1af4;
/// PCI device id of a modern device is this plus its type (virtio 1.3 §4.1.2).
pub const DEVICE_BASE: u16 = 0x1040;
/// PCI subsystem id; drivers ignore it.
pub const SUBSYSTEM: u16 = 0x1100;
/// Revision of a modern device (virtio 1.3 §4.1.2.1).
pub const REVISION: u8 = 1;

/// Class code: base class, sub-class, programming interface.
pub(super) fn class(device: DeviceType) -> [u8; 3] {
    match device {
        DeviceType::Net => [0x02, 0x00, 0x00],
        DeviceType::Scsi => [0x01, 0x00, 0x00],
        DeviceType::Block => [0x01, 0x80, 0x00],
        DeviceType::Console | DeviceType::Vsock => [0x07, 0x80, 0x00],
        DeviceType::Entropy | DeviceType::Balloon => [0xff, 0x00, 0x00],
    }
}
