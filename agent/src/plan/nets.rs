//! Network cards and the networks behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};

use orlop_api::config::{NetConfig, TapSource};
use orlop_crd::VirtualMachineInstanceSpec;
use orlop_crd::network::{
    DhcpOptions, Interface, InterfaceMasquerade, InterfaceModel, InterfaceState, Network, PodNetwork,
    Protocol,
};

use super::Refusal;
use crate::net::{
    BRIDGE_MAC, BridgeSpec, DhcpExtras, MasqueradeSpec, NetSpec, Ports, Subnet, Transport, mac_of,
};

/// Packets per queue.
const QUEUE_SIZE: u16 = 256;
/// The most queue pairs that a card is given, whatever the number of vCPUs.
const QUEUE_PAIRS_MAX: u32 = 8;
/// The longest value of a DHCP option, in bytes (RFC 2132 §2).
const DHCP_VALUE_MAX_BYTES: usize = 255;
/// All values together, in bytes: a DHCP answer is one packet.
const DHCP_VALUES_MAX_BYTES: usize = 768;
/// The longest name of a link, in bytes (`IFNAMSIZ` less its NUL).
const LINK_NAME_MAX_BYTES: usize = 15;

/// The cards, and the network of each by the card's id.
pub fn plan(
    spec: &VirtualMachineInstanceSpec,
    vm: &str,
    vcpus: u32,
    refusals: &mut Vec<Refusal>,
) -> (Vec<NetConfig>, BTreeMap<String, NetSpec>) {
    let (interfaces, networks) = with_default(spec);
    let multi_queue = spec.domain.devices.network_interface_multiqueue.unwrap_or(false);
    let queue_pairs =
        if multi_queue { u16::try_from(vcpus.clamp(1, QUEUE_PAIRS_MAX)).unwrap_or(1) } else { 1 };
    check_networks(&interfaces, &networks, refusals);
    let mut cards = Vec::new();
    let mut nets = BTreeMap::new();
    let mut macs = BTreeSet::new();
    for (index, interface) in interfaces.iter().enumerate() {
        let path = format!("spec.domain.devices.interfaces[{index}]");
        let mut report = Report { path, refusals: &mut *refusals };
        let Some((position, network)) =
            networks.iter().enumerate().find(|(_, network)| network.name == interface.name)
        else {
            report.refuse("name", format!("there is no network '{}' in spec.networks", interface.name));
            continue;
        };
        check_interface(interface, &mut report);
        let card = format!("{vm}/{}", interface.name);
        let given = interface.mac_address.as_deref().and_then(|text| mac(text, &mut report));
        let mac = given.unwrap_or_else(|| mac_of(&card));
        if !macs.insert(mac) {
            report.refuse("macAddress", "another interface has it");
        }
        let id = format!("net-{}", interface.name);
        cards.push(card_config(&id, interface, mac, queue_pairs));
        let net = if network.multus.is_some() {
            bridged(&card, interface, network, position, queue_pairs, &mut report).map(NetSpec::Bridge)
        } else {
            masqueraded(vm, interface, network, position, mac, queue_pairs, &mut report)
                .map(NetSpec::Masquerade)
        };
        nets.extend(net.map(|net| (id, net)));
    }
    (cards, nets)
}

/// Where refusals about one interface go.
struct Report<'a> {
    path: String,
    refusals: &'a mut Vec<Refusal>,
}

impl Report<'_> {
    fn refuse(&mut self, field: &str, reason: impl Display) {
        self.refusals.push(Refusal::new(format!("{}.{field}", self.path), reason.to_string()));
    }

    /// A refusal that belongs to `path`.
    fn refuse_at(&mut self, path: &str, reason: impl Display) {
        self.refusals.push(Refusal::new(path, reason.to_string()));
    }
}

/// What the manifest lists, or a masqueraded pod network where it lists nothing and does not say no.
fn with_default(spec: &VirtualMachineInstanceSpec) -> (Vec<Interface>, Vec<Network>) {
    let devices = &spec.domain.devices;
    let nothing = devices.interfaces.is_empty() && spec.networks.is_empty();
    if !nothing || devices.autoattach_pod_interface == Some(false) {
        return (devices.interfaces.clone(), spec.networks.clone());
    }
    let name = "default".to_owned();
    let interface =
        Interface { name: name.clone(), masquerade: Some(InterfaceMasquerade {}), ..Interface::default() };
    (vec![interface], vec![Network { name, pod: Some(PodNetwork::default()), ..Network::default() }])
}

