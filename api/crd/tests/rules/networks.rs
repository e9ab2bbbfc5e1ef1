//! Rules of networks and interfaces.

use orlop_crd::admission::CauseType::{Duplicate, Invalid, NotSupported, Required};
use serde_json::{Value, json};

use super::{Rule, rule};

pub fn networks() -> Vec<Rule> {
    let interface = "domain.devices.interfaces.0";
    let name = "spec.domain.devices.interfaces[0].name";
    vec![
        rule(
            [(interface, json!({ "name": "default" }))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0]",
                "logical default interface must have exactly one binding method or binding plugin",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.binding", json!({ "name": "x" }))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].binding",
                "logical default interface cannot have both binding plugin and interface binding method",
            )],
        ),
        rule(
            [("domain.devices.interfaces.1", json!({ "name": "x", "bridge": {} }))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[1].name",
                "spec.domain.devices.interfaces[1].name 'x' not found.",
            )],
        ),
        rule(
            [("networks.1", json!({ "name": "x", "multus": { "networkName": "n" } }))],
            [(Required, "spec.networks[1].name", "spec.networks[1].name 'x' not found.")],
        ),
        rule(
            [("domain.devices.interfaces.1", json!({ "name": "default", "masquerade": {} }))],
            [(
                Duplicate,
                "spec.domain.devices.interfaces[1].name",
                "Only one interface can be connected to one specific network",
            )],
        ),
        rule(
            [
                ("networks.1", json!({ "name": "b", "pod": {} })),
                ("domain.devices.interfaces.1", json!({ "name": "b", "masquerade": {} })),
            ],
            [(
                Duplicate,
                "spec.interfaces",
                "more than one interface is connected to a pod network in spec.interfaces",
            )],
        ),
        rule(
            [("networks.0.pod", Value::Null)],
            [
                (Required, "spec.networks[0]", "should have a network type"),
                (Invalid, name, "Masquerade interface only implemented with pod network"),
            ],
        ),
        rule(
            [("networks.0", json!({ "name": "default", "multus": { "networkName": "n" } }))],
            [(Invalid, name, "Masquerade interface only implemented with pod network")],
        ),
        rule(
            [(interface, json!({ "name": "default", "bridge": {} }))],
            [(Invalid, name, "Bridge on pod network configuration is not enabled under kubevirt-config")],
        ),
        rule(
            [(interface, json!({ "name": "default", "slirp": {} }))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].slirp",
                "Slirp interface support has been discontinued since v1.3",
            )],
        ),
        rule(
            [(interface, json!({ "name": "default", "macvtap": {} }))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].macvtap",
                "Macvtap network binding has been discontinued since v1.3",
            )],
        ),
        rule(
            [(interface, json!({ "name": "default", "passt": {} }))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].passt",
                "Passt network binding has been discontinued since v1.3",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.model", json!("x"))],
            [(
                NotSupported,
                "spec.domain.devices.interfaces[0].model",
                "interface spec.domain.devices.interfaces[0].name uses model x that is not supported.",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.macAddress", json!("x"))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].macAddress",
                "interface spec.domain.devices.interfaces[0].name has malformed MAC address (x).",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.macAddress", json!("02:00:00:00:00:00:00:01"))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].macAddress",
                "interface spec.domain.devices.interfaces[0].name has MAC address (02:00:00:00:00:00:00:01) that is too long.",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.macAddress", json!("02:00:00:00:00:00"))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].macAddress",
                "The requested MAC address is reserved for the in-pod bridge. Please choose another one.",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.pciAddress", json!("1"))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].pciAddress",
                "interface spec.domain.devices.interfaces[0].name has malformed PCI address (1).",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.ports", json!([{ "port": 0 }]))],
            [(Required, "spec.domain.devices.interfaces[0].ports[0]", "Port field is mandatory.")],
        ),
        rule(
            [("domain.devices.interfaces.0.ports", json!([{ "port": 70000 }]))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].ports[0]",
                "Port field must be in range 0 < x < 65536.",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.ports", json!([{ "port": 1, "protocol": "x" }]))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].ports[0].protocol",
                "Unknown protocol, only TCP or UDP allowed",
            )],
        ),
        rule(
            [(
                "domain.devices.interfaces.0.ports",
                json!([{ "port": 1, "name": "a" }, { "port": 2, "name": "a" }]),
            )],
            [(Duplicate, "spec.domain.devices.interfaces[0].ports[1].name", "Duplicate name of the port: a")],
        ),
        rule(
            [("domain.devices.interfaces.0.ports", json!([{ "port": 1, "name": "-" }]))],
            [(Invalid, "spec.domain.devices.interfaces[0].ports[0].name", "Invalid name of the port: -")],
        ),
        rule(
            [(
                "domain.devices.interfaces.0.dhcpOptions",
                json!({ "privateOptions": [{ "option": 223, "value": "" }] }),
            )],
            [(Invalid, "spec", "provided DHCPPrivateOptions are out of range, must be in range 224 to 254")],
        ),
        rule(
            [(
                "domain.devices.interfaces.0.dhcpOptions",
                json!({ "privateOptions": [{ "option": 240, "value": "" }, { "option": 240, "value": "" }] }),
            )],
            [(Invalid, "spec", "Found Duplicates: you have provided duplicate DHCPPrivateOptions")],
        ),
        rule(
            [("domain.devices.interfaces.0.dhcpOptions", json!({ "ntpServers": ["::1"] }))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].dhcpOptions.ntpServers[0]",
                "NTP servers must be a list of valid IPv4 addresses.",
            )],
        ),
    ]
}
