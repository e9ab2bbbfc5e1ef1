//! What runs first: firmware, or a kernel in its place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// What runs first and how the machine identifies itself.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Firmware {
    /// Additional ACPI tables.
    pub acpi: Option<Acpi>,
    /// Firmware. Unset: BIOS on amd64, EFI on arm64.
    pub bootloader: Option<Bootloader>,
    /// Boot a kernel directly.
    pub kernel_boot: Option<KernelBoot>,
    /// System serial number in SMBIOS type 1.
    pub serial: Option<String>,
    /// System UUID in SMBIOS type 1. Unset: made once and kept.
    pub uuid: Option<String>,
}

/// ACPI tables taken from volumes, byte for byte.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Acpi {
    /// Volume (a Secret) that holds the MSDM table.
    pub msdm_name_ref: Option<String>,
    /// Volume (a Secret) that holds the SLIC table.
    pub slic_name_ref: Option<String>,
}

/// Firmware: at most one is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Bootloader {
    /// Legacy BIOS.
    pub bios: Option<Bios>,
    /// UEFI.
    pub efi: Option<Efi>,
}

/// Legacy BIOS.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Bios {
    /// Show the firmware's output on the serial console. Unset: `false`.
    pub use_serial: Option<bool>,
}

/// UEFI.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Efi {
    /// Keep the variables over restarts. Unset: `false`.
    pub persistent: Option<bool>,
    /// Secure boot; needs `features.smm`. Unset: `true`.
    pub secure_boot: Option<bool>,
}

/// Boot a kernel directly, without firmware.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct KernelBoot {
    /// Where kernel and initial ramdisk are.
    pub container: Option<KernelBootContainer>,
    /// Kernel command line.
    pub kernel_args: Option<String>,
}

/// A container image that holds a kernel. At least one of the two paths is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct KernelBootContainer {
    /// The image.
    pub image: String,
    /// When it is pulled. Unset: `Always` for `:latest` or no tag, else `IfNotPresent`.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secret with the registry's credentials.
    pub image_pull_secret: Option<String>,
    /// Path of the initial ramdisk in the image.
    pub initrd_path: Option<String>,
    /// Path of the kernel in the image.
    pub kernel_path: Option<String>,
}

/// When an image is pulled.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ImagePullPolicy {
    /// At every start.
    Always,
    /// Where the node does not have it.
    #[default]
    IfNotPresent,
    /// Never; the node must have it.
    Never,
}
