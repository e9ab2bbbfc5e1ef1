//! The part of an instance's status that is about volumes and backups.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::cdi::VolumeMode;

/// A volume of a running instance.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// The image of a container disk.
    pub container_disk_volume: Option<ContainerDiskInfo>,
    /// How far attaching is.
    pub hotplug_volume: Option<HotplugVolumeStatus>,
    /// A memory dump.
    pub memory_dump_volume: Option<DomainMemoryDumpInfo>,
    /// The reason as a sentence.
    pub message: Option<String>,
    /// Name of the volume.
    pub name: String,
    /// The claim behind it.
    pub persistent_volume_claim_info: Option<PersistentVolumeClaimInfo>,
    /// `Pending`, `Bound`, `AttachedToNode`, `MountedToPod`, `Ready`, `Detaching`, `UnMountedFromPod` or a
    /// phase of a memory dump.
    pub phase: Option<String>,
    /// The reason as one word.
    pub reason: Option<String>,
    /// Size in bytes.
    pub size: Option<i64>,
    /// Device name in the guest, for example `vda`.
    pub target: String,
}

/// The image of a container disk.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct ContainerDiskInfo {
    /// CRC-32 of the disk.
    pub checksum: Option<u32>,
}

/// How far attaching is.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct HotplugVolumeStatus {
    /// Pod that attaches it.
    pub attach_pod_name: Option<String>,
    /// UID of that pod.
    #[serde(rename = "attachPodUID")]
    pub attach_pod_uid: Option<String>,
}

/// A memory dump.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DomainMemoryDumpInfo {
    /// The claim that it is in.
    pub claim_name: Option<String>,
    /// When it was complete.
    pub end_timestamp: Option<Time>,
    /// When it began.
    pub start_timestamp: Option<Time>,
    /// Name of the file.
    pub target_file_name: Option<String>,
}

/// A claim.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolumeClaimInfo {
    /// For example `ReadWriteOnce`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// What it has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, Quantity>,
    /// Its name.
    pub claim_name: Option<String>,
    /// Share of the space that the file system needs, 0 to 1.
    pub filesystem_overhead: Option<String>,
    /// All space is allocated.
    pub preallocated: Option<bool>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// File system or block device.
    pub volume_mode: Option<VolumeMode>,
}

/// A volume that moves from one claim to another.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct StorageMigratedVolumeInfo {
    /// Where to.
    #[serde(rename = "destinationPVCInfo")]
    pub destination_pvc_info: Option<PersistentVolumeClaimInfo>,
    /// Where from.
    #[serde(rename = "sourcePVCInfo")]
    pub source_pvc_info: Option<PersistentVolumeClaimInfo>,
    /// Name of the volume.
    pub volume_name: String,
}

/// Dirty-block tracking.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ChangedBlockTrackingStatus {
    /// The last or current backup.
    pub backup_status: Option<BackupStatus>,
    /// How far it is.
    pub state: String,
}

/// A backup.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// What went wrong.
    pub backup_msg: Option<String>,
    /// Name of the VirtualMachineBackup.
    pub backup_name: Option<String>,
    /// Checkpoint that it made.
    pub checkpoint_name: Option<String>,
    /// It is done.
    pub completed: Option<bool>,
    /// When it ended.
    pub end_timestamp: Option<Time>,
    /// It failed.
    pub failed: Option<bool>,
    /// Whether the guest's file systems were frozen.
    pub quiesce_status: Option<String>,
    /// When it began.
    pub start_timestamp: Option<Time>,
    /// Volumes that it contains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<BackupVolumeInfo>,
}

/// A volume in a backup.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct BackupVolumeInfo {
    /// Its name.
    pub volume_name: String,
}
