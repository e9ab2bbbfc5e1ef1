//! Network interfaces and the networks that they are connected to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// A network interface. Exactly one binding is set, see [`Interface::attachment`].
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Index from which the guest may name the interface (`eno1`); unique, 1 to 16383.
    pub acpi_index: Option<u32>,
    /// Binding by a plugin of the cluster.
    pub binding: Option<PluginBinding>,
    /// Place in the boot order, from 1; unique over disks and interfaces.
    pub boot_order: Option<u32>,
    /// Bridged: the guest takes over the pod's address.
    pub bridge: Option<InterfaceBridge>,
    /// More options for the guest's DHCP answer.
    pub dhcp_options: Option<DhcpOptions>,
    /// MAC address, with colons or dashes. Unset: random, or the pod's.
    pub mac_address: Option<String>,
    /// No longer served; a manifest with it is refused.
    pub macvtap: Option<DeprecatedInterfaceMacvtap>,
    /// Behind NAT: the guest has a private address.
    pub masquerade: Option<InterfaceMasquerade>,
    /// Unset: `virtio`.
    pub model: Option<InterfaceModel>,
    /// Name of the network that it is connected to.
    pub name: String,
    /// No longer served; a manifest with it is refused.
    pub passt: Option<DeprecatedInterfacePasst>,
    /// By passt: the guest's connections become the pod's sockets.
    pub passt_binding: Option<InterfacePasstBinding>,
    /// PCI address, for example `0000:05:00.0`.
    pub pci_address: Option<String>,
    /// Ranges of ports that are forwarded to the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_ranges: Vec<PortRange>,
    /// Ports that are forwarded to the guest. With neither list, all are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// No longer served; a manifest with it is refused.
    pub slirp: Option<DeprecatedInterfaceSlirp>,
    /// An SR-IOV function passed through.
    pub sriov: Option<InterfaceSriov>,
    /// Unset: `up`.
    pub state: Option<InterfaceState>,
    /// Passed to the guest by the cloud-init config drive.
    pub tag: Option<String>,
}

/// Network adapters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "snake_case")]
pub enum InterfaceModel {
    /// Intel 82540EM.
    E1000,
    /// Intel 82574.
    E1000e,
    /// Intel 82576.
    Igb,
    /// NE2000 on PCI.
    Ne2kPci,
    /// AMD Am79C970.
    Pcnet,
    /// Realtek 8139.
    Rtl8139,
    /// virtio-net.
    #[default]
    Virtio,
}

/// What an interface should be.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceState {
    /// Unplugged.
    Absent,
    /// Present, with the link down.
    Down,
    /// Present, with the link up.
    #[default]
    Up,
}

/// Bridge binding; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct InterfaceBridge {}

/// Masquerade binding; has no parameters, the addresses are in [`PodNetwork`].
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct InterfaceMasquerade {}

/// passt binding; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct InterfacePasstBinding {}

/// SR-IOV binding; has no parameters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct InterfaceSriov {}

/// No longer served.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DeprecatedInterfaceMacvtap {}

/// No longer served.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DeprecatedInterfacePasst {}

/// No longer served.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DeprecatedInterfaceSlirp {}

/// Binding by a plugin.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct PluginBinding {
    /// Name under which the cluster knows the plugin.
    pub name: String,
}

/// A port that is forwarded to the guest.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Port {
    /// An IANA service name, unique in the pod.
    pub name: Option<String>,
    /// 1 to 65535.
    pub port: u16,
    /// Unset: `TCP`.
    pub protocol: Option<Protocol>,
}

/// A range of ports that is forwarded to the guest.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct PortRange {
    /// Last port.
    pub end: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// First port.
    pub start: u16,
}

/// Transport protocols that can be forwarded.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// More options for the guest's DHCP answer (RFC 2132).
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DhcpOptions {
    /// Option 67, boot file.
    pub boot_file_name: Option<String>,
    /// Option 42, IPv4 addresses of NTP servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp_servers: Vec<String>,
    /// Options for private use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_options: Vec<DhcpPrivateOption>,
    /// Option 66, TFTP server.
    pub tftp_server_name: Option<String>,
}

/// One option for private use.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct DhcpPrivateOption {
    /// 224 to 254.
    pub option: u8,
    /// Its value.
    pub value: String,
}

/// A network. Exactly one source is set, see [`Network::source`].
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// A secondary network.
    pub multus: Option<MultusNetwork>,
    /// Name by which an interface refers to it; a DNS label, unique.
    pub name: String,
    /// The pod's own network.
    pub pod: Option<PodNetwork>,
    /// A device from a claim.
    pub resource_claim: Option<ClaimRequest>,
}

/// The pod's own network. The guest gets the second address of the range, the gateway has the first.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct PodNetwork {
    /// Private range behind masquerade. Unset: `fd10:0:2::/120`.
    #[serde(rename = "vmIPv6NetworkCIDR")]
    pub vm_ipv6_network_cidr: Option<String>,
    /// Private range behind masquerade. Unset: `10.0.2.0/24`.
    #[serde(rename = "vmNetworkCIDR")]
    pub vm_network_cidr: Option<String>,
}

/// A network of a NetworkAttachmentDefinition.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct MultusNetwork {
    /// It takes the place of the pod network. Unset: `false`.
    pub default: Option<bool>,
    /// `name` or `namespace/name` of the definition.
    pub network_name: String,
}

/// One request within a claim.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRequest {
    /// Entry in `spec.resourceClaims`.
    pub claim_name: Option<String>,
    /// Request within the claim.
    pub request_name: Option<String>,
}
