//! Networks and interfaces, and that they belong together.

use std::collections::{HashMap, HashSet};

use super::cause::{Causes, Path};
use super::names;
use super::site::Site;
use crate::network::{Interface, InterfaceState, Network};
use crate::vmi::VirtualMachineInstanceSpec;

/// The address of the bridge in the pod, which the guest is behind.
const RESERVED_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0];
/// Options of DHCP for private use (RFC 3942 §2).
const PRIVATE_OPTIONS: std::ops::RangeInclusive<u8> = 224..=254;

pub(super) fn check(at: &Path, spec: &VirtualMachineInstanceSpec, site: &Site, causes: &mut Causes) {
    sources(at, &spec.networks, causes);
    bindings(at, spec, site, causes);
    together(at, spec, causes);
    let networks = by_name(&spec.networks);
    for (index, interface) in spec.domain.devices.interfaces.iter().enumerate() {
        let field = at.child("domain.devices.interfaces").index(index);
        self::interface(&field, interface, causes);
        if networks.get(interface.name.as_str()).is_some_and(|network| network.pod.is_some()) {
            ports(&field, interface, causes);
        }
        dhcp(at, &field, interface, causes);
    }
}

fn by_name(networks: &[Network]) -> HashMap<&str, &Network> {
    networks.iter().map(|network| (network.name.as_str(), network)).collect()
}

/// Whether an interface is connected to the pod network.
pub(super) fn has_pod_network(spec: &VirtualMachineInstanceSpec) -> bool {
    let named =
        |network: &Network| spec.domain.devices.interfaces.iter().any(|each| each.name == network.name);
    spec.networks.iter().any(|network| network.pod.is_some() && named(network))
}

fn sources(at: &Path, networks: &[Network], causes: &mut Causes) {
    let pods = networks.iter().filter(|network| network.pod.is_some()).count();
    let is_default =
        |network: &&Network| network.multus.as_ref().is_some_and(|multus| multus.default == Some(true));
    let defaults = networks.iter().filter(is_default).count();
    if pods > 1 {
        let field = at.child("interfaces");
        causes.duplicate(&field, format!("more than one interface is connected to a pod network in {field}"));
    }
    let field = at.child("networks");
    if defaults > 1 {
        causes.invalid(&field, "Multus CNI should only have one default network");
    }
    if pods > 0 && defaults > 0 {
        causes.invalid(&field, "Pod network cannot be defined when Multus default network is defined");
    }
    for (index, network) in networks.iter().enumerate() {
        let field = field.index(index);
        let set = [network.pod.is_some(), network.multus.is_some(), network.resource_claim.is_some()];
        match set.iter().filter(|&&set| set).count() {
            0 => causes.required(&field, "should have a network type"),
            1 => {}
            _ => causes.required(&field, "should have only one network type"),
        }
        if network.multus.as_ref().is_some_and(|multus| multus.network_name.is_empty()) {
            causes.required(&field, "CNI delegating plugin must have a networkName");
        }
    }
}

fn bindings(at: &Path, spec: &VirtualMachineInstanceSpec, site: &Site, causes: &mut Causes) {
    let networks = by_name(&spec.networks);
    for (index, interface) in spec.domain.devices.interfaces.iter().enumerate() {
        let field = at.child("domain.devices.interfaces").index(index);
        let network = networks.get(interface.name.as_str());
        let on_pod = network.is_some_and(|network| network.pod.is_some());
        state(&field, interface, network.copied(), causes);
        let methods = [
            interface.bridge.is_some(),
            interface.masquerade.is_some(),
            interface.sriov.is_some(),
            interface.passt_binding.is_some(),
        ];
        let methods = methods.iter().filter(|&&set| set).count();
        let gone = discontinued(&field, interface, causes);
        let name = &interface.name;
        if interface.binding.is_some() && methods > 0 {
            let message = format!(
                "logical {name} interface cannot have both binding plugin and interface binding method"
            );
            causes.invalid(field.child("binding"), message);
        } else if methods > 1 || (methods == 0 && interface.binding.is_none() && !gone) {
            let message =
                format!("logical {name} interface must have exactly one binding method or binding plugin");
            causes.invalid(&field, message);
        }
        if interface.masquerade.is_some() && !on_pod {
            causes.invalid(field.child("name"), "Masquerade interface only implemented with pod network");
        }
        let mac = interface.mac_address.as_deref().and_then(names::mac);
        if interface.masquerade.is_some() && mac.as_deref() == Some(&RESERVED_MAC) {
            let message =
                "The requested MAC address is reserved for the in-pod bridge. Please choose another one.";
            causes.invalid(field.child("macAddress"), message);
        }
        if interface.bridge.is_some() && on_pod && !site.permit_bridge_on_pod_network {
            let message = "Bridge on pod network configuration is not enabled under kubevirt-config";
            causes.invalid(field.child("name"), message);
        }
    }
}

