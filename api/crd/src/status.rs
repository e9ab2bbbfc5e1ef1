//! The status of a `VirtualMachineInstance`: what was found.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::cpu::CpuTopology;
use crate::domain::Machine;
use crate::migration::MigrationState;
use crate::storage_status::{ChangedBlockTrackingStatus, StorageMigratedVolumeInfo, VolumeStatus};

/// What was found about an instance.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceStatus {
    /// Context id of its vsock device; 3 and up.
    #[serde(rename = "VSOCKCID")]
    pub vsock_cid: Option<u32>,
    /// Node of each of its pods, by pod UID; two during a migration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub active_pods: BTreeMap<String, String>,
    /// Dirty-block tracking, the base of incremental backups.
    pub changed_block_tracking: Option<ChangedBlockTrackingStatus>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<VirtualMachineInstanceCondition>,
    /// Processors that the guest has now.
    #[serde(rename = "currentCPUTopology")]
    pub current_cpu_topology: Option<CpuTopology>,
    /// Node that it has to leave.
    pub evacuation_node_name: Option<String>,
    /// `frozen` while the guest's file systems were asked to be frozen.
    pub fs_freeze_status: Option<String>,
    /// What the guest agent says about the operating system.
    #[serde(rename = "guestOSInfo")]
    pub guest_os_info: Option<GuestOsInfo>,
    /// Network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<NetworkInterfaceStatus>,
    /// Checksums of a kernel booted directly.
    pub kernel_boot_status: Option<KernelBootStatus>,
    /// Image that the pod runs.
    pub launcher_container_image_version: Option<String>,
    /// Machine type in use.
    pub machine: Option<Machine>,
    /// Memory that the guest has now.
    pub memory: Option<MemoryStatus>,
    /// Volumes that move with a storage migration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrated_volumes: Vec<StorageMigratedVolumeInfo>,
    /// How it would migrate.
    pub migration_method: Option<MigrationMethod>,
    /// The last or current migration.
    pub migration_state: Option<MigrationState>,
    /// How the two ends of a migration talk.
    pub migration_transport: Option<String>,
    /// Node that it runs on.
    pub node_name: Option<String>,
    /// Where in its life it is.
    pub phase: Option<VmiPhase>,
    /// When each phase was reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phase_transition_timestamps: Vec<PhaseTransitionTimestamp>,
    /// Quality of service class of the pod.
    pub qos_class: Option<QosClass>,
    /// Why it failed, as one word.
    pub reason: Option<String>,
    /// User id of the VMM process.
    pub runtime_user: Option<u32>,
    /// SELinux context of the VMM process.
    pub selinux_context: Option<String>,
    /// What a node must offer to take it over.
    pub topology_hints: Option<TopologyHints>,
    /// ControllerRevision of the machine that it was started from.
    pub virtual_machine_revision_name: Option<String>,
    /// Volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_status: Vec<VolumeStatus>,
}

/// Where in its life an instance is. It only moves forward.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VmiPhase {
    /// Seen, without a pod.
    Pending,
    /// The pod exists.
    Scheduling,
    /// The pod is ready; the agent takes over.
    Scheduled,
    /// The guest runs, or is paused.
    Running,
    /// The guest was shut down.
    Succeeded,
    /// It crashed, or something it needs is gone.
    Failed,
    /// Target of a migration between clusters.
    WaitingForSync,
    /// The node does not answer.
    #[default]
    Unknown,
}

/// Quality of service class of a pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum QosClass {
    /// No requests.
    #[default]
    BestEffort,
    /// Some requests.
    Burstable,
    /// Requests equal to limits.
    Guaranteed,
}

/// What a migration has to copy.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MigrationMethod {
    /// Memory and local disks.
    BlockMigration,
    /// Memory only.
    LiveMigration,
}

/// Whether a condition holds.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ConditionStatus {
    /// It does.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    #[default]
    Unknown,
}

/// One condition of an instance.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceCondition {
    /// When it was last looked at.
    #[serialize_always]
    pub last_probe_time: Option<Time>,
    /// When `status` last changed.
    #[serialize_always]
    pub last_transition_time: Option<Time>,
    /// The reason as a sentence.
    pub message: Option<String>,
    /// The reason as one CamelCase word.
    pub reason: Option<String>,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Which condition, for example `Ready`.
    pub r#type: String,
}

/// When a phase was reached.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PhaseTransitionTimestamp {
    /// The phase.
    pub phase: Option<VmiPhase>,
    /// The time.
    pub phase_transition_timestamp: Option<Time>,
}

/// Memory that the guest has.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStatus {
    /// At boot.
    pub guest_at_boot: Option<Quantity>,
    /// Now.
    pub guest_current: Option<Quantity>,
    /// Wanted.
    pub guest_requested: Option<Quantity>,
    /// Set aside for the VMM.
    pub memory_overhead: Option<Quantity>,
}

/// What the guest agent says about the operating system (`os-release`).
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct GuestOsInfo {
    /// For example `debian`.
    pub id: Option<String>,
    /// As `uname -r`.
    pub kernel_release: Option<String>,
    /// As `uname -v`.
    pub kernel_version: Option<String>,
    /// As `uname -m`.
    pub machine: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Name and version.
    pub pretty_name: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// Version as a number.
    pub version_id: Option<String>,
}

/// A network interface of a running guest.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInterfaceStatus {
    /// Who knows of it: a list of `domain`, `guest-agent`, `multus-status`, joined by `, `.
    pub info_source: Option<String>,
    /// Name in the guest.
    pub interface_name: Option<String>,
    /// First address.
    pub ip_address: Option<String>,
    /// All addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_addresses: Vec<String>,
    /// `up` or `down`.
    pub link_state: Option<String>,
    /// MAC address.
    pub mac: Option<String>,
    /// Name in the spec.
    pub name: Option<String>,
    /// Name in the pod.
    pub pod_interface_name: Option<String>,
    /// Queue pairs.
    pub queue_count: Option<i32>,
}

/// What was booted directly.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct KernelBootStatus {
    /// The initial ramdisk.
    pub initrd_info: Option<InitrdInfo>,
    /// The kernel.
    pub kernel_info: Option<KernelInfo>,
}

/// A kernel.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct KernelInfo {
    /// CRC-32.
    pub checksum: Option<u32>,
}

/// An initial ramdisk.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct InitrdInfo {
    /// CRC-32.
    pub checksum: Option<u32>,
}

/// What a node must offer to take the guest over.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TopologyHints {
    /// TSC frequency in Hz.
    pub tsc_frequency: Option<i64>,
}
