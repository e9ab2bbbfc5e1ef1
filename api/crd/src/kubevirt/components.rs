//! Placing and changing the platform's own workloads.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// Where components go, and how many of them.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ComponentConfig {
    /// Nodes that will do.
    pub node_placement: Option<NodePlacement>,
    /// How many of each; with 0, none. Unset: 2.
    pub replicas: Option<u8>,
}

/// Nodes that will do, in the words of a pod.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct NodePlacement {
    /// Affinity to nodes and pods.
    pub affinity: Option<Affinity>,
    /// Labels that the node must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Node taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
}

/// Changes to the objects that the installation makes.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CustomizeComponents {
    /// Command-line flags.
    pub flags: Option<Flags>,
    /// Patches, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<ComponentPatch>,
}

/// Command-line flags, by name. They replace all flags of a component.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Flags {
    /// Of virt-api.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub api: BTreeMap<String, String>,
    /// Of virt-controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub controller: BTreeMap<String, String>,
    /// Of virt-handler.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub handler: BTreeMap<String, String>,
}

/// A change to one object.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ComponentPatch {
    /// The patch, as JSON.
    pub patch: String,
    /// Name of the object; `*` means all of the kind.
    pub resource_name: String,
    /// Kind of the object.
    pub resource_type: String,
    /// `strategic`, `merge` or `json`.
    pub r#type: String,
}
