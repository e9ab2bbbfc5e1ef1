//! Settings of the platform, and defaults of machines that do not say for themselves.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::developer::{DeveloperConfiguration, ReloadableComponentConfiguration};
use super::devices::{MediatedDevicesConfiguration, PermittedHostDevices};
use crate::firmware::ImagePullPolicy;
use crate::migration::MigrationConfiguration;
use crate::vmi::{Architecture, EvictionStrategy};

/// Settings of the platform, and defaults of machines.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct KubeVirtConfiguration {
    /// Factor on the memory that is set aside beside the guest's, for example `1.2`. Unset: 1.
    pub additional_guest_memory_overhead_ratio: Option<String>,
    /// virt-api.
    pub api_configuration: Option<ReloadableComponentConfiguration>,
    /// Defaults by architecture.
    pub architecture_configuration: Option<ArchConfiguration>,
    /// Namespaces in which pods get a CPU limit of one CPU per vCPU.
    #[serde(rename = "autoCPULimitNamespaceLabelSelector")]
    pub auto_cpu_limit_namespace_label_selector: Option<LabelSelector>,
    /// Machines whose changed blocks are tracked.
    pub changed_block_tracking_label_selectors: Option<ChangedBlockTrackingSelectors>,
    /// The ready-made instance types and preferences.
    pub common_instancetypes_deployment: Option<CommonInstancetypesDeployment>,
    /// Attestation of encrypted guests.
    pub confidential_compute: Option<ConfidentialComputeConfiguration>,
    /// virt-controller.
    pub controller_configuration: Option<ReloadableComponentConfiguration>,
    /// CPU model of machines that name none. Unset: `host-model`.
    pub cpu_model: Option<String>,
    /// CPU request of pods whose machines say nothing. Unset: 100m per vCPU.
    pub cpu_request: Option<Quantity>,
    /// Runtime class of pods. Unset: that of the cluster.
    pub default_runtime_class: Option<String>,
    /// Feature gates, ratios and verbosity.
    pub developer_configuration: Option<DeveloperConfiguration>,
    /// Deprecated: say it by architecture. Machine types that are accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emulated_machines: Vec<String>,
    /// What happens to machines that do not say when their node is drained. Unset: `None`.
    pub eviction_strategy: Option<EvictionStrategy>,
    /// virt-handler.
    pub handler_configuration: Option<ReloadableComponentConfiguration>,
    /// Hypervisors of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hypervisors: Vec<HypervisorConfiguration>,
    /// When images of launcher pods are pulled.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// How machines refer to instance types.
    pub instancetype: Option<InstancetypeConfiguration>,
    /// Merging of equal memory pages.
    pub ksm_configuration: Option<KsmConfiguration>,
    /// Ceilings for hot-plug of machines that name none.
    pub live_update_configuration: Option<LiveUpdateConfiguration>,
    /// Deprecated: say it by architecture. Machine type of machines that name none.
    pub machine_type: Option<String>,
    /// Mediated devices that the agent makes.
    pub mediated_devices_configuration: Option<MediatedDevicesConfiguration>,
    /// Seconds between two looks at the guest's memory statistics; 0 turns them off. Unset: 10.
    pub mem_balloon_stats_period: Option<u32>,
    /// Live migration.
    pub migrations: Option<MigrationConfiguration>,
    /// No longer read.
    #[serde(rename = "minCPUModel")]
    pub min_cpu_model: Option<String>,
    /// Network interfaces.
    pub network: Option<NetworkConfiguration>,
    /// CPU models that nodes do not offer.
    #[serde(rename = "obsoleteCPUModels", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub obsolete_cpu_models: BTreeMap<String, bool>,
    /// Deprecated: say it by architecture. Directory of the UEFI firmware.
    pub ovmf_path: Option<String>,
    /// Host devices that machines may ask for.
    pub permitted_host_devices: Option<PermittedHostDevices>,
    /// SCSI persistent reservations.
    pub persistent_reservation_configuration: Option<PersistentReservationConfiguration>,
    /// Whether the cluster's own roles gain rights on machines. Unset: `AggregateToDefault`.
    pub role_aggregation_strategy: Option<RoleAggregationStrategy>,
    /// Seccomp profile of pods.
    pub seccomp_configuration: Option<SeccompConfiguration>,
    /// SELinux type of the VMM process.
    pub selinux_launcher_type: Option<String>,
    /// SMBIOS strings that guests see.
    pub smbios: Option<SmbiosConfiguration>,
    /// Requests and limits of the containers beside the VMM.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub support_container_resources: Vec<SupportContainerResources>,
    /// No longer read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported_guest_agent_versions: Vec<String>,
    /// TLS of all components.
    pub tls_configuration: Option<TlsConfiguration>,
    /// The component for machine templates.
    pub virt_template_deployment: Option<VirtTemplateDeployment>,
    /// Machines that one node takes at most. Unset: 110.
    pub virtual_machine_instances_per_node: Option<i32>,
    /// Switches that hold for all machines.
    pub virtual_machine_options: Option<VirtualMachineOptions>,
    /// How changes of a running machine are carried out. Unset: `LiveUpdate`.
    pub vm_rollout_strategy: Option<VmRolloutStrategy>,
    /// Storage class of claims for TPM and EFI state.
    pub vm_state_storage_class: Option<String>,
    /// The admission of virt-api.
    pub webhook_configuration: Option<ReloadableComponentConfiguration>,
}

