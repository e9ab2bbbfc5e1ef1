//! Devices other than disks and network interfaces, and the list of all of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::disks::Disk;
use crate::features::FeatureState;
use crate::network::Interface;

/// All devices of a machine.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Devices {
    /// A graphics device with VNC. Unset: `true`.
    pub autoattach_graphics_device: Option<bool>,
    /// A tablet, where none is listed. Unset: `false`.
    pub autoattach_input_device: Option<bool>,
    /// A memory balloon, which memory statistics need. Unset: `true`.
    pub autoattach_mem_balloon: Option<bool>,
    /// An interface on the pod network, where no interface is listed. Unset: `true`.
    pub autoattach_pod_interface: Option<bool>,
    /// A serial console. Unset: `true`.
    pub autoattach_serial_console: Option<bool>,
    /// A vsock device with a context id of its own. Unset: `false`.
    #[serde(rename = "autoattachVSOCK")]
    pub autoattach_vsock: Option<bool>,
    /// One queue per vCPU on each virtio disk. Unset: `false`.
    pub block_multi_queue: Option<bool>,
    /// USB devices redirected from a client.
    pub client_passthrough: Option<ClientPassthroughDevices>,
    /// No disks can be attached later. Unset: `false`.
    pub disable_hotplug: Option<bool>,
    /// Disks, CD-ROMs and LUNs. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Host metrics through a virtio-serial port.
    pub downward_metrics: Option<DownwardMetrics>,
    /// Directories shared with the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filesystems: Vec<Filesystem>,
    /// GPUs passed through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// Other host devices passed through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_devices: Vec<HostDevice>,
    /// Input devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// Network interfaces. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Keep what the guest writes to the serial console as a container's log. Unset: the cluster's setting.
    pub log_serial_console: Option<bool>,
    /// One queue pair per vCPU on each virtio interface. Unset: `false`.
    pub network_interface_multiqueue: Option<bool>,
    /// Devices by which the guest tells that it crashed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub panic_devices: Vec<PanicDevice>,
    /// A source of random numbers.
    pub rng: Option<Rng>,
    /// A sound card.
    pub sound: Option<SoundDevice>,
    /// A trusted platform module.
    pub tpm: Option<TpmDevice>,
    /// Virtio 0.9 for guests older than virtio 1.0. Unset: `false`.
    pub use_virtio_transitional: Option<bool>,
    /// The graphics device.
    pub video: Option<VideoDevice>,
    /// A watchdog.
    pub watchdog: Option<Watchdog>,
}

/// USB redirection; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct ClientPassthroughDevices {}

/// Host metrics through a virtio-serial port; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DownwardMetrics {}

/// virtio-rng; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Rng {}

/// A trusted platform module.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct TpmDevice {
    /// Unset: `true`.
    pub enabled: Option<bool>,
    /// Keep its state over restarts. Unset: `false`.
    pub persistent: Option<bool>,
}

/// A watchdog. At most one of the models is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Watchdog {
    /// The one of IBM Z.
    pub diag288: Option<Diag288Watchdog>,
    /// Intel 6300ESB, on PCI.
    pub i6300esb: Option<I6300EsbWatchdog>,
    /// Name of the device.
    pub name: String,
}

/// The watchdog of IBM Z.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Diag288Watchdog {
    /// Unset: `reset`.
    pub action: Option<WatchdogAction>,
}

/// Intel 6300ESB.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct I6300EsbWatchdog {
    /// Unset: `reset`.
    pub action: Option<WatchdogAction>,
}

/// What an expired watchdog does.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum WatchdogAction {
    /// Ends the machine at once.
    Poweroff,
    /// Resets it.
    #[default]
    Reset,
    /// Presses the power button.
    Shutdown,
}

/// An input device.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Input {
    /// Unset: `usb`.
    pub bus: Option<InputBus>,
    /// Name of the device.
    pub name: String,
    /// Which device.
    pub r#type: InputType,
}

/// Bus of an input device.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum InputBus {
    /// USB.
    #[default]
    Usb,
    /// virtio-input.
    Virtio,
}

/// Kinds of input device.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    /// A pointer with absolute positions.
    #[default]
    Tablet,
}

/// The graphics device.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct VideoDevice {
    /// For example `virtio`, `vga`, `bochs` or `ramfb`. Unset: VGA under BIOS, Bochs under EFI.
    pub r#type: Option<String>,
}

/// A sound card.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct SoundDevice {
    /// Unset: `ich9`.
    pub model: Option<SoundModel>,
    /// Name of the device.
    pub name: String,
}

/// Models of sound card.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum SoundModel {
    /// Intel 82801AA.
    Ac97,
    /// Intel high definition audio.
    #[default]
    Ich9,
}

/// A device by which the guest tells that it crashed.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct PanicDevice {
    /// Unset: what fits the architecture.
    pub model: Option<PanicDeviceModel>,
}

/// Models of panic device.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum PanicDeviceModel {
    /// pvpanic on an I/O port.
    Isa,
    /// The crash registers of Hyper-V.
    Hyperv,
    /// pvpanic on PCI.
    Pvpanic,
}

/// A directory shared with the guest.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Filesystem {
    /// Name of the volume, and tag under which the guest mounts it.
    pub name: String,
    /// By virtiofs, the only way there is.
    pub virtiofs: FilesystemVirtiofs,
}

/// virtiofs; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct FilesystemVirtiofs {}

/// A GPU passed through. Either `deviceName` or the two names of a claim are set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Entry in `spec.resourceClaims`.
    pub claim_name: Option<String>,
    /// Resource name of a device plugin, for example `nvidia.com/GA102GL_A10`.
    pub device_name: Option<String>,
    /// Name of the device.
    pub name: String,
    /// Request within the claim.
    pub request_name: Option<String>,
    /// Passed to the guest by the cloud-init config drive.
    pub tag: Option<String>,
    /// Options of a mediated device.
    #[serde(rename = "virtualGPUOptions")]
    pub virtual_gpu_options: Option<VgpuOptions>,
}

/// Options of a mediated GPU.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct VgpuOptions {
    /// Its display.
    pub display: Option<VgpuDisplayOptions>,
}

/// Display of a mediated GPU.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct VgpuDisplayOptions {
    /// Unset: `true`.
    pub enabled: Option<bool>,
    /// A boot display until the driver takes over. Unset: on.
    #[serde(rename = "ramFB")]
    pub ram_fb: Option<FeatureState>,
}

/// A host device passed through. Either `deviceName` or the two names of a claim are set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct HostDevice {
    /// Entry in `spec.resourceClaims`.
    pub claim_name: Option<String>,
    /// Resource name of a device plugin.
    pub device_name: Option<String>,
    /// Name of the device.
    pub name: String,
    /// Request within the claim.
    pub request_name: Option<String>,
    /// Passed to the guest by the cloud-init config drive.
    pub tag: Option<String>,
}
