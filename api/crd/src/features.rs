//! Platform features and what the hypervisor shows of itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// Platform features. A feature that is set without `enabled` is on.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// ACPI. Unset: on.
    pub acpi: Option<FeatureState>,
    /// Local APIC.
    pub apic: Option<FeatureApic>,
    /// Hyper-V interfaces for Windows guests.
    pub hyperv: Option<FeatureHyperv>,
    /// All Hyper-V interfaces that the host offers; excludes `hyperv`.
    pub hyperv_passthrough: Option<HypervPassthrough>,
    /// What KVM shows of itself.
    pub kvm: Option<FeatureKvm>,
    /// Paravirtual spinlocks. Unset: on.
    pub pvspinlock: Option<FeatureState>,
    /// System management mode; secure boot needs it.
    pub smm: Option<FeatureState>,
}

/// A switch.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct FeatureState {
    /// Unset: `true`.
    pub enabled: Option<bool>,
}

/// Local APIC.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FeatureApic {
    /// Unset: `true`.
    pub enabled: Option<bool>,
    /// Paravirtual end of interrupt. Unset: `false`.
    pub end_of_interrupt: Option<bool>,
}

/// What KVM shows of itself.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct FeatureKvm {
    /// Hide the KVM signature in CPUID. Unset: `false`.
    pub hidden: Option<bool>,
}

/// All Hyper-V interfaces of the host.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct HypervPassthrough {
    /// Unset: `true`.
    pub enabled: Option<bool>,
}

/// Hyper-V interfaces (Hypervisor Top Level Functional Specification). Each one may need others.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct FeatureHyperv {
    /// Enlightened VMCS for nested guests on Intel; needs `vapic`.
    pub evmcs: Option<FeatureState>,
    /// TSC and APIC frequencies in MSRs.
    pub frequencies: Option<FeatureState>,
    /// Interprocessor interrupts by hypercall; needs `vpindex`.
    pub ipi: Option<FeatureState>,
    /// Notice of a changed TSC frequency after migration.
    pub reenlightenment: Option<FeatureState>,
    /// The guest turns its watchdogs off.
    pub relaxed: Option<FeatureState>,
    /// Reset by MSR; needs `synic`.
    pub reset: Option<FeatureState>,
    /// Run time of each vCPU in an MSR.
    pub runtime: Option<FeatureState>,
    /// Notice of long spinning.
    pub spinlocks: Option<FeatureSpinlocks>,
    /// Synthetic interrupt controller; needs `vpindex`.
    pub synic: Option<FeatureState>,
    /// Synthetic timers; needs `synic`.
    pub synictimer: Option<SynicTimer>,
    /// TLB flush by hypercall; needs `vpindex`.
    pub tlbflush: Option<TlbFlush>,
    /// Virtual APIC page.
    pub vapic: Option<FeatureState>,
    /// Vendor string in CPUID.
    pub vendorid: Option<FeatureVendorId>,
    /// vCPU number in an MSR.
    pub vpindex: Option<FeatureState>,
}

/// Notice of long spinning.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct FeatureSpinlocks {
    /// Unset: `true`.
    pub enabled: Option<bool>,
    /// Tries before the guest tells the hypervisor; at least 4096. Unset: 4096.
    pub spinlocks: Option<u32>,
}

/// Vendor string in CPUID leaf 0x4000_0000.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct FeatureVendorId {
    /// Unset: `true`.
    pub enabled: Option<bool>,
    /// At most 12 bytes.
    pub vendorid: Option<String>,
}

/// Synthetic timers.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct SynicTimer {
    /// Timers that raise an interrupt without a message.
    pub direct: Option<FeatureState>,
    /// Unset: `true`.
    pub enabled: Option<bool>,
}

/// TLB flush by hypercall.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct TlbFlush {
    /// Nested guests flush without an exit to their hypervisor.
    pub direct: Option<FeatureState>,
    /// Unset: `true`.
    pub enabled: Option<bool>,
    /// Flush of single address ranges.
    pub extended: Option<FeatureState>,
}