/// Whether the roles `admin`, `edit` and `view` gain rights on machines.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleAggregationStrategy {
    /// They do.
    AggregateToDefault,
    /// They do not; an administrator grants what is needed.
    Manual,
}

/// How changes of a running machine are carried out.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VmRolloutStrategy {
    /// With its next start.
    Stage,
    /// At once, where that is possible.
    LiveUpdate,
}

/// Defaults by architecture.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ArchConfiguration {
    /// x86-64.
    pub amd64: Option<ArchSpecificConfiguration>,
    /// AArch64.
    pub arm64: Option<ArchSpecificConfiguration>,
    /// Architecture of machines that name none. Unset: that of the control plane.
    pub default_architecture: Option<Architecture>,
    /// No longer served.
    pub ppc64le: Option<ArchSpecificConfiguration>,
    /// IBM Z.
    pub s390x: Option<ArchSpecificConfiguration>,
}

/// Defaults of one architecture.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ArchSpecificConfiguration {
    /// Machine types that are accepted; `*` stands for any text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emulated_machines: Vec<String>,
    /// Machine type of machines that name none.
    pub machine_type: Option<String>,
    /// Directory of the UEFI firmware.
    pub ovmf_path: Option<String>,
}

/// Machines whose changed blocks are tracked.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ChangedBlockTrackingSelectors {
    /// All machines of these namespaces.
    pub namespace_label_selector: Option<LabelSelector>,
    /// These machines.
    pub virtual_machine_label_selector: Option<LabelSelector>,
}

/// The ready-made instance types and preferences.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CommonInstancetypesDeployment {
    /// Install them. Unset: `true`.
    pub enabled: Option<bool>,
}

/// The component for machine templates.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtTemplateDeployment {
    /// Install it. Unset: `true` where its feature gate is open.
    pub enabled: Option<bool>,
}

/// Attestation of encrypted guests.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ConfidentialComputeConfiguration {
    /// Intel TDX.
    pub tdx: Option<TdxConfiguration>,
}

/// Intel TDX.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TdxConfiguration {
    /// Attestation.
    pub attestation: Option<TdxAttestationConfiguration>,
}

/// Attestation of TDX guests.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TdxAttestationConfiguration {
    /// Nodes without a quote generation service do not take such guests. Unset: `false`.
    pub enforced: Option<bool>,
    /// Socket of the quote generation service.
    pub qgs_socket_path: Option<String>,
}

/// A hypervisor.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct HypervisorConfiguration {
    /// `kvm`, the only one that is served.
    pub name: Option<String>,
}

/// How machines refer to instance types.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct InstancetypeConfiguration {
    /// What becomes of the reference. Unset: `reference`.
    pub reference_policy: Option<InstancetypeReferencePolicy>,
}

/// What becomes of a machine's reference to an instance type or preference.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstancetypeReferencePolicy {
    /// It stays, with a copy of what it meant.
    #[serde(rename = "reference")]
    Reference,
    /// New machines are written out and lose it.
    #[serde(rename = "expand")]
    Expand,
    /// All machines are written out and lose it.
    #[serde(rename = "expandAll")]
    ExpandAll,
}

/// Merging of equal memory pages.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct KsmConfiguration {
    /// Nodes on which it is on; an empty selector means all.
    pub node_label_selector: Option<LabelSelector>,
}

