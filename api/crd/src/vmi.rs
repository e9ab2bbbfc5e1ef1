//! `VirtualMachineInstance`: one run of a virtual machine, bound to one pod, immutable once created.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, PodDNSConfig, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::access::AccessCredential;
use crate::domain::DomainSpec;
use crate::network::Network;
use crate::probes::Probe;
use crate::resource::ApiVersion;
use crate::status::VirtualMachineInstanceStatus;
use crate::volumes::{UtilityVolume, Volume};

/// One virtual machine, running or about to run. It lives as long as its pod, and is never restarted: a
/// `VirtualMachine` makes a new one instead.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstance {
    /// Group and version that the manifest is written for.
    #[serde(default)]
    pub api_version: ApiVersion,
    /// Always `VirtualMachineInstance`.
    #[serde(default)]
    pub kind: VirtualMachineInstanceKind,
    /// Name, namespace, labels and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user asks for.
    pub spec: VirtualMachineInstanceSpec,
    /// What the system found. Written by the controller until the phase `Scheduled`, by the node's agent
    /// after.
    pub status: Option<VirtualMachineInstanceStatus>,
}

/// The one kind of a [`VirtualMachineInstance`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VirtualMachineInstanceKind {
    /// The only value.
    #[default]
    VirtualMachineInstance,
}

/// What a virtual machine is made of: the machine itself (`domain`), what it is connected to, and where it
/// may run.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceSpec {
    /// SSH keys and passwords that are kept up to date in the guest from Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_credentials: Vec<AccessCredential>,
    /// Where the pod should or must not land.
    pub affinity: Option<Affinity>,
    /// Processor architecture of the guest. Unset: that of the cluster's control plane.
    pub architecture: Option<Architecture>,
    /// Name servers and search domains in addition to, or in place of, those of `dnsPolicy`.
    pub dns_config: Option<PodDNSConfig>,
    /// Where the guest's name servers come from. Unset: `ClusterFirst`.
    pub dns_policy: Option<DnsPolicy>,
    /// The machine: processors, memory, firmware, devices.
    pub domain: DomainSpec,
    /// What happens when the node is drained. Unset: the cluster's setting.
    pub eviction_strategy: Option<EvictionStrategy>,
    /// Host name told to the guest by DHCP and cloud-init; a DNS label. Unset: the object's name.
    pub hostname: Option<String>,
    /// A failing probe ends the instance.
    pub liveness_probe: Option<Probe>,
    /// Networks, each matched by the interface of the same name. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// Labels that the node must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Priority class of the pod.
    pub priority_class_name: Option<String>,
    /// A failing probe takes the instance out of service endpoints.
    pub readiness_probe: Option<Probe>,
    /// Dynamic resource allocation claims that devices and networks may refer to.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_claims: Vec<VirtualMachineInstanceResourceClaim>,
    /// Scheduler that places the pod. Unset: the cluster's default.
    pub scheduler_name: Option<String>,
    /// Service account of the pod.
    pub service_account_name: Option<String>,
    /// `Paused` keeps all vCPUs stopped until somebody resumes them. Unset: start running.
    pub start_strategy: Option<StartStrategy>,
    /// DNS subdomain: the guest's full name becomes `hostname.subdomain.namespace.svc.domain`.
    pub subdomain: Option<String>,
    /// Seconds between the power button and the kill. Unset: 30; 0 kills at once.
    pub termination_grace_period_seconds: Option<i64>,
    /// Node taints that the pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// How instances spread over failure domains.
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["topologyKey", "whenUnsatisfiable"]
    ))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Volumes that serve operations such as a memory dump and are never a disk of the guest.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub utility_volumes: Vec<UtilityVolume>,
    /// Storage, each referenced by the disk or file system of the same name. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
}

/// Processor architecture, in Go's names.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
    /// IBM Z.
    S390x,
}

/// Where name servers come from (Kubernetes `PodSpec.dnsPolicy`).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum DnsPolicy {
    /// The cluster's DNS service first, the node's servers for other names.
    #[default]
    ClusterFirst,
    /// As `ClusterFirst`, also for pods in the node's network.
    ClusterFirstWithHostNet,
    /// The node's own servers.
    Default,
    /// Only what `dnsConfig` says.
    None,
}

/// What happens to an instance when its node is drained.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EvictionStrategy {
    /// It is shut down; its `runStrategy` decides whether it starts elsewhere.
    None,
    /// It migrates; the drain waits, also for one that cannot.
    LiveMigrate,
    /// It migrates if it can, and is shut down otherwise.
    LiveMigrateIfPossible,
    /// The drain waits while something outside takes care of it.
    External,
}

/// In which state a machine starts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartStrategy {
    /// Created completely, with its vCPUs stopped.
    Paused,
}

/// A dynamic resource allocation claim of the pod. Exactly one of `resourceClaimName` and
/// `resourceClaimTemplateName` is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceResourceClaim {
    /// Name by which devices and networks refer to it; a DNS label, unique in the instance.
    pub name: String,
    /// An existing ResourceClaim in the same namespace.
    pub resource_claim_name: Option<String>,
    /// A ResourceClaimTemplate from which a claim is made for this pod.
    pub resource_claim_template_name: Option<String>,
}
