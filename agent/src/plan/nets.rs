//! Network cards and the networks behind them.

use std::collections::BTreeMap;

use orlop_api::config::{NetConfig, TapSource};
use orlop_crd::VirtualMachineInstanceSpec;
use orlop_crd::network::{
    Interface, InterfaceMasquerade, InterfaceModel, InterfaceState, Network, PodNetwork,
};

use super::Refusal;
use crate::net::{MasqueradeSpec, plan_masquerade};

/// Packets per queue.
const QUEUE_SIZE: u16 = 256;
/// The most queue pairs that a card is given, whatever the number of vCPUs.
const QUEUE_PAIRS_MAX: u32 = 8;

/// The cards, and the network of each by the card's id.
pub fn plan(
    spec: &VirtualMachineInstanceSpec,
    vm: &str,
    vcpus: u32,
    refusals: &mut Vec<Refusal>,
) -> (Vec<NetConfig>, BTreeMap<String, MasqueradeSpec>) {
    let (interfaces, networks) = with_default(spec);
    let mut cards = Vec::new();
    let mut nets = BTreeMap::new();
    let multi_queue = spec.domain.devices.network_interface_multiqueue.unwrap_or(false);
    let queue_pairs =
        if multi_queue { u16::try_from(vcpus.clamp(1, QUEUE_PAIRS_MAX)).unwrap_or(1) } else { 1 };
    if interfaces.len() > 1 {
        let reason = "one interface, on the pod network, is carried out without a cluster so far";
        refusals.push(Refusal::new("spec.domain.devices.interfaces[1]", reason));
    }
    for (index, interface) in interfaces.iter().enumerate() {
        let path = format!("spec.domain.devices.interfaces[{index}]");
        let Some(network) = networks.iter().find(|n| n.name == interface.name) else {
            let reason = format!("there is no network '{}' in spec.networks", interface.name);
            refusals.push(Refusal::new(format!("{path}.name"), reason));
            continue;
        };
        check_interface(interface, &path, refusals);
        let spec = MasqueradeSpec {
            vm: vm.to_owned(),
            cidr: network.pod.as_ref().and_then(|p| p.vm_network_cidr.clone()),
            mac: interface.mac_address.as_deref().and_then(|text| mac(text, &path, refusals)),
            queue_pairs,
        };
        match plan_masquerade(&spec, 0) {
            Ok(plan) => {
                let id = format!("net-{}", interface.name);
                cards.push(card(&id, interface, plan.mac, queue_pairs));
                nets.insert(id, MasqueradeSpec { mac: Some(plan.mac), ..spec });
            }
            Err(error) => refusals.push(Refusal::new("spec.networks", error.to_string())),
        }
    }
    for (index, network) in networks.iter().enumerate() {
        if !interfaces.iter().any(|i| i.name == network.name) {
            let reason = format!("no interface is on '{}'", network.name);
            refusals.push(Refusal::new(format!("spec.networks[{index}].name"), reason));
        }
    }
    (cards, nets)
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

fn card(id: &str, interface: &Interface, mac: [u8; 6], queue_pairs: u16) -> NetConfig {
    NetConfig {
        id: id.to_owned(),
        tap: TapSource::Fds((0..queue_pairs).map(|queue| tap_name(id, queue)).collect()),
        mac: Some(mac.map(|byte| format!("{byte:02x}")).join(":")),
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

fn check_interface(interface: &Interface, path: &str, refusals: &mut Vec<Refusal>) {
    if interface.masquerade.is_none() && interface.bridge.is_none() && interface.sriov.is_none() {
        let reason = "say how the interface is bound: masquerade: {}";
        refusals.push(Refusal::new(path, reason));
    }
    if !matches!(interface.model, None | Some(InterfaceModel::Virtio)) {
        refusals.push(Refusal::new(format!("{path}.model"), "only virtio is there"));
    }
    if interface.state == Some(InterfaceState::Absent) {
        refusals.push(Refusal::new(format!("{path}.state"), "an interface cannot start as absent"));
    }
}

/// Six bytes of a unicast address, in hexadecimal with `:` or `-` between.
fn mac(text: &str, path: &str, refusals: &mut Vec<Refusal>) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten())
        .collect();
    let mac = bytes.and_then(|b| <[u8; 6]>::try_from(b).ok());
    let path = format!("{path}.macAddress");
    match mac {
        None => refusals
            .push(Refusal::new(path, format!("'{text}' is not a MAC address such as 02:00:00:12:34:56"))),
        Some([first, ..]) if first & 1 != 0 => {
            refusals.push(Refusal::new(path, format!("'{text}' is a group address, not one card's")));
        }
        Some(crate::net::BRIDGE_MAC) => {
            refusals.push(Refusal::new(path, format!("'{text}' is the bridge's own address")));
        }
        Some(_) => return mac,
    }
    None
}
