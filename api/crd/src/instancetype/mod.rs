//! `instancetype.kubevirt.io`: sizes of machines, and what suits a guest operating system.
//!
//! An instance type says how much (it must not be contradicted), a preference says what fits (it fills in what nobody
//! said). [`apply`] puts both into an instance's spec, [`infer`] finds their names on a volume.

pub mod apply;
pub mod infer;
pub mod prefer;
pub mod preference;
pub mod requirements;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::cpu::{Numa, Realtime};
use crate::devices::{Gpu, HostDevice};
use crate::domain::{DiskIoThreads, Hugepages, IoThreadsPolicy, LaunchSecurity};
use crate::resource::InstancetypeApiVersion;

pub use self::preference::VirtualMachinePreferenceSpec;

/// A size of machine: processors, memory and devices that a VirtualMachine of the same namespace may refer to.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstancetype {
    /// Group and version that the manifest is written for.
    #[serde(default)]
    pub api_version: InstancetypeApiVersion,
    /// Always `VirtualMachineInstancetype`.
    #[serde(default)]
    pub kind: VirtualMachineInstancetypeKind,
    /// Name, labels and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The size.
    pub spec: VirtualMachineInstancetypeSpec,
}

/// The one kind of a [`VirtualMachineInstancetype`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VirtualMachineInstancetypeKind {
    /// The only value.
    #[default]
    VirtualMachineInstancetype,
}

/// A size of machine for all namespaces.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineClusterInstancetype {
    /// Group and version that the manifest is written for.
    #[serde(default)]
    pub api_version: InstancetypeApiVersion,
    /// Always `VirtualMachineClusterInstancetype`.
    #[serde(default)]
    pub kind: VirtualMachineClusterInstancetypeKind,
    /// Name, labels and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The size.
    pub spec: VirtualMachineInstancetypeSpec,
}

/// The one kind of a [`VirtualMachineClusterInstancetype`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VirtualMachineClusterInstancetypeKind {
    /// The only value.
    #[default]
    VirtualMachineClusterInstancetype,
}

/// What suits a guest operating system: values that fill in what a VirtualMachine of the same namespace leaves open.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePreference {
    /// Group and version that the manifest is written for.
    #[serde(default)]
    pub api_version: InstancetypeApiVersion,
    /// Always `VirtualMachinePreference`.
    #[serde(default)]
    pub kind: VirtualMachinePreferenceKind,
    /// Name, labels and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The values.
    pub spec: VirtualMachinePreferenceSpec,
}

/// The one kind of a [`VirtualMachinePreference`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VirtualMachinePreferenceKind {
    /// The only value.
    #[default]
    VirtualMachinePreference,
}

/// What suits a guest operating system, for all namespaces.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineClusterPreference {
    /// Group and version that the manifest is written for.
    #[serde(default)]
    pub api_version: InstancetypeApiVersion,
    /// Always `VirtualMachineClusterPreference`.
    #[serde(default)]
    pub kind: VirtualMachineClusterPreferenceKind,
    /// Name, labels and the like.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The values.
    pub spec: VirtualMachinePreferenceSpec,
}

/// The one kind of a [`VirtualMachineClusterPreference`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum VirtualMachineClusterPreferenceKind {
    /// The only value.
    #[default]
    VirtualMachineClusterPreference,
}

/// A size of machine. A machine that uses it must leave these fields alone.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstancetypeSpec {
    /// Annotations that instances receive.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Processors.
    pub cpu: CpuInstancetype,
    /// GPUs passed through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// Other host devices passed through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_devices: Vec<HostDevice>,
    /// Threads of the `supplementalPool` policy.
    pub io_threads: Option<DiskIoThreads>,
    /// How disks share I/O threads.
    pub io_threads_policy: Option<IoThreadsPolicy>,
    /// Deprecated here: say it in a preference. Encrypted memory.
    pub launch_security: Option<LaunchSecurity>,
    /// Memory.
    pub memory: MemoryInstancetype,
    /// Labels that the node must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Scheduler that places the pod.
    pub scheduler_name: Option<String>,
}

/// Processors of an instance type.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CpuInstancetype {
    /// Each vCPU gets a host CPU of its own.
    #[serde(rename = "dedicatedCPUPlacement")]
    pub dedicated_cpu_placement: Option<bool>,
    /// Number of vCPUs. The preference says how they are laid out; without one, as sockets.
    pub guest: u32,
    /// One more dedicated CPU for the VMM's own threads.
    pub isolate_emulator_thread: Option<bool>,
    /// Ceiling for CPU hot-plug, in sockets.
    pub max_sockets: Option<u32>,
    /// `host-model`, `host-passthrough` or a named model.
    pub model: Option<String>,
    /// NUMA topology.
    pub numa: Option<Numa>,
    /// Real-time scheduling.
    pub realtime: Option<Realtime>,
}

/// Memory of an instance type.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MemoryInstancetype {
    /// What the guest sees.
    pub guest: Quantity,
    /// Back it with huge pages.
    pub hugepages: Option<Hugepages>,
    /// Ceiling for memory hot-plug.
    pub max_guest: Option<Quantity>,
    /// Percent of the guest's memory that the pod does not ask for, 0 to 100. Not with huge pages. Unset: 0.
    pub overcommit_percent: Option<i32>,
}
