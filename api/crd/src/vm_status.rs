//! The status of a `VirtualMachine`: the controller's findings.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::disks::Disk;
use crate::status::ConditionStatus;
use crate::storage_status::{ChangedBlockTrackingStatus, StorageMigratedVolumeInfo};
use crate::vm::{InferFromVolumeFailurePolicy, RunStrategy};
use crate::volumes::HotplugVolumeSource;

/// What the controller found about a machine.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineStatus {
    /// Dirty-block tracking, the base of incremental backups.
    pub changed_block_tracking: Option<ChangedBlockTrackingStatus>,
    /// The machine's own conditions and those of its instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<VirtualMachineCondition>,
    /// An instance exists.
    pub created: Option<bool>,
    /// Generation that the instance should have.
    pub desired_generation: Option<i64>,
    /// Instance type that was applied.
    pub instancetype_ref: Option<InstancetypeStatusRef>,
    /// A memory dump that was asked for.
    pub memory_dump_request: Option<VirtualMachineMemoryDumpRequest>,
    /// Generation that the running instance was started from.
    pub observed_generation: Option<i64>,
    /// Preference that was applied.
    pub preference_ref: Option<InstancetypeStatusRef>,
    /// One word for people and dashboards.
    pub printable_status: Option<PrintableStatus>,
    /// The instance runs and is ready.
    pub ready: Option<bool>,
    /// Name of the VirtualMachineRestore at work.
    pub restore_in_progress: Option<String>,
    /// Strategy that was last in force; `RerunOnFailure` needs to know it.
    pub run_strategy: Option<RunStrategy>,
    /// Name of the VirtualMachineSnapshot at work.
    pub snapshot_in_progress: Option<String>,
    /// How often starting failed in a row, for the backoff.
    pub start_failure: Option<VirtualMachineStartFailure>,
    /// Starts and stops to be carried out, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state_change_requests: Vec<VirtualMachineStateChangeRequest>,
    /// Volumes to be attached or detached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_requests: Vec<VirtualMachineVolumeRequest>,
    /// For each volume, whether a snapshot of it can be taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_snapshot_statuses: Vec<VolumeSnapshotStatus>,
    /// Progress of a changed set of volumes.
    pub volume_update_state: Option<VolumeUpdateState>,
}

/// A machine's state in one word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum PrintableStatus {
    /// No instance, and none wanted.
    Stopped,
    /// Its DataVolumes are being filled.
    Provisioning,
    /// An instance exists and is not running yet.
    Starting,
    /// The guest runs.
    Running,
    /// The guest's vCPUs are stopped.
    Paused,
    /// The instance is going away.
    Stopping,
    /// The machine itself is being deleted.
    Terminating,
    /// It failed repeatedly and waits before the next try.
    CrashLoopBackOff,
    /// It moves to another node.
    Migrating,
    /// Its node does not answer.
    #[default]
    Unknown,
    /// No node takes the pod.
    ErrorUnschedulable,
    /// An image could not be pulled.
    ErrImagePull,
    /// Waiting before the next try to pull an image.
    ImagePullBackOff,
    /// A claim does not exist.
    ErrorPvcNotFound,
    /// A DataVolume failed.
    DataVolumeError,
    /// A claim waits for its first consumer.
    WaitingForVolumeBinding,
    /// Waits to receive a migration.
    WaitingForReceiver,
}

/// One condition of a machine.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineCondition {
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

/// Starts that failed in a row.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineStartFailure {
    /// How many.
    pub consecutive_fail_count: Option<u32>,
    /// The instance that failed last.
    #[serde(rename = "lastFailedVMIUID")]
    pub last_failed_vmiuid: Option<String>,
    /// No new try before this time.
    pub retry_after_timestamp: Option<Time>,
}

/// One step asked for through the API.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct VirtualMachineStateChangeRequest {
    /// What to do.
    pub action: StateChange,
    /// Parameters, for example `paused: "true"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// The instance to act on; unset for a start.
    pub uid: Option<String>,
}

/// A step that a state change request asks for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum StateChange {
    /// Make an instance.
    #[default]
    Start,
    /// End the instance.
    Stop,
}

/// A volume to be attached or detached: exactly one of the two is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineVolumeRequest {
    /// Attach this one.
    pub add_volume_options: Option<AddVolumeOptions>,
    /// Detach this one.
    pub remove_volume_options: Option<RemoveVolumeOptions>,
}

/// A volume to attach to a running machine.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AddVolumeOptions {
    /// How the guest sees it.
    pub disk: Disk,
    /// `["All"]` checks the request and changes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<String>,
    /// Name of the new volume and disk.
    pub name: String,
    /// Where the data is.
    pub volume_source: HotplugVolumeSource,
}

/// A volume to detach from a running machine.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RemoveVolumeOptions {
    /// `["All"]` checks the request and changes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<String>,
    /// Name of the volume.
    pub name: String,
}

/// A dump of guest memory into a claim.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineMemoryDumpRequest {
    /// The claim that receives it.
    pub claim_name: String,
    /// When the dump was complete.
    pub end_timestamp: Option<Time>,
    /// Name of the dump in the claim.
    pub file_name: Option<String>,
    /// Why it failed.
    pub message: Option<String>,
    /// How far it is: `Associating`, `InProgress`, `Unmounting`, `Completed`, `Dissociating` or `Failed`.
    pub phase: String,
    /// The claim is to be detached.
    pub remove: Option<bool>,
    /// When the dump began.
    pub start_timestamp: Option<Time>,
}

/// An instance type or preference as it was applied.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct InstancetypeStatusRef {
    /// The revision that holds its contents.
    pub controller_revision_ref: Option<ControllerRevisionRef>,
    /// Volume that named it.
    pub infer_from_volume: Option<String>,
    /// What was to happen had the volume named none.
    pub infer_from_volume_failure_policy: Option<InferFromVolumeFailurePolicy>,
    /// Its kind.
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
}

/// Names a ControllerRevision.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct ControllerRevisionRef {
    /// Its name.
    pub name: Option<String>,
}

/// Whether a snapshot of one volume can be taken.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct VolumeSnapshotStatus {
    /// It can.
    pub enabled: bool,
    /// The volume.
    pub name: String,
    /// Why it can or cannot.
    pub reason: Option<String>,
}

/// Progress of a changed set of volumes.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VolumeUpdateState {
    /// Progress of the storage migration.
    pub volume_migration_state: Option<VolumeMigrationState>,
}

/// Progress of a storage migration.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMigrationState {
    /// The volumes that move.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrated_volumes: Vec<StorageMigratedVolumeInfo>,
}