/// Names fit together one to one, and there is one pod network.
fn check_networks(interfaces: &[Interface], networks: &[Network], refusals: &mut Vec<Refusal>) {
    let mut pods = 0;
    for (index, network) in networks.iter().enumerate() {
        let path = format!("spec.networks[{index}]");
        let users = interfaces.iter().filter(|interface| interface.name == network.name).count();
        if users == 0 {
            refusals
                .push(Refusal::new(format!("{path}.name"), format!("no interface is on '{}'", network.name)));
        }
        if users > 1 {
            let reason = "only one interface can be connected to one specific network";
            refusals.push(Refusal::new(format!("{path}.name"), reason));
        }
        if networks[..index].iter().any(|earlier| earlier.name == network.name) {
            let reason = format!("there are two networks '{}'", network.name);
            refusals.push(Refusal::new(format!("{path}.name"), reason));
        }
        if network.multus.is_none() && network.resource_claim.is_none() {
            pods += 1;
            if pods > 1 {
                refusals.push(Refusal::new(path, "more than one interface is connected to a pod network"));
            }
        }
    }
}

fn card_config(id: &str, interface: &Interface, mac: [u8; 6], queue_pairs: u16) -> NetConfig {
    NetConfig {
        id: id.to_owned(),
        tap: TapSource::Fds((0..queue_pairs).map(|queue| tap_name(id, queue)).collect()),
        mac: Some(mac.map(|byte| format!("{byte:02x}")).join(":")),
        // Known when its network is up.
        mtu: None,
        queue_pairs,
        queue_size: QUEUE_SIZE,
        offloads: true,
        link_up: interface.state != Some(InterfaceState::Down),
        rx_limit: None,
        tx_limit: None,
    }
}

/// Name of the descriptor of a tap's queue.
pub fn tap_name(id: &str, queue: u16) -> String {
    format!("{id}-q{queue}")
}

fn check_interface(interface: &Interface, report: &mut Report) {
    let path = report.path.clone();
    if interface.masquerade.is_some() == interface.bridge.is_some() {
        report.refuse_at(&path, "say how the interface is bound: masquerade: {}, or bridge: {}");
    }
    if !matches!(interface.model, None | Some(InterfaceModel::Virtio)) {
        report.refuse("model", "only virtio is there");
    }
    if interface.state == Some(InterfaceState::Absent) {
        report.refuse("state", "an interface cannot start as absent");
    }
}

/// A card on a bridge of this machine, which `multus.networkName` names where there is no cluster.
fn bridged(
    card: &str,
    interface: &Interface,
    network: &Network,
    position: usize,
    queue_pairs: u16,
    report: &mut Report,
) -> Option<BridgeSpec> {
    let bridge = network.multus.as_ref()?.network_name.clone();
    if interface.masquerade.is_some() {
        report.refuse("masquerade", "it is for the pod network only: use bridge: {}");
    }
    let asks_for_dhcp = interface.dhcp_options.as_ref().is_some_and(|o| *o != DhcpOptions::default());
    if asks_for_dhcp {
        report.refuse("dhcpOptions", "who answers DHCP on a bridge of this machine is not Orlop's to say");
    }
    if !interface.ports.is_empty() || !interface.port_ranges.is_empty() {
        report.refuse("ports", "everything on a bridge reaches the guest: there is nothing to forward");
    }
    let good = |b: u8| b.is_ascii_graphic() && !b"/:%".contains(&b);
    if bridge.is_empty() || bridge.len() > LINK_NAME_MAX_BYTES || !bridge.bytes().all(good) {
        let path = format!("spec.networks[{position}].multus.networkName");
        let reason =
            format!("'{bridge}' is not the name of a bridge of this machine, which it is without a cluster");
        report.refuse_at(&path, reason);
        return None;
    }
    Some(BridgeSpec { card: card.to_owned(), bridge, queue_pairs })
}

