//! `VirtualMachineInstanceMigration`: the wish to move a running instance to another node.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::condition::Condition;
use crate::migration::MigrationState;
use crate::resource::ApiVersion;

/// One move of a running instance to another node. It is carried out once; deleting it cancels the move.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceMigration {
    /// Group and version that the manifest is written for.
    #[serde(default)]
    pub api_version: ApiVersion,
    /// Always `VirtualMachineInstanceMigration`.
    #[serde(default)]
    pub kind: VirtualMachineInstanceMigrationKind,
    /// Name, namespace, labels and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is to be moved. Cannot be changed later.
    pub spec: VirtualMachineInstanceMigrationSpec,
    /// How far it got.
    pub status: Option<VirtualMachineInstanceMigrationStatus>,
}

/// The one kind of a [`VirtualMachineInstanceMigration`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VirtualMachineInstanceMigrationKind {
    /// The only value.
    #[default]
    VirtualMachineInstanceMigration,
}

/// What is to be moved, and where it may go.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceMigrationSpec {
    /// More labels that the target node must carry. The instance's own `nodeSelector` wins where both name a key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub added_node_selector: BTreeMap<String, String>,
    /// Place in the queue when more is asked for than may run at once. Set by the controller.
    pub priority: Option<MigrationPriority>,
    /// This end receives the instance from another namespace or cluster.
    pub receive: Option<VirtualMachineInstanceMigrationTarget>,
    /// This end sends the instance to another namespace or cluster.
    pub send_to: Option<VirtualMachineInstanceMigrationSource>,
    /// Name of the instance, in the same namespace.
    pub vmi_name: Option<String>,
}

/// Place in the queue of migrations.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationPriority {
    /// A node is being drained.
    SystemCritical,
    /// Somebody asked for it.
    UserTriggered,
    /// The platform renews its workloads.
    SystemMaintenance,
}

/// The receiving end of a migration between namespaces or clusters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct VirtualMachineInstanceMigrationTarget {
    /// A name for this move that both ends use.
    #[serde(rename = "migrationID")]
    pub migration_id: String,
}

/// The sending end of a migration between namespaces or clusters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct VirtualMachineInstanceMigrationSource {
    /// Where the other end listens.
    #[serde(rename = "connectURL")]
    pub connect_url: String,
    /// A name for this move that both ends use.
    #[serde(rename = "migrationID")]
    pub migration_id: String,
}

/// How far a migration got.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceMigrationStatus {
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The instance's own account of it, kept here once it is over.
    pub migration_state: Option<MigrationState>,
    /// Where in its life it is.
    pub phase: Option<MigrationPhase>,
    /// When each phase was reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phase_transition_timestamps: Vec<MigrationPhaseTransitionTimestamp>,
    /// Where the other end of a migration between clusters may connect to, with port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub synchronization_addresses: Vec<String>,
}

/// Where in its life a migration is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MigrationPhase {
    /// It waits for its turn.
    Pending,
    /// It waits for the other cluster.
    WaitingForSync,
    /// Both clusters exchange what they know.
    Synchronizing,
    /// The target pod exists.
    Scheduling,
    /// The target pod has a node.
    Scheduled,
    /// The target node prepares volumes and network.
    PreparingTarget,
    /// The target listens.
    TargetReady,
    /// Memory is being copied.
    Running,
    /// The guest runs at the target.
    Succeeded,
    /// The guest stayed where it was.
    Failed,
}

/// When a phase was reached.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MigrationPhaseTransitionTimestamp {
    /// The phase.
    pub phase: Option<MigrationPhase>,
    /// When it was reached.
    pub phase_transition_timestamp: Option<Time>,
}
