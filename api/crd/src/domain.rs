//! The machine itself: memory, resources, identity; the other parts have files of their own.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::clock::Clock;
use crate::cpu::Cpu;
use crate::devices::Devices;
use crate::features::Features;
use crate::firmware::Firmware;

/// A machine: what a guest finds when it wakes.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DomainSpec {
    /// Chassis data in SMBIOS type 3.
    pub chassis: Option<Chassis>,
    /// Clock and timers.
    pub clock: Option<Clock>,
    /// Processors. Unset: one vCPU like the host's.
    pub cpu: Option<Cpu>,
    /// Disks, network interfaces and all other devices.
    pub devices: Devices,
    /// Platform features and what the hypervisor shows of itself.
    pub features: Option<Features>,
    /// Firmware, or the kernel that is booted in its place.
    pub firmware: Option<Firmware>,
    /// Threads of the `supplementalPool` policy.
    pub io_threads: Option<DiskIoThreads>,
    /// How disks share I/O threads. Unset: no I/O threads beside the main one.
    pub io_threads_policy: Option<IoThreadsPolicy>,
    /// Encrypted memory.
    pub launch_security: Option<LaunchSecurity>,
    /// Machine type.
    pub machine: Option<Machine>,
    /// Guest memory.
    pub memory: Option<Memory>,
    /// What a reboot from inside does. Unset: `Reboot`.
    pub reboot_policy: Option<RebootPolicy>,
    /// Requests and limits of the pod. Where `memory.guest` is unset, the memory request is the guest's size.
    pub resources: Option<ResourceRequirements>,
}

/// How disks share I/O threads.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub enum IoThreadsPolicy {
    /// One thread for all disks without one of their own.
    Shared,
    /// A pool sized from the number of vCPUs, dealt out in turn.
    Auto,
    /// A pool of `ioThreads.supplementalPoolThreadCount` threads for all disks.
    SupplementalPool,
}

/// What a reboot from inside the guest does.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RebootPolicy {
    /// The machine is reset in place; nobody outside notices.
    #[default]
    Reboot,
    /// The instance ends, and its owner may make a new one.
    Terminate,
}

/// Size of the I/O thread pool.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DiskIoThreads {
    /// Threads in the pool; needs `ioThreadsPolicy: supplementalPool`.
    pub supplemental_pool_thread_count: Option<u32>,
}

/// Requests and limits of the pod; the keys are `cpu` and `memory`.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRequirements {
    /// Upper bounds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
    /// Leaves the VMM's own memory out of the request (not out of the limit). Unset: `false`.
    pub overcommit_guest_overhead: Option<bool>,
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
}

/// Guest memory.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// What the guest sees. Unset: the memory request.
    pub guest: Option<Quantity>,
    /// Back it with huge pages.
    pub hugepages: Option<Hugepages>,
    /// Ceiling for memory hot-plug. Unset: four times `guest` where hot-plug is possible.
    pub max_guest: Option<Quantity>,
    /// Memory set aside for the VMM beside the guest's.
    pub reserved_overhead: Option<ReservedOverhead>,
}

/// Huge pages behind guest memory.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Hugepages {
    /// Page size: `2Mi` or `1Gi` on x86-64. Guest memory must be a multiple of it.
    pub page_size: Option<String>,
}

/// Memory set aside for the VMM beside the guest's.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ReservedOverhead {
    /// Added to the pod's memory limit.
    pub added_overhead: Option<Quantity>,
    /// Whether guest memory and overhead may be locked, as VFIO needs. Unset: they may not.
    pub mem_lock: Option<String>,
}

/// Machine type.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Machine {
    /// For example `q35` or `pc-q35-rhel9.6.0`. Unset: the architecture's default.
    pub r#type: Option<String>,
}

/// SMBIOS type 3, chassis. Unset strings stay out of the table.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Chassis {
    /// Asset tag.
    pub asset: Option<String>,
    /// Manufacturer.
    pub manufacturer: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// SKU number.
    pub sku: Option<String>,
    /// Version.
    pub version: Option<String>,
}

/// Memory that the host cannot read. At most one is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct LaunchSecurity {
    /// AMD SEV and SEV-ES.
    pub sev: Option<Sev>,
    /// AMD SEV-SNP.
    pub snp: Option<SevSnp>,
    /// Intel TDX.
    pub tdx: Option<Tdx>,
}

/// AMD SEV and SEV-ES.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Sev {
    /// Stop before the first instruction and wait for attestation.
    pub attestation: Option<SevAttestation>,
    /// The owner's Diffie-Hellman key, base64.
    pub dh_cert: Option<String>,
    /// Policy bits of the launch.
    pub policy: Option<SevPolicy>,
    /// The launch session blob, base64.
    pub session: Option<String>,
}

/// Ask for attestation; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct SevAttestation {}

/// Policy bits of the launch. NoDebug is always set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SevPolicy {
    /// SEV-ES: registers are encrypted as well.
    pub encrypted_state: Option<bool>,
}

/// AMD SEV-SNP; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct SevSnp {}

/// Intel TDX; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Tdx {}
