//! Processors: count, topology, model and placement.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// The guest's processors. Their number is sockets × cores × threads, see [`Cpu::topology`].
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    /// Cores per socket, at least 1. Unset: 1.
    pub cores: Option<u32>,
    /// Each vCPU gets a host CPU of its own; needs requests equal to limits.
    pub dedicated_cpu_placement: Option<bool>,
    /// CPUID features to add or remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<CpuFeature>,
    /// One more dedicated CPU for the VMM's own threads; needs `dedicatedCpuPlacement`.
    pub isolate_emulator_thread: Option<bool>,
    /// Ceiling for CPU hot-plug. Unset: four times `sockets`, at most 512 vCPUs.
    pub max_sockets: Option<u32>,
    /// `host-model` (the default), `host-passthrough`, or a named model such as `Haswell`.
    pub model: Option<String>,
    /// NUMA topology.
    pub numa: Option<Numa>,
    /// Real-time scheduling.
    pub realtime: Option<Realtime>,
    /// Sockets, at least 1. Unset: 1.
    pub sockets: Option<u32>,
    /// Threads per core, at least 1. Unset: 1.
    pub threads: Option<u32>,
}

/// One CPUID feature.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct CpuFeature {
    /// Name of the feature, for example `vmx`.
    pub name: String,
    /// Unset: `require`.
    pub policy: Option<CpuFeaturePolicy>,
}

/// How one CPUID feature is treated.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum CpuFeaturePolicy {
    /// Shown, whatever the host has.
    Force,
    /// Shown; the start fails where the host lacks it.
    #[default]
    Require,
    /// Shown where the host has it.
    Optional,
    /// Hidden.
    Disable,
    /// Hidden; the start fails where the host has it.
    Forbid,
}

/// Sockets, cores and threads that a running guest has.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct CpuTopology {
    /// Cores per socket.
    pub cores: Option<u32>,
    /// Sockets.
    pub sockets: Option<u32>,
    /// Threads per core.
    pub threads: Option<u32>,
}

/// NUMA topology.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Numa {
    /// The guest sees the host's nodes as far as its CPUs touch them.
    pub guest_mapping_passthrough: Option<NumaGuestMappingPassthrough>,
}

/// Needs dedicated CPUs and huge pages; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct NumaGuestMappingPassthrough {}

/// Real-time scheduling of vCPUs.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Realtime {
    /// vCPUs meant, for example `0-3,^1`. Unset: all.
    pub mask: Option<String>,
}
