//! Host devices that machines may ask for.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// Host devices that machines may ask for. All others are refused.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PermittedHostDevices {
    /// Mediated devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mediated_devices: Vec<MediatedHostDevice>,
    /// PCI functions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pci_host_devices: Vec<PciHostDevice>,
    /// USB devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usb: Vec<UsbHostDevice>,
}

/// A kind of mediated device.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MediatedHostDevice {
    /// Another device plugin serves it. Unset: `false`.
    pub external_resource_provider: Option<bool>,
    /// Name of the type, as the driver spells it.
    pub mdev_name_selector: String,
    /// Resource name that machines ask for.
    pub resource_name: String,
}

/// A kind of PCI function.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PciHostDevice {
    /// Another device plugin serves it. Unset: `false`.
    pub external_resource_provider: Option<bool>,
    /// Vendor and device id, for example `10DE:1EB8`.
    pub pci_vendor_selector: String,
    /// Resource name that machines ask for.
    pub resource_name: String,
}

/// A set of USB devices that are handed out together.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct UsbHostDevice {
    /// Another device plugin serves it. Unset: `false`.
    pub external_resource_provider: Option<bool>,
    /// Resource name that machines ask for.
    pub resource_name: String,
    /// The devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<UsbSelector>,
}

/// One USB device, by its ids in hexadecimal.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct UsbSelector {
    /// Product id.
    pub product: String,
    /// Vendor id.
    pub vendor: String,
}

/// Mediated devices that the agent makes.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MediatedDevicesConfiguration {
    /// Make and remove them. Unset: `true`.
    pub enabled: Option<bool>,
    /// Types to make on every node that can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mediated_device_types: Vec<String>,
    /// Deprecated spelling of `mediatedDeviceTypes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mediated_devices_types: Vec<String>,
    /// Types to make on certain nodes instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_mediated_device_types: Vec<NodeMediatedDeviceTypes>,
}

/// Types to make on certain nodes.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct NodeMediatedDeviceTypes {
    /// The types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mediated_device_types: Vec<String>,
    /// Deprecated spelling of `mediatedDeviceTypes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mediated_devices_types: Vec<String>,
    /// Labels of the nodes.
    pub node_selector: BTreeMap<String, String>,
}
