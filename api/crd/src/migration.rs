//! Live migration: its state and its settings, as they appear in an instance's status.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// One migration of an instance.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MigrationState {
    /// It should stop.
    pub abort_requested: Option<bool>,
    /// Whether stopping worked.
    pub abort_status: Option<MigrationAbortStatus>,
    /// It is over.
    pub completed: Option<bool>,
    /// When it ended.
    pub end_timestamp: Option<Time>,
    /// It failed.
    pub failed: Option<bool>,
    /// Why.
    pub failure_reason: Option<String>,
    /// Settings that apply.
    pub migration_configuration: Option<MigrationOptions>,
    /// `Pod`, or `Migration` for a network of its own.
    pub migration_network_type: Option<String>,
    /// Policy that the settings came from.
    pub migration_policy_name: Option<String>,
    /// UID of the VirtualMachineInstanceMigration.
    pub migration_uid: Option<String>,
    /// How memory is copied now.
    pub mode: Option<MigrationMode>,
    /// Node that it leaves.
    pub source_node: Option<String>,
    /// Claim of its TPM and EFI state at the source.
    #[serde(rename = "sourcePersistentStatePVCName")]
    pub source_persistent_state_pvc_name: Option<String>,
    /// Pod that it leaves.
    pub source_pod: Option<String>,
    /// The source's view.
    pub source_state: Option<MigrationSourceState>,
    /// When it began.
    pub start_timestamp: Option<Time>,
    /// Pod that attaches volumes at the target.
    #[serde(rename = "targetAttachmentPodUID")]
    pub target_attachment_pod_uid: Option<String>,
    /// Host CPUs at the target.
    #[serde(rename = "targetCPUSet", default, skip_serializing_if = "Vec::is_empty")]
    pub target_cpu_set: Vec<i32>,
    /// Ports at the target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub target_direct_migration_node_ports: BTreeMap<String, i32>,
    /// Memory set aside for the VMM at the target.
    pub target_memory_overhead: Option<Quantity>,
    /// Node that it goes to.
    pub target_node: Option<String>,
    /// Address to connect to.
    pub target_node_address: Option<String>,
    /// The target's VMM is there.
    pub target_node_domain_detected: Option<bool>,
    /// When the guest ran at the target.
    pub target_node_domain_ready_timestamp: Option<Time>,
    /// NUMA topology of the target.
    pub target_node_topology: Option<String>,
    /// Claim of its TPM and EFI state at the target.
    #[serde(rename = "targetPersistentStatePVCName")]
    pub target_persistent_state_pvc_name: Option<String>,
    /// Pod that it goes to.
    pub target_pod: Option<String>,
    /// The target's view.
    pub target_state: Option<MigrationTargetState>,
}

/// Whether stopping a migration worked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MigrationAbortStatus {
    /// It is being stopped.
    Aborting,
    /// It could not be stopped.
    Failed,
    /// It was stopped.
    Succeeded,
}

/// How memory is copied.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum MigrationMode {
    /// While the guest runs at the source.
    #[default]
    PreCopy,
    /// While the guest runs at the target.
    PostCopy,
    /// While the guest is paused.
    Paused,
}

/// The source of a migration.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MigrationSourceState {
    /// Name of the machine in its VMM.
    pub domain_name: Option<String>,
    /// Namespace of the instance.
    pub domain_namespace: Option<String>,
    /// UID of the VirtualMachineInstanceMigration.
    #[serde(rename = "migrationUID")]
    pub migration_uid: Option<String>,
    /// Node.
    pub node: Option<String>,
    /// Node labels that the target must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selectors: BTreeMap<String, String>,
    /// Claim of its TPM and EFI state.
    #[serde(rename = "persistentStatePVCName")]
    pub persistent_state_pvc_name: Option<String>,
    /// Pod.
    pub pod: Option<String>,
    /// SELinux context of the VMM process.
    pub selinux_context: Option<String>,
    /// Where both ends exchange their state.
    pub sync_address: Option<String>,
    /// UID of the instance.
    #[serde(rename = "virtualMachineInstanceUID")]
    pub virtual_machine_instance_uid: Option<String>,
}

/// The target of a migration.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MigrationTargetState {
    /// Pod that attaches volumes.
    #[serde(rename = "attachmentPodUID")]
    pub attachment_pod_uid: Option<String>,
    /// Host CPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_set: Vec<i32>,
    /// Ports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub direct_migration_node_ports: BTreeMap<String, i32>,
    /// The VMM is there.
    pub domain_detected: Option<bool>,
    /// Name of the machine in its VMM.
    pub domain_name: Option<String>,
    /// Namespace of the instance.
    pub domain_namespace: Option<String>,
    /// When the guest ran.
    pub domain_ready_timestamp: Option<Time>,
    /// UID of the VirtualMachineInstanceMigration.
    #[serde(rename = "migrationUID")]
    pub migration_uid: Option<String>,
    /// Node.
    pub node: Option<String>,
    /// Address to connect to.
    pub node_address: Option<String>,
    /// NUMA topology.
    pub node_topology: Option<String>,
    /// Claim of its TPM and EFI state.
    #[serde(rename = "persistentStatePVCName")]
    pub persistent_state_pvc_name: Option<String>,
    /// Pod.
    pub pod: Option<String>,
    /// SELinux context of the VMM process.
    pub selinux_context: Option<String>,
    /// Where both ends exchange their state.
    pub sync_address: Option<String>,
    /// UID of the instance.
    #[serde(rename = "virtualMachineInstanceUID")]
    pub virtual_machine_instance_uid: Option<String>,
}

