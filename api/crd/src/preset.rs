//! `VirtualMachineInstancePreset`: what is filled into instances by their labels. Deprecated.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::domain::DomainSpec;
use crate::resource::ApiVersion;

/// Deprecated: instance types and preferences took its place. Its domain is merged into every new instance of
/// the namespace whose labels match.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstancePreset {
    /// Group and version that the manifest is written for.
    #[serde(default)]
    pub api_version: ApiVersion,
    /// Always `VirtualMachineInstancePreset`.
    #[serde(default)]
    pub kind: VirtualMachineInstancePresetKind,
    /// Name, namespace, labels and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is filled in, and where.
    pub spec: Option<VirtualMachineInstancePresetSpec>,
}

/// The one kind of a [`VirtualMachineInstancePreset`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VirtualMachineInstancePresetKind {
    /// The only value.
    #[default]
    VirtualMachineInstancePreset,
}

/// What is filled in, and where.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct VirtualMachineInstancePresetSpec {
    /// Fields that are filled in where the instance says nothing; one that says something else is left alone.
    pub domain: Option<DomainSpec>,
    /// Labels of the instances that are meant.
    pub selector: LabelSelector,
}