/// Bindings that KubeVirt once had. Whether there is one.
fn discontinued(field: &Path, interface: &Interface, causes: &mut Causes) -> bool {
    let bindings = [
        ("slirp", interface.slirp.is_some(), "Slirp interface support has been discontinued since v1.3"),
        ("macvtap", interface.macvtap.is_some(), "Macvtap network binding has been discontinued since v1.3"),
        ("passt", interface.passt.is_some(), "Passt network binding has been discontinued since v1.3"),
    ];
    let mut any = false;
    for (name, set, message) in bindings {
        if set {
            causes.invalid(field.child(name), message);
            any = true;
        }
    }
    any
}

/// Only a bridge on a secondary network can be taken out.
fn state(field: &Path, interface: &Interface, network: Option<&Network>, causes: &mut Causes) {
    if interface.state != Some(InterfaceState::Absent) {
        return;
    }
    let field = field.child("state");
    let name = &interface.name;
    if interface.bridge.is_none() {
        let message = format!("\"{name}\" interface's state \"absent\" is supported only for bridge binding");
        causes.invalid(&field, message);
    }
    if network.is_some_and(|network| network.pod.is_some()) {
        let message = format!("\"{name}\" interface's state \"absent\" is not supported on default networks");
        causes.invalid(&field, message);
    }
}

/// Names are unique on both sides, and each has its counterpart.
fn together(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    let interfaces: HashSet<&str> =
        spec.domain.devices.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let networks = by_name(&spec.networks);
    let mut seen = HashSet::new();
    for (index, network) in spec.networks.iter().enumerate() {
        let field = at.child("networks").index(index).child("name");
        let name = &network.name;
        if !seen.insert(name) {
            let message =
                format!("Network with name \"{name}\" already exists, every network must have a unique name");
            causes.duplicate(&field, message);
        }
        if !interfaces.contains(name.as_str()) {
            causes.required(&field, format!("{field} '{name}' not found."));
        }
    }
    let mut seen = HashSet::new();
    for (index, interface) in spec.domain.devices.interfaces.iter().enumerate() {
        let field = at.child("domain.devices.interfaces").index(index).child("name");
        let name = &interface.name;
        if !seen.insert(name) {
            causes.duplicate(&field, "Only one interface can be connected to one specific network");
        }
        if !networks.contains_key(name.as_str()) {
            causes.invalid(&field, format!("{field} '{name}' not found."));
        }
    }
}

fn interface(field: &Path, interface: &Interface, causes: &mut Causes) {
    let name = field.child("name");
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if interface.name.is_empty() || !interface.name.bytes().all(plain) {
        let message = "Network interface name can only contain alphabetical characters, numbers, dashes (-) or underscores (_)";
        causes.invalid(&name, message);
    }
    if let Some(address) = interface.mac_address.as_deref().filter(|address| !address.is_empty()) {
        match names::mac(address) {
            None => {
                let message = format!("interface {name} has malformed MAC address ({address}).");
                causes.invalid(field.child("macAddress"), message);
            }
            Some(bytes) if bytes.len() > RESERVED_MAC.len() => {
                let message = format!("interface {name} has MAC address ({address}) that is too long.");
                causes.invalid(field.child("macAddress"), message);
            }
            Some(_) => {}
        }
    }
    if let Some(address) = interface.pci_address.as_deref().filter(|address| !address.is_empty())
        && !names::is_pci_address(address)
    {
        let message = format!("interface {name} has malformed PCI address ({address}).");
        causes.invalid(field.child("pciAddress"), message);
    }
}

fn ports(field: &Path, interface: &Interface, causes: &mut Causes) {
    let mut seen = HashSet::new();
    for (index, port) in interface.ports.iter().enumerate() {
        let field = field.child("ports").index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            if !seen.insert(name) {
                causes.duplicate(field.child("name"), format!("Duplicate name of the port: {name}"));
            }
            if !names::is_port_name(name) {
                causes.invalid(field.child("name"), format!("Invalid name of the port: {name}"));
            }
        }
        if port.port == 0 {
            causes.required(&field, "Port field is mandatory.");
        }
    }
}

fn dhcp(at: &Path, field: &Path, interface: &Interface, causes: &mut Causes) {
    let Some(options) = &interface.dhcp_options else { return };
    let mut seen = HashSet::new();
    if options.private_options.iter().any(|option| !seen.insert(option.option)) {
        causes.invalid(at, "Found Duplicates: you have provided duplicate DHCPPrivateOptions");
    }
    if options.private_options.iter().any(|option| !PRIVATE_OPTIONS.contains(&option.option)) {
        causes.invalid(at, "provided DHCPPrivateOptions are out of range, must be in range 224 to 254");
    }
    for (index, server) in options.ntp_servers.iter().enumerate() {
        if server.parse::<std::net::Ipv4Addr>().is_err() {
            let field = field.child("dhcpOptions.ntpServers").index(index);
            causes.invalid(&field, "NTP servers must be a list of valid IPv4 addresses.");
        }
    }
}
