//! `VirtualMachineInstanceReplicaSet`: a number of equal instances that is kept up.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::condition::Condition;
use crate::resource::ApiVersion;
use crate::vm::VirtualMachineInstanceTemplateSpec;

/// Keeps a number of instances made from one template. An instance that ends is replaced by a new one, with
/// a new name and empty disks: for guests that hold no state.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceReplicaSet {
    /// Group and version that the manifest is written for.
    #[serde(default)]
    pub api_version: ApiVersion,
    /// Always `VirtualMachineInstanceReplicaSet`.
    #[serde(default)]
    pub kind: VirtualMachineInstanceReplicaSetKind,
    /// Name, namespace, labels and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    pub spec: VirtualMachineInstanceReplicaSetSpec,
    /// What the controller found.
    pub status: Option<VirtualMachineInstanceReplicaSetStatus>,
}

/// The one kind of a [`VirtualMachineInstanceReplicaSet`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VirtualMachineInstanceReplicaSetKind {
    /// The only value.
    #[default]
    VirtualMachineInstanceReplicaSet,
}

/// How many instances, made from what.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceReplicaSetSpec {
    /// The controller neither adds nor removes instances. Unset: `false`.
    pub paused: Option<bool>,
    /// How many instances there should be. Unset: 1.
    pub replicas: Option<i32>,
    /// Labels by which the set knows its instances; the template's labels must match.
    pub selector: LabelSelector,
    /// The instance to make.
    pub template: VirtualMachineInstanceTemplateSpec,
}

/// How many instances there are.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceReplicaSetStatus {
    /// Conditions: `ReplicaFailure` and `ReplicaPaused`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The selector as text, for autoscalers that read the `scale` subresource.
    pub label_selector: Option<String>,
    /// Instances that are ready.
    pub ready_replicas: Option<i32>,
    /// Instances that have not ended.
    pub replicas: Option<i32>,
}
