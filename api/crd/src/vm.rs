//! `VirtualMachine`: the lasting object, from which instances are started and stopped.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::cdi::DataVolumeTemplateSpec;
use crate::resource::ApiVersion;
use crate::vm_status::VirtualMachineStatus;
use crate::vmi::VirtualMachineInstanceSpec;

/// A virtual machine that outlives its runs: a template for instances, and whether one
/// should be running.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachine {
    /// Group and version that the manifest is written for.
    #[serde(default)]
    pub api_version: ApiVersion,
    /// Always `VirtualMachine`.
    #[serde(default)]
    pub kind: VirtualMachineKind,
    /// Name, namespace, labels and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    pub spec: VirtualMachineSpec,
    /// What the controller found.
    pub status: Option<VirtualMachineStatus>,
}

/// The one kind of a [`VirtualMachine`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VirtualMachineKind {
    /// The only value.
    #[default]
    VirtualMachine,
}

/// The template of an instance and the rule by which it runs.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineSpec {
    /// DataVolumes that are created with the machine and owned by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_volume_templates: Vec<DataVolumeTemplateSpec>,
    /// Instance type that fills in processors, memory and the like.
    pub instancetype: Option<InstancetypeMatcher>,
    /// Preference that fills in what instance type and template leave open.
    pub preference: Option<PreferenceMatcher>,
    /// When an instance should exist. Excludes `running`; one of the two is needed.
    pub run_strategy: Option<RunStrategy>,
    /// Deprecated: `true` is `runStrategy: Always`, `false` is `Halted`.
    pub running: Option<bool>,
    /// The instance to run.
    pub template: VirtualMachineInstanceTemplateSpec,
    /// How a changed set of volumes reaches a running instance. Unset: `Replacement`.
    pub update_volumes_strategy: Option<UpdateVolumesStrategy>,
}

/// When a machine's instance should exist.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunStrategy {
    /// Always: a new one is started whenever the last ended.
    Always,
    /// Never.
    Halted,
    /// As start and stop requests say; never restarted by itself.
    Manual,
    /// Restarted after a failure, not after a shutdown from inside.
    RerunOnFailure,
    /// Started once, whatever its end.
    Once,
    /// Waits to receive a migration from another namespace or cluster.
    WaitAsReceiver,
}

/// How a changed set of volumes reaches a running instance.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum UpdateVolumesStrategy {
    /// By migrating the storage, without a restart.
    Migration,
    /// By replacing the volumes at the next start.
    #[default]
    Replacement,
}

/// The instance that a machine makes.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct VirtualMachineInstanceTemplateSpec {
    /// Labels and annotations that the instance receives.
    pub metadata: Option<ObjectMeta>,
    /// The instance's spec. Not needed where an instance type and preference say everything.
    pub spec: Option<VirtualMachineInstanceSpec>,
}

/// Names an instance type, or the volume that knows one.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct InstancetypeMatcher {
    /// Volume from whose labels the instance type is taken; cleared once that is done.
    pub infer_from_volume: Option<String>,
    /// What happens when the volume names none.
    pub infer_from_volume_failure_policy: Option<InferFromVolumeFailurePolicy>,
    /// `VirtualMachineInstancetype` or `VirtualMachineClusterInstancetype` (the default), in any case.
    pub kind: Option<String>,
    /// Name of the instance type.
    pub name: Option<String>,
    /// ControllerRevision that holds the instance type as it was when first applied.
    pub revision_name: Option<String>,
}

/// Names a preference, or the volume that knows one.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PreferenceMatcher {
    /// Volume from whose labels the preference is taken; cleared once that is done.
    pub infer_from_volume: Option<String>,
    /// What happens when the volume names none.
    pub infer_from_volume_failure_policy: Option<InferFromVolumeFailurePolicy>,
    /// `VirtualMachinePreference` or `VirtualMachineClusterPreference` (the default), in any case.
    pub kind: Option<String>,
    /// Name of the preference.
    pub name: Option<String>,
    /// ControllerRevision that holds the preference as it was when first applied.
    pub revision_name: Option<String>,
}

/// What happens when a volume names no instance type or preference.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum InferFromVolumeFailurePolicy {
    /// The machine is refused.
    #[default]
    #[serde(rename = "RejectInferFromVolumeFailure")]
    Reject,
    /// The matcher is dropped.
    #[serde(rename = "IgnoreInferFromVolumeFailure")]
    Ignore,
}
