//! What becomes part of the pod: names, DNS, probes, and how a machine starts.

use k8s_openapi::api::core::v1::PodDNSConfig;

use super::cause::{Causes, Path};
use super::{names, network};
use crate::probes::Probe;
use crate::vmi::{DnsPolicy, StartStrategy, VirtualMachineInstanceSpec};

/// Limits of a pod's `dnsConfig` (Kubernetes `validation.go`).
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 6;
const MAX_SEARCH_CHARACTERS: usize = 256;

pub(super) fn names(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(name) = given(&spec.hostname) {
        let wrong = names::label(&name);
        if !wrong.is_empty() {
            let field = at.child("hostname");
            let message =
                format!("{field} does not conform to the kubernetes DNS_LABEL rules : {}", wrong.join(", "));
            causes.invalid(&field, message);
        }
    }
    if let Some(name) = given(&spec.subdomain) {
        let wrong = names::subdomain(&name);
        if !wrong.is_empty() {
            let field = at.child("subdomain");
            let message = format!(
                "{field} does not conform to the kubernetes DNS_SUBDOMAIN rules : {}",
                wrong.join(", ")
            );
            causes.invalid(&field, message);
        }
    }
}

pub(super) fn start(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    if spec.start_strategy == Some(StartStrategy::Paused) && spec.liveness_probe.is_some() {
        let field = at.child("startStrategy");
        let probe = at.child("livenessProbe");
        let message = format!(
            "either {field} or {probe} should be provided.Pausing VMI with LivenessProbe is not supported"
        );
        causes.invalid(&field, message);
    }
}

pub(super) fn probes(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    let probes = [("readinessProbe", &spec.readiness_probe), ("livenessProbe", &spec.liveness_probe)];
    for (name, probe) in probes {
        if let Some(probe) = probe {
            self::probe(&at.child(name), probe, network::has_pod_network(spec), causes);
        }
    }
}

fn probe(field: &Path, probe: &Probe, has_pod_network: bool, causes: &mut Causes) {
    let handlers = [
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.exec.is_some(),
        probe.guest_agent_ping.is_some(),
    ];
    match handlers.iter().filter(|&&set| set).count() {
        0 => causes.required(
            field,
            format!(
                "either {}, {} or {} must be set if a {field} is specified",
                field.child("tcpSocket"),
                field.child("exec"),
                field.child("httpGet")
            ),
        ),
        1 => {}
        _ => causes.invalid(field, format!("{field} must have exactly one probe type set")),
    }
    let over_network = [("httpGet", probe.http_get.is_some()), ("tcpSocket", probe.tcp_socket.is_some())];
    for (name, set) in over_network {
        if set && !has_pod_network {
            let field = field.child(name);
            causes.invalid(&field, format!("{field} is only allowed if the Pod Network is attached"));
        }
    }
}

pub(super) fn dns(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    if spec.dns_policy == Some(DnsPolicy::None) {
        match &spec.dns_config {
            None => {
                let message = "must provide `dnsConfig` when `dnsPolicy` is None";
                causes.required(at.child("dnsConfig"), message);
                return;
            }
            Some(config) if config.nameservers.as_ref().is_none_or(Vec::is_empty) => {
                let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                causes.required("nameservers", message);
                return;
            }
            Some(_) => {}
        }
    }
    if let Some(config) = &spec.dns_config {
        dns_config(config, causes);
    }
}

/// KubeVirt names only the last part of these fields.
fn dns_config(config: &PodDNSConfig, causes: &mut Causes) {
    let servers = config.nameservers.as_deref().unwrap_or_default();
    if servers.len() > MAX_NAMESERVERS {
        let message =
            format!("must not have more than {MAX_NAMESERVERS} nameservers: [{}]", servers.join(" "));
        causes.invalid("nameservers", message);
    }
    for server in servers.iter().filter(|server| server.parse::<std::net::IpAddr>().is_err()) {
        causes.invalid("nameservers", format!("must be valid IP address: {server}"));
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > MAX_SEARCHES {
        causes.invalid("searchDomains", format!("must not have more than {MAX_SEARCHES} search paths"));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let message = format!(
            "must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        );
        causes.invalid("searchDomains", message);
    }
    for search in searches {
        for message in names::subdomain(search) {
            causes.invalid("searchDomains", message);
        }
    }
    for option in config.options.iter().flatten() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            causes.invalid("options", "Option.Name must not be empty");
        }
    }
}