fn masqueraded(
    vm: &str,
    interface: &Interface,
    network: &Network,
    position: usize,
    mac: [u8; 6],
    queue_pairs: u16,
    report: &mut Report,
) -> Option<MasqueradeSpec> {
    if interface.bridge.is_some() {
        let reason = "there is no pod network to bridge without a cluster: use masquerade: {}, or name a bridge of \
                      this machine as the multus.networkName of its network";
        report.refuse("bridge", reason);
    }
    let pod = network.pod.clone().unwrap_or_default();
    let field = |name: &str| format!("spec.networks[{position}].pod.{name}");
    let v4 = Subnet::<Ipv4Addr>::parse(pod.vm_network_cidr.as_deref())
        .map_err(|error| report.refuse_at(&field("vmNetworkCIDR"), error));
    let v6 = Subnet::<Ipv6Addr>::parse(pod.vm_ipv6_network_cidr.as_deref())
        .map_err(|error| report.refuse_at(&field("vmIPv6NetworkCIDR"), error));
    let (ports, dhcp) = (ports(interface, report), dhcp(interface, report));
    Some(MasqueradeSpec { vm: vm.to_owned(), v4: v4.ok()?, v6: v6.ok()?, mac, queue_pairs, ports, dhcp })
}

fn ports(interface: &Interface, report: &mut Report) -> Vec<Ports> {
    let transport = |protocol: Protocol| match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    let single = interface.ports.iter().enumerate().map(|(index, port)| {
        let transport = transport(port.protocol.unwrap_or_default());
        (format!("ports[{index}]"), Ports { transport, first: port.port, last: port.port })
    });
    let ranges = interface.port_ranges.iter().enumerate().map(|(index, range)| {
        let transport = transport(range.protocol);
        (format!("portRanges[{index}]"), Ports { transport, first: range.start, last: range.end })
    });
    let mut all: Vec<Ports> = Vec::new();
    for (field, ports) in single.chain(ranges) {
        if ports.first == 0 || ports.last < ports.first {
            report.refuse(&field, "ports are 1 to 65535, the first not behind the last");
        } else if all.contains(&ports) {
            report.refuse(&field, "it is there already");
        } else {
            all.push(ports);
        }
    }
    all
}

fn dhcp(interface: &Interface, report: &mut Report) -> DhcpExtras {
    let Some(options) = &interface.dhcp_options else { return DhcpExtras::default() };
    let mut extras = DhcpExtras {
        boot_file: options.boot_file_name.clone(),
        tftp_server: options.tftp_server_name.clone(),
        ..DhcpExtras::default()
    };
    for (index, server) in options.ntp_servers.iter().enumerate() {
        match server.parse() {
            Ok(address) => extras.ntp_servers.push(address),
            Err(_) => {
                let field = format!("dhcpOptions.ntpServers[{index}]");
                report.refuse(&field, format!("'{server}' is not an IPv4 address"));
            }
        }
    }
    for (index, private) in options.private_options.iter().enumerate() {
        let field = format!("dhcpOptions.privateOptions[{index}].option");
        if !(224..=254).contains(&private.option) {
            report.refuse(&field, format!("{} is not between 224 and 254", private.option));
        } else if extras.private.iter().any(|(code, _)| *code == private.option) {
            report.refuse(&field, format!("{} is there already", private.option));
        } else {
            extras.private.push((private.option, private.value.clone()));
        }
    }
    let texts = extras.boot_file.iter().chain(&extras.tftp_server);
    let lengths: Vec<usize> =
        texts.chain(extras.private.iter().map(|(_, value)| value)).map(String::len).collect();
    let all = lengths.iter().sum::<usize>().saturating_add(extras.ntp_servers.len().saturating_mul(4));
    if lengths.iter().any(|len| *len == 0 || *len > DHCP_VALUE_MAX_BYTES) {
        report.refuse("dhcpOptions", format!("a value has 1 to {DHCP_VALUE_MAX_BYTES} bytes"));
    } else if all > DHCP_VALUES_MAX_BYTES {
        let reason = format!("the values have {all} bytes together, of at most {DHCP_VALUES_MAX_BYTES}");
        report.refuse("dhcpOptions", reason);
    }
    extras
}

/// Six bytes of a unicast address, in hexadecimal with `:` or `-` between.
fn mac(text: &str, report: &mut Report) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten())
        .collect();
    let reason = match bytes.and_then(|b| <[u8; 6]>::try_from(b).ok()) {
        None => format!("'{text}' is not a MAC address such as 02:00:00:12:34:56"),
        Some([first, ..]) if first & 1 != 0 => format!("'{text}' is a group address, not one card's"),
        Some([0, 0, 0, 0, 0, 0]) => format!("'{text}' is no card's address"),
        Some(BRIDGE_MAC) => format!("'{text}' is the bridge's own address"),
        Some(mac) => return Some(mac),
    };
    report.refuse("macAddress", reason);
    None
}
