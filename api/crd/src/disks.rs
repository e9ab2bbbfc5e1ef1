//! Disks as the guest sees them; the storage behind them is in [`volumes`](crate::volumes).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::features::FeatureState;

/// A disk. At most one of `disk`, `cdrom` and `lun` is set; none means `disk`. See [`Disk::target`].
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Sector sizes that the guest sees.
    pub block_size: Option<BlockSize>,
    /// Place in the boot order, from 1; unique over disks and interfaces. Unset: not booted from, once
    /// another device has one.
    pub boot_order: Option<u32>,
    /// How the host caches. Unset: `none` where the storage can, else `writethrough`.
    pub cache: Option<DiskCache>,
    /// A CD-ROM drive.
    pub cdrom: Option<CdromTarget>,
    /// Track which blocks change, for incremental backups.
    pub changed_block_tracking: Option<bool>,
    /// An I/O thread of its own. Unset: `false`.
    #[serde(rename = "dedicatedIOThread")]
    pub dedicated_io_thread: Option<bool>,
    /// A plain disk.
    pub disk: Option<DiskTarget>,
    /// What a failed request does. Unset: `stop`.
    pub error_policy: Option<DiskErrorPolicy>,
    /// How requests reach the host. Unset: chosen from the storage.
    pub io: Option<DiskIo>,
    /// A SCSI logical unit passed through.
    pub lun: Option<LunTarget>,
    /// Name of the volume behind it; unique.
    pub name: String,
    /// Serial number: `[A-Za-z0-9_.+-]`, at most 256 bytes, of which virtio-blk shows 20.
    pub serial: Option<String>,
    /// Several machines may write to it at the same time. Unset: `false`.
    pub shareable: Option<bool>,
    /// Passed to the guest by the cloud-init config drive.
    pub tag: Option<String>,
}

/// Bus of a disk.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum DiskBus {
    /// AHCI. The default on amd64.
    Sata,
    /// virtio-scsi.
    Scsi,
    /// USB storage; plain disks only.
    Usb,
    /// virtio-blk. Not for CD-ROMs.
    Virtio,
}

/// How the host caches a disk.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum DiskCache {
    /// Not at all (O_DIRECT).
    None,
    /// Reads only; a write is done when it is on the medium.
    Writethrough,
    /// Reads and writes; the guest's flushes decide.
    Writeback,
}

/// What a failed request does.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum DiskErrorPolicy {
    /// Pauses the machine.
    #[default]
    Stop,
    /// Nothing; the guest is told that it went well.
    Ignore,
    /// The guest sees an I/O error.
    Report,
    /// Pauses the machine when space ran out, else as `report`.
    Enospace,
}

/// How requests reach the host.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum DiskIo {
    /// As the VMM thinks best.
    Default,
    /// Asynchronous I/O of the kernel.
    Native,
    /// Blocking calls on a pool of threads.
    Threads,
}

/// A plain disk.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DiskTarget {
    /// Unset: `sata` on amd64, else `virtio`.
    pub bus: Option<DiskBus>,
    /// PCI address, for example `0000:05:00.0`; virtio only.
    pub pci_address: Option<String>,
    /// Refuse writes. Unset: `false`.
    pub readonly: Option<bool>,
}

/// A CD-ROM drive.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct CdromTarget {
    /// Unset: `sata` on amd64, else `scsi`.
    pub bus: Option<DiskBus>,
    /// Unset: `true`.
    pub readonly: Option<bool>,
    /// Unset: `closed`.
    pub tray: Option<Tray>,
}

/// State of a CD-ROM tray.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum Tray {
    /// Closed.
    #[default]
    Closed,
    /// Open.
    Open,
}

/// A SCSI logical unit, with SCSI commands passed through.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct LunTarget {
    /// `scsi`: no other bus passes commands through.
    pub bus: Option<DiskBus>,
    /// Refuse writes. Unset: `false`.
    pub readonly: Option<bool>,
    /// Allow persistent reservations. Unset: `false`.
    pub reservation: Option<bool>,
}

/// Sector sizes. At most one of the two is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct BlockSize {
    /// These sizes.
    pub custom: Option<CustomBlockSize>,
    /// Those of the volume.
    pub match_volume: Option<FeatureState>,
}

/// Sector sizes in bytes: powers of two from 512 to 2 MiB.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CustomBlockSize {
    /// Smallest range that can be discarded.
    pub discard_granularity: Option<u32>,
    /// Smallest unit of a request.
    pub logical: Option<u32>,
    /// Unit of the medium; at least `logical`.
    pub physical: Option<u32>,
}
