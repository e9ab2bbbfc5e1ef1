//! `KubeVirt`: the installation itself, its settings and how far it got.

pub mod components;
pub mod configuration;
pub mod developer;
pub mod devices;

use k8s_openapi::api::core::v1::LocalObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::condition::Condition;
use crate::firmware::ImagePullPolicy;
use crate::resource::ApiVersion;
use crate::vmi::Architecture;

use self::components::{ComponentConfig, CustomizeComponents};
use self::configuration::KubeVirtConfiguration;

/// The installation: there is one in a cluster. It holds the settings and shows how far installing or removing got.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct KubeVirt {
    /// Group and version that the manifest is written for.
    #[serde(default)]
    pub api_version: ApiVersion,
    /// Always `KubeVirt`.
    #[serde(default)]
    pub kind: KubeVirtKind,
    /// Name, labels and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// How the platform is installed and set.
    pub spec: KubeVirtSpec,
    /// What the controller found.
    pub status: Option<KubeVirtStatus>,
}

/// The one kind of a [`KubeVirt`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum KubeVirtKind {
    /// The only value.
    #[default]
    KubeVirt,
}

/// How the platform is installed and set. All of it may be changed at any time.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct KubeVirtSpec {
    /// How long certificates live.
    pub certificate_rotate_strategy: Option<CertificateRotateStrategy>,
    /// Settings of the platform and defaults of machines.
    pub configuration: Option<KubeVirtConfiguration>,
    /// Changes to the objects that the installation makes.
    pub customize_components: Option<CustomizeComponents>,
    /// When images of the platform's own workloads are pulled.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets with the registry's credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Registry of the platform's images. Unset: where the installing component came from.
    pub image_registry: Option<String>,
    /// Their tag. Unset: that of the installing component.
    pub image_tag: Option<String>,
    /// Where the components that run once per cluster go.
    pub infra: Option<ComponentConfig>,
    /// Service account of Prometheus, which may read the metrics. Unset: `prometheus-k8s`.
    pub monitor_account: Option<String>,
    /// Namespace of Prometheus. Unset: `openshift-monitoring`, then `monitoring`.
    pub monitor_namespace: Option<String>,
    /// Value of the label `app.kubernetes.io/component`. Unset: `kubevirt`.
    pub product_component: Option<String>,
    /// Value of the label `app.kubernetes.io/part-of`. Unset: none.
    pub product_name: Option<String>,
    /// Value of the label `app.kubernetes.io/version`. Unset: the platform's version.
    pub product_version: Option<String>,
    /// Namespace of the ServiceMonitor. Unset: that of Prometheus.
    pub service_monitor_namespace: Option<String>,
    /// Port on which clusters exchange the state of a migration. Unset: 9185.
    pub synchronization_port: Option<String>,
    /// Whether the installation may be removed while machines exist. Unset: `RemoveWorkloads`.
    pub uninstall_strategy: Option<UninstallStrategy>,
    /// How running machines come to a new version of the platform.
    pub workload_update_strategy: Option<WorkloadUpdateStrategy>,
    /// Where the agents, and with them machines, go.
    pub workloads: Option<ComponentConfig>,
}

/// Whether the installation may be removed while machines exist.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UninstallStrategy {
    /// It may, and they go with it.
    RemoveWorkloads,
    /// It is refused.
    BlockUninstallIfWorkloadsExist,
}

/// How certificates are made.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRotateStrategy {
    /// By an authority of the platform itself.
    pub self_signed: Option<SelfSignConfiguration>,
}

/// Life of the certificates that the platform makes. Durations are written as in `24h0m0s`.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SelfSignConfiguration {
    /// The authority.
    pub ca: Option<CertConfig>,
    /// Deprecated: say `ca.renewBefore`.
    pub ca_overlap_interval: Option<String>,
    /// Deprecated: say `ca.duration`.
    pub ca_rotate_interval: Option<String>,
    /// Deprecated: say `server.duration`.
    pub cert_rotate_interval: Option<String>,
    /// The components.
    pub server: Option<CertConfig>,
}

/// Life of one kind of certificate.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CertConfig {
    /// How long one is valid.
    pub duration: Option<String>,
    /// How long before its end the next one is made.
    pub renew_before: Option<String>,
}

/// How running machines come to a new version of the platform.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadUpdateStrategy {
    /// Time between two batches of evictions, such as `1m0s`. Unset: one minute.
    pub batch_eviction_interval: Option<String>,
    /// Machines that are evicted in one batch. Unset: 10.
    pub batch_eviction_size: Option<i32>,
    /// What may be done. The least disruptive that works is taken; with none, machines stay as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workload_update_methods: Vec<WorkloadUpdateMethod>,
}

/// What may be done to a running machine.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkloadUpdateMethod {
    /// It migrates.
    LiveMigrate,
    /// It is shut down and started anew.
    Evict,
}

/// How far the installation got.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct KubeVirtStatus {
    /// Conditions: `Created`, `Available`, `Progressing` and `Degraded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Architecture of machines that name none.
    pub default_architecture: Option<Architecture>,
    /// What was last written of each object, so that changes by others are noticed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generations: Vec<GenerationStatus>,
    /// What was installed, as JSON.
    pub observed_deployment_config: Option<String>,
    /// Digest of what was installed.
    #[serde(rename = "observedDeploymentID")]
    pub observed_deployment_id: Option<String>,
    /// Generation of this object that was last looked at.
    pub observed_generation: Option<i64>,
    /// Registry of what was installed.
    pub observed_kube_virt_registry: Option<String>,
    /// Version of what was installed.
    pub observed_kube_virt_version: Option<String>,
    /// Version of the installing component.
    pub operator_version: Option<String>,
    /// Machines that still run an older version.
    pub outdated_virtual_machine_instance_workloads: Option<i32>,
    /// Where in its life the installation is.
    pub phase: Option<KubeVirtPhase>,
    /// Where other clusters may connect to for migrations, with port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub synchronization_addresses: Vec<String>,
    /// What is being installed, as JSON.
    pub target_deployment_config: Option<String>,
    /// Digest of what is being installed.
    #[serde(rename = "targetDeploymentID")]
    pub target_deployment_id: Option<String>,
    /// Registry of what is being installed.
    pub target_kube_virt_registry: Option<String>,
    /// Version of what is being installed.
    pub target_kube_virt_version: Option<String>,
}

/// Where in its life an installation is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KubeVirtPhase {
    /// It is being made.
    Deploying,
    /// It is complete.
    Deployed,
    /// It is being removed.
    Deleting,
    /// It is gone.
    Deleted,
}

/// What was last written of one object.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct GenerationStatus {
    /// API group.
    pub group: String,
    /// Digest, for objects without generation.
    pub hash: Option<String>,
    /// Its generation.
    pub last_generation: i64,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// Plural of its kind.
    pub resource: String,
}