/// Settings of migrations.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MigrationConfiguration {
    /// Slow the guest down until memory is copied faster than it changes. Unset: `false`.
    pub allow_auto_converge: Option<bool>,
    /// Go on at the target before all memory is there. Unset: `false`.
    pub allow_post_copy: Option<bool>,
    /// Post-copy or pause rather than give up. Unset: `false`.
    pub allow_workload_disruption: Option<bool>,
    /// Bytes per second. Unset: 0, no limit.
    pub bandwidth_per_migration: Option<Quantity>,
    /// Seconds per GiB before it is given up. Unset: 150.
    #[serde(rename = "completionTimeoutPerGiB")]
    pub completion_timeout_per_gib: Option<u64>,
    /// Copy in the clear. Unset: `false`.
    #[serde(rename = "disableTLS")]
    pub disable_tls: Option<bool>,
    /// The target gets an SELinux level of its own. Unset: `false`.
    #[serde(rename = "matchSELinuxLevelOnMigration")]
    pub match_se_linux_level_on_migration: Option<bool>,
    /// Longest pause at the switch, in milliseconds. Unset: 900.
    pub max_downtime_ms: Option<u64>,
    /// Network to use. Unset: the pod network.
    pub network: Option<String>,
    /// Taint that marks a draining node. Unset: `kubevirt.io/drain`.
    pub node_drain_taint_key: Option<String>,
    /// At the same time in the cluster. Unset: 5.
    pub parallel_migrations_per_cluster: Option<u32>,
    /// At the same time from one node. Unset: 2.
    pub parallel_outbound_migrations_per_node: Option<u32>,
    /// Seconds without progress before it is given up. Unset: 150.
    pub progress_timeout: Option<u64>,
    /// Migrate even if that looks unsafe. Unset: `false`.
    pub unsafe_migration_override: Option<bool>,
    /// Seconds to wait for utility volumes to go. Unset: 150.
    pub utility_volumes_timeout: Option<u64>,
}

/// Settings of one migration: the cluster's, with those of a policy over them.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct MigrationOptions {
    /// What can be set for the whole cluster.
    #[serde(flatten)]
    pub configuration: MigrationConfiguration,
    /// Settings that may go away.
    pub experimental: Option<ExperimentalMigrationOptions>,
}

/// Settings that may go away.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentalMigrationOptions {
    /// Compression of the stream. Unset or `none`: off.
    pub compression: Option<String>,
    /// How the allowed pause grows.
    pub downtime_tuning: Option<DowntimeTuning>,
    /// How a stalled migration is noticed.
    pub stall_detector: Option<StallDetector>,
}

/// How the allowed pause grows from `initialMs` to `maxDowntimeMs`.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DowntimeTuning {
    /// Seconds between two steps. Unset: 10.
    pub cooldown_seconds: Option<u32>,
    /// First pause in milliseconds. Unset: 150.
    pub initial_ms: Option<u64>,
    /// Rounds of copying before the first step. Unset: 3.
    pub start_after_iteration: Option<u64>,
    /// Number of steps. Unset: 7.
    pub steps: Option<u32>,
}

/// How a stalled migration is noticed.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct StallDetector {
    /// Multiplies the completion timeout when a switch is forced. Unset: 2.
    pub completion_timeout_factor: Option<Quantity>,
    /// Weight of a new sample in the bandwidth's moving average, over 0 and up to 1. Unset: 0.4.
    pub ewma_alpha: Option<Quantity>,
    /// Multiplies the patience after each step. Unset: 0.5.
    pub patience_window_decay_factor: Option<Quantity>,
    /// How far the expected pause may exceed the allowed one. Unset: 1.5.
    pub precopy_possible_factor: Option<Quantity>,
    /// Wait for a minimum of what remains before acting. Unset: `true`.
    pub search_local_minima: Option<bool>,
    /// Tolerance in percent. Unset: 4.
    pub stall_margin: Option<u64>,
    /// Seconds that are looked back. Unset: 40.
    pub stall_progress_timeout: Option<u64>,
    /// Seconds that a switch may take. Unset: 60.
    pub switchover_timeout: Option<u64>,
}
