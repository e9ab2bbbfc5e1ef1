//! Preferences: what suits a guest operating system.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::clock::{ClockOffsetUtc, Timer};
use crate::cpu::CpuFeature;
use crate::devices::{InputBus, InputType, PanicDeviceModel, Rng, SoundModel, TpmDevice, VgpuOptions};
use crate::disks::{BlockSize, DiskBus, DiskCache, DiskIo};
use crate::domain::LaunchSecurity;
use crate::features::{FeatureApic, FeatureHyperv, FeatureKvm, FeatureState};
use crate::firmware::Efi;
use crate::network::{InterfaceMasquerade, InterfaceModel};
use crate::vmi::Architecture;

/// Values that fill in what instance type and template leave open, and what they must offer at least.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachinePreferenceSpec {
    /// Annotations that instances receive.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Clock and timers.
    pub clock: Option<ClockPreferences>,
    /// Processors.
    pub cpu: Option<CpuPreferences>,
    /// Devices.
    pub devices: Option<DevicePreferences>,
    /// Platform features.
    pub features: Option<FeaturePreferences>,
    /// Firmware.
    pub firmware: Option<FirmwarePreferences>,
    /// Machine type.
    pub machine: Option<MachinePreferences>,
    /// Deprecated: say `cpu.spreadOptions.ratio`. Cores for each socket when vCPUs are spread. Unset: 2.
    pub prefer_spread_socket_to_core_ratio: Option<u32>,
    /// Processor architecture.
    pub preferred_architecture: Option<Architecture>,
    /// Encrypted memory.
    pub preferred_launch_security: Option<LaunchSecurity>,
    /// DNS subdomain.
    pub preferred_subdomain: Option<String>,
    /// Seconds between the power button and the kill.
    pub preferred_termination_grace_period_seconds: Option<i64>,
    /// What instance type or template must offer at least; a machine that offers less is refused.
    pub requirements: Option<PreferenceRequirements>,
    /// Volumes.
    pub volumes: Option<VolumePreferences>,
}

/// Clock and timers.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ClockPreferences {
    /// What the clock shows.
    pub preferred_clock_offset: Option<ClockOffset>,
    /// Which timers there are.
    pub preferred_timer: Option<Timer>,
}

/// What the clock shows. At most one is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ClockOffset {
    /// Local time of this zone, for example `Europe/Amsterdam`.
    pub timezone: Option<String>,
    /// UTC, or UTC with an offset.
    pub utc: Option<ClockOffsetUtc>,
}

/// Processors.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CpuPreferences {
    /// CPUID features to add or remove.
    #[serde(rename = "preferredCPUFeatures", default, skip_serializing_if = "Vec::is_empty")]
    pub preferred_cpu_features: Vec<CpuFeature>,
    /// How an instance type's vCPUs are laid out. Unset: as sockets.
    #[serde(rename = "preferredCPUTopology")]
    pub preferred_cpu_topology: Option<PreferredCpuTopology>,
    /// Details of the layout `spread`.
    pub spread_options: Option<SpreadOptions>,
}

/// How an instance type's vCPUs are laid out.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PreferredCpuTopology {
    /// Each a socket.
    #[serde(rename = "sockets")]
    Sockets,
    /// As cores of one socket.
    #[serde(rename = "cores")]
    Cores,
    /// As threads of one core.
    #[serde(rename = "threads")]
    Threads,
    /// Over several levels, as `spreadOptions` says.
    #[serde(rename = "spread")]
    Spread,
    /// Each a socket; a template without instance type may do as it likes.
    #[serde(rename = "any")]
    Any,
    /// Deprecated spelling of `sockets`.
    #[serde(rename = "preferSockets")]
    PreferSockets,
    /// Deprecated spelling of `cores`.
    #[serde(rename = "preferCores")]
    PreferCores,
    /// Deprecated spelling of `threads`.
    #[serde(rename = "preferThreads")]
    PreferThreads,
    /// Deprecated spelling of `spread`.
    #[serde(rename = "preferSpread")]
    PreferSpread,
    /// Deprecated spelling of `any`.
    #[serde(rename = "preferAny")]
    PreferAny,
}

/// Details of the layout `spread`.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SpreadOptions {
    /// Levels that vCPUs are spread over. Unset: `SocketsCores`.
    pub across: Option<SpreadAcross>,
    /// How many of the lower level go into one of the upper. Unset: 2; `CoresThreads` knows no other.
    pub ratio: Option<u32>,
}

/// Levels that vCPUs are spread over.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpreadAcross {
    /// Sockets and cores.
    SocketsCores,
    /// Sockets, cores, and two threads on each core.
    SocketsCoresThreads,
    /// Cores, and two threads on each.
    CoresThreads,
}

