//! Where everything is. A cluster has a network namespace of its own, so two clusters have the same addresses and never meet.

use std::net::{IpAddr, Ipv4Addr};

/// The control plane's address on the bridge.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where the API server listens.
pub(crate) const SERVER_PORT: u16 = 6443;
/// The bridge's network.
pub(crate) const PREFIX: u8 = 24;
/// Addresses of Services.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The first of them is the API server's.
pub(crate) const KUBERNETES_SERVICE: &str = "10.96.0.1";
/// The address of the cluster's DNS.
pub(crate) const DNS_SERVICE: &str = "10.96.0.10";
/// Addresses of pods, a /24 for every node.
pub(crate) const PODS: &str = "10.244.0.0/16";
/// The cluster's domain.
pub(crate) const DOMAIN: &str = "cluster.local";
/// The greatest number of nodes: more do not fit on one machine.
pub(crate) const NODES_MAX: u8 = 9;

/// The address of node `index`, which counts from 1.
pub(crate) fn node(index: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, 10 + index).into()
}

/// The addresses of the pods on node `index`.
pub(crate) fn pods_of(index: u8) -> String {
    format!("10.244.{index}.0/24")
}

/// The tap device of node `index`.
pub(crate) fn tap(index: u8) -> String {
    format!("node{index}")
}

/// The network card of node `index`.
pub(crate) fn mac(index: u8) -> String {
    format!("52:54:00:77:00:{index:02x}")
}

/// What the API server's certificate is for.
pub(crate) fn server_names() -> Vec<String> {
    let mut names: Vec<String> =
        ["127.0.0.1", KUBERNETES_SERVICE, "localhost", "kubernetes", "kubernetes.default"]
            .map(str::to_owned)
            .into();
    names.push(SERVER.to_string());
    names.push("kubernetes.default.svc".to_owned());
    names.push(format!("kubernetes.default.svc.{DOMAIN}"));
    names
}
