//! Volumes: the storage behind disks and shared directories.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, LocalObjectReference};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::firmware::ImagePullPolicy;

/// A volume. Exactly one source is set, see [`Volume::source`].
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// cloud-init data as an OpenStack config drive (label `config-2`).
    pub cloud_init_config_drive: Option<CloudInitConfigDriveSource>,
    /// cloud-init data as a NoCloud disk (label `cidata`).
    pub cloud_init_no_cloud: Option<CloudInitNoCloudSource>,
    /// A ConfigMap's keys as files.
    pub config_map: Option<ConfigMapVolumeSource>,
    /// An image from a registry; changes are lost at the end.
    pub container_disk: Option<ContainerDiskSource>,
    /// A directory of the pod.
    pub container_path: Option<ContainerPathVolumeSource>,
    /// A claim that CDI fills first.
    pub data_volume: Option<DataVolumeVolumeSource>,
    /// Fields of the pod as files.
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<DownwardApiVolumeSource>,
    /// Host metrics as a disk.
    pub downward_metrics: Option<DownwardMetricsVolumeSource>,
    /// An empty disk; lost at the end.
    pub empty_disk: Option<EmptyDiskSource>,
    /// A claim read only, with changes that are lost at the end.
    pub ephemeral: Option<EphemeralVolumeSource>,
    /// A file on the node.
    pub host_disk: Option<HostDisk>,
    /// The claim that a memory dump goes to.
    pub memory_dump: Option<MemoryDumpVolumeSource>,
    /// Name by which disks and file systems refer to it; a DNS label, unique.
    pub name: String,
    /// A claim.
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    /// A Secret's keys as files.
    pub secret: Option<SecretVolumeSource>,
    /// A service account's token as files.
    pub service_account: Option<ServiceAccountVolumeSource>,
    /// Answer files for Windows setup (label `unattendCD`).
    pub sysprep: Option<SysprepSource>,
}

/// cloud-init data as an OpenStack config drive. For each of user and network data at most one form is set;
/// inline data has at most 2048 bytes.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CloudInitConfigDriveSource {
    /// Network configuration.
    pub network_data: Option<String>,
    /// Network configuration, base64.
    pub network_data_base64: Option<String>,
    /// Secret with key `networkdata` or `networkData`.
    pub network_data_secret_ref: Option<LocalObjectReference>,
    /// Secret with key `userdata` or `userData`.
    pub secret_ref: Option<LocalObjectReference>,
    /// User data.
    pub user_data: Option<String>,
    /// User data, base64.
    pub user_data_base64: Option<String>,
}

/// cloud-init data as a NoCloud disk. For each of user and network data at most one form is set; inline data
/// has at most 2048 bytes.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CloudInitNoCloudSource {
    /// Network configuration.
    pub network_data: Option<String>,
    /// Network configuration, base64.
    pub network_data_base64: Option<String>,
    /// Secret with key `networkdata` or `networkData`.
    pub network_data_secret_ref: Option<LocalObjectReference>,
    /// Secret with key `userdata` or `userData`.
    pub secret_ref: Option<LocalObjectReference>,
    /// User data.
    pub user_data: Option<String>,
    /// User data, base64.
    pub user_data_base64: Option<String>,
}

/// A ConfigMap's keys as files.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapVolumeSource {
    /// Name of the ConfigMap.
    pub name: Option<String>,
    /// It need not exist. Unset: `false`.
    pub optional: Option<bool>,
    /// Label of the disk. Unset: `cfgdata`.
    pub volume_label: Option<String>,
}

/// A Secret's keys as files.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SecretVolumeSource {
    /// It need not exist. Unset: `false`.
    pub optional: Option<bool>,
    /// Name of the Secret.
    pub secret_name: Option<String>,
    /// Label of the disk. Unset: `cfgdata`.
    pub volume_label: Option<String>,
}

/// Fields of the pod as files.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DownwardApiVolumeSource {
    /// The files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<DownwardAPIVolumeFile>,
    /// Label of the disk. Unset: `cfgdata`.
    pub volume_label: Option<String>,
}

/// A service account's token as files.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountVolumeSource {
    /// Name of the account.
    pub service_account_name: Option<String>,
}

/// Host metrics as a disk of 256 KiB; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DownwardMetricsVolumeSource {}

/// Answer files for Windows setup. Exactly one is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SysprepSource {
    /// ConfigMap that holds them.
    pub config_map: Option<LocalObjectReference>,
    /// Secret that holds them.
    pub secret: Option<LocalObjectReference>,
}

/// An image from a registry that holds one disk, owned by uid 107.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ContainerDiskSource {
    /// The image.
    pub image: String,
    /// When it is pulled. Unset: `Always` for `:latest` or no tag, else `IfNotPresent`.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secret with the registry's credentials.
    pub image_pull_secret: Option<String>,
    /// Path of the disk in the image. Unset: the only file in `/disk`.
    pub path: Option<String>,
}

/// A directory of the pod, which something else mounts there.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPathVolumeSource {
    /// Absolute path.
    pub path: String,
    /// The guest cannot write. Unset: `true`.
    pub read_only: Option<bool>,
}

/// A claim that CDI fills first.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DataVolumeVolumeSource {
    /// It can be detached from the running machine. Unset: `false`.
    pub hotpluggable: Option<bool>,
    /// Name of the DataVolume, and of the claim.
    pub name: String,
}

/// A claim: file `disk.img` in a file system, or a block device.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolumeClaimVolumeSource {
    /// Name of the claim.
    pub claim_name: String,
    /// It can be detached from the running machine. Unset: `false`.
    pub hotpluggable: Option<bool>,
    /// Mount it read only. Unset: `false`.
    pub read_only: Option<bool>,
}

/// A claim read only, with changes that are lost at the end.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct EphemeralVolumeSource {
    /// The claim.
    pub persistent_volume_claim: Option<core::PersistentVolumeClaimVolumeSource>,
}

/// An empty disk.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct EmptyDiskSource {
    /// Its size.
    pub capacity: Quantity,
}

/// A file on the node.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct HostDisk {
    /// Size of a file that is created.
    pub capacity: Option<Quantity>,
    /// Absolute path.
    pub path: String,
    /// Every node has the same file there. Unset: `false`.
    pub shared: Option<bool>,
    /// Whether it must exist.
    pub r#type: HostDiskType,
}

/// Whether the file of a host disk must exist.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum HostDiskType {
    /// It must.
    #[default]
    Disk,
    /// It is created where it does not; `capacity` is needed then.
    DiskOrCreate,
}

/// The claim that a memory dump goes to.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MemoryDumpVolumeSource {
    /// Name of the claim.
    pub claim_name: String,
    /// It can be detached from the running machine. Unset: `false`.
    pub hotpluggable: Option<bool>,
    /// Mount it read only. Unset: `false`.
    pub read_only: Option<bool>,
}

/// Source of a volume that is attached to a running machine. Exactly one is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct HotplugVolumeSource {
    /// A claim that CDI fills first.
    pub data_volume: Option<DataVolumeVolumeSource>,
    /// A claim.
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
}

/// A claim that serves an operation and is never a disk of the guest.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct UtilityVolume {
    /// Name of the claim.
    pub claim_name: String,
    /// Unique over all volumes.
    pub name: String,
    /// Mount it read only. Unset: `false`.
    pub read_only: Option<bool>,
    /// Which operation it serves.
    pub r#type: Option<String>,
}