/// Ceilings for hot-plug of machines that name none.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LiveUpdateConfiguration {
    /// Sockets.
    pub max_cpu_sockets: Option<u32>,
    /// Memory.
    pub max_guest: Option<Quantity>,
    /// Multiple of what the machine starts with, where neither of the two is set. Unset: 4.
    pub max_hotplug_ratio: Option<u32>,
}

/// Network interfaces.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfiguration {
    /// Binding plugins, by the name that interfaces use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub binding: BTreeMap<String, InterfaceBindingPlugin>,
    /// Binding of the interface that machines without one get: `bridge` or `masquerade`. Unset: `bridge`.
    pub default_network_interface: Option<String>,
    /// Machines may take over the pod's address. Unset: `true`.
    pub permit_bridge_interface_on_pod_network: Option<bool>,
    /// No longer read.
    pub permit_slirp_interface: Option<bool>,
}

/// A binding plugin.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceBindingPlugin {
    /// What it adds to the VMM's container.
    pub compute_resource_overhead: Option<ResourceRequirementsWithoutClaims>,
    /// `tap` or `managedTap`: a tap that the plugin, or the platform, prepares.
    pub domain_attachment_type: Option<String>,
    /// `device-info`: what the plugin's container is told.
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<String>,
    /// Machines with it may migrate.
    pub migration: Option<InterfaceBindingMigration>,
    /// `name` or `namespace/name` of a NetworkAttachmentDefinition that it brings.
    pub network_attachment_definition: Option<String>,
    /// Image of a container beside the VMM.
    pub sidecar_image: Option<String>,
}

/// How an interface migrates.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceBindingMigration {
    /// `link-refresh`: the link goes down and up at the target.
    pub method: Option<String>,
}

/// Requests and limits of a container.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRequirementsWithoutClaims {
    /// Upper bounds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
}

/// SCSI persistent reservations.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PersistentReservationConfiguration {
    /// Machines may use them. Unset: `false`.
    pub enabled: Option<bool>,
}

/// Seccomp profile of pods.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SeccompConfiguration {
    /// Of launcher pods.
    pub virtual_machine_instance_profile: Option<VirtualMachineInstanceProfile>,
}

/// Seccomp profile of launcher pods.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceProfile {
    /// Which one. Unset: that of the runtime.
    pub custom_profile: Option<CustomProfile>,
}

/// A seccomp profile. At most one is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CustomProfile {
    /// A file of the node.
    pub localhost_profile: Option<String>,
    /// That of the container runtime.
    pub runtime_default_profile: Option<bool>,
}

/// SMBIOS type 1 strings that guests see.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SmbiosConfiguration {
    /// Family.
    pub family: Option<String>,
    /// Manufacturer.
    pub manufacturer: Option<String>,
    /// Product name.
    pub product: Option<String>,
    /// SKU number.
    pub sku: Option<String>,
    /// Version.
    pub version: Option<String>,
}

/// Requests and limits of one kind of container beside the VMM.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SupportContainerResources {
    /// Requests and limits.
    pub resources: ResourceRequirementsWithoutClaims,
    /// Kind of container, for example `container-disk` or `guest-console-log`.
    pub r#type: String,
}

/// TLS of all components.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TlsConfiguration {
    /// Cipher suites, by their IANA names. Not with TLS 1.3 as the lowest version, which has its own.
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ciphers: Vec<String>,
    /// Lowest version that is accepted. Unset: `VersionTLS12`.
    #[serde(rename = "minTLSVersion")]
    pub min_tls_version: Option<TlsProtocolVersion>,
}

/// A version of TLS.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsProtocolVersion {
    /// TLS 1.0.
    #[serde(rename = "VersionTLS10")]
    Tls10,
    /// TLS 1.1.
    #[serde(rename = "VersionTLS11")]
    Tls11,
    /// TLS 1.2.
    #[serde(rename = "VersionTLS12")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "VersionTLS13")]
    Tls13,
}

/// Switches that hold for all machines. Each is on by being there.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineOptions {
    /// Balloons do not report free pages.
    pub disable_free_page_reporting: Option<DisableFreePageReporting>,
    /// Serial consoles are not logged unless a machine asks for it.
    pub disable_serial_console_log: Option<DisableSerialConsoleLog>,
}

/// Balloons do not report free pages; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DisableFreePageReporting {}

/// Serial consoles are not logged; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DisableSerialConsoleLog {}