/// Devices. Each field fills in the one of nearly the same name.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DevicePreferences {
    /// A graphics device with VNC.
    pub preferred_autoattach_graphics_device: Option<bool>,
    /// A tablet, where none is listed.
    pub preferred_autoattach_input_device: Option<bool>,
    /// A memory balloon.
    pub preferred_autoattach_mem_balloon: Option<bool>,
    /// An interface on the pod network, where none is listed.
    pub preferred_autoattach_pod_interface: Option<bool>,
    /// A serial console.
    pub preferred_autoattach_serial_console: Option<bool>,
    /// One queue per vCPU on each virtio disk.
    pub preferred_block_multi_queue: Option<bool>,
    /// Bus of CD-ROM drives.
    pub preferred_cdrom_bus: Option<DiskBus>,
    /// No disks can be attached later. Overrides what the template says.
    pub preferred_disable_hotplug: Option<bool>,
    /// Sector sizes of disks.
    pub preferred_disk_block_size: Option<BlockSize>,
    /// Bus of plain disks.
    pub preferred_disk_bus: Option<DiskBus>,
    /// How the host caches disks.
    pub preferred_disk_cache: Option<DiskCache>,
    /// An I/O thread of its own for each virtio disk.
    pub preferred_disk_dedicated_io_thread: Option<bool>,
    /// How requests of disks reach the host.
    #[serde(rename = "preferredDiskIO")]
    pub preferred_disk_io: Option<DiskIo>,
    /// Bus of input devices.
    pub preferred_input_bus: Option<InputBus>,
    /// Kind of input devices.
    pub preferred_input_type: Option<InputType>,
    /// Put interfaces of the pod network that name no binding behind NAT.
    pub preferred_interface_masquerade: Option<InterfaceMasquerade>,
    /// Model of network interfaces.
    pub preferred_interface_model: Option<InterfaceModel>,
    /// Bus of logical units.
    pub preferred_lun_bus: Option<DiskBus>,
    /// One queue pair per vCPU on each virtio interface.
    pub preferred_network_interface_multi_queue: Option<bool>,
    /// A panic device of this model.
    pub preferred_panic_device_model: Option<PanicDeviceModel>,
    /// A source of random numbers.
    pub preferred_rng: Option<Rng>,
    /// Model of a sound card that is listed.
    pub preferred_sound_model: Option<SoundModel>,
    /// A trusted platform module.
    #[serde(rename = "preferredTPM")]
    pub preferred_tpm: Option<TpmDevice>,
    /// Virtio 0.9 for guests older than virtio 1.0.
    pub preferred_use_virtio_transitional: Option<bool>,
    /// Kind of graphics device.
    pub preferred_video_type: Option<String>,
    /// Options of mediated GPUs.
    #[serde(rename = "preferredVirtualGPUOptions")]
    pub preferred_virtual_gpu_options: Option<VgpuOptions>,
}

/// Platform features.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FeaturePreferences {
    /// ACPI.
    pub preferred_acpi: Option<FeatureState>,
    /// Local APIC.
    pub preferred_apic: Option<FeatureApic>,
    /// Hyper-V interfaces for Windows guests.
    pub preferred_hyperv: Option<FeatureHyperv>,
    /// What KVM shows of itself.
    pub preferred_kvm: Option<FeatureKvm>,
    /// Paravirtual spinlocks.
    pub preferred_pvspinlock: Option<FeatureState>,
    /// System management mode.
    pub preferred_smm: Option<FeatureState>,
}

/// Firmware.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct FirmwarePreferences {
    /// UEFI, with these options.
    pub preferred_efi: Option<Efi>,
    /// Legacy BIOS.
    pub preferred_use_bios: Option<bool>,
    /// The BIOS's output on the serial console.
    pub preferred_use_bios_serial: Option<bool>,
    /// Deprecated: say `preferredEfi`. UEFI.
    pub preferred_use_efi: Option<bool>,
    /// Deprecated: say `preferredEfi`. Secure boot.
    pub preferred_use_secure_boot: Option<bool>,
}

/// Machine type.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MachinePreferences {
    /// For example `q35`.
    pub preferred_machine_type: Option<String>,
}

/// What instance type or template must offer at least.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PreferenceRequirements {
    /// The one architecture that will do.
    pub architecture: Option<Architecture>,
    /// Processors.
    pub cpu: Option<CpuPreferenceRequirement>,
    /// Memory.
    pub memory: Option<MemoryPreferenceRequirement>,
}

/// Processors that are needed.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CpuPreferenceRequirement {
    /// Number of vCPUs, at least.
    pub guest: u32,
}

/// Memory that is needed.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MemoryPreferenceRequirement {
    /// What the guest sees, at least.
    pub guest: Quantity,
}

/// Volumes.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct VolumePreferences {
    /// Storage class of DataVolumes that name none.
    pub preferred_storage_class_name: Option<String>,
}
