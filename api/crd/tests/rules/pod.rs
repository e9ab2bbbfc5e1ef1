//! Rules of what becomes part of the pod.

use orlop_crd::admission::CauseType::{Invalid, NotSupported, Required};
use serde_json::json;

use super::{Rule, rule};

pub fn pod() -> Vec<Rule> {
    let secret = json!({ "secret": { "secretName": "s" } });
    vec![
        rule(
            [("hostname", json!("A"))],
            [(
                Invalid,
                "spec.hostname",
                "spec.hostname does not conform to the kubernetes DNS_LABEL rules : a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            )],
        ),
        rule(
            [("subdomain", json!("a..b"))],
            [(
                Invalid,
                "spec.subdomain",
                "spec.subdomain does not conform to the kubernetes DNS_SUBDOMAIN rules : a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            )],
        ),
        rule(
            [("dnsPolicy", json!("None"))],
            [(Required, "spec.dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None")],
        ),
        rule(
            [("dnsPolicy", json!("None")), ("dnsConfig", json!({ "searches": ["a"] }))],
            [(Required, "nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")],
        ),
        rule(
            [("dnsPolicy", json!("x"))],
            [(
                NotSupported,
                "spec.dnsPolicy",
                "DNSPolicy: x is not supported, valid values: [ClusterFirstWithHostNet ClusterFirst Default None ]",
            )],
        ),
        rule(
            [("dnsConfig", json!({ "nameservers": ["x"] }))],
            [(Invalid, "nameservers", "must be valid IP address: x")],
        ),
        rule(
            [("evictionStrategy", json!("x"))],
            [(
                Invalid,
                "spec.evictionStrategy",
                "spec.evictionStrategy is set with an unrecognized option: x",
            )],
        ),
        rule(
            [("startStrategy", json!("x"))],
            [(Invalid, "spec.startStrategy", "spec.startStrategy is set with an unrecognized option: x")],
        ),
        rule(
            [("startStrategy", json!("Paused")), ("livenessProbe", json!({ "guestAgentPing": {} }))],
            [(
                Invalid,
                "spec.startStrategy",
                "either spec.startStrategy or spec.livenessProbe should be provided.Pausing VMI with LivenessProbe is not supported",
            )],
        ),
        rule(
            [("livenessProbe", json!({}))],
            [(
                Required,
                "spec.livenessProbe",
                "either spec.livenessProbe.tcpSocket, spec.livenessProbe.exec or spec.livenessProbe.httpGet must be set if a spec.livenessProbe is specified",
            )],
        ),
        rule(
            [("readinessProbe", json!({ "guestAgentPing": {}, "exec": { "command": ["true"] } }))],
            [(Invalid, "spec.readinessProbe", "spec.readinessProbe must have exactly one probe type set")],
        ),
        rule(
            [
                ("readinessProbe", json!({ "tcpSocket": { "port": 22 } })),
                ("networks.0", json!({ "name": "default", "multus": { "networkName": "n" } })),
                ("domain.devices.interfaces.0", json!({ "name": "default", "bridge": {} })),
            ],
            [(
                Invalid,
                "spec.readinessProbe.tcpSocket",
                "spec.readinessProbe.tcpSocket is only allowed if the Pod Network is attached",
            )],
        ),
        rule(
            [("accessCredentials", json!([{}]))],
            [(
                Invalid,
                "spec.accessCredentials[0]",
                "spec.accessCredentials[0] must have exactly one access credential type set",
            )],
        ),
        rule(
            [(
                "accessCredentials",
                json!([{ "sshPublicKey": { "source": secret, "propagationMethod": { "noCloud": {} } } }]),
            )],
            [(
                Invalid,
                "spec.accessCredentials[0].sshPublicKey.propagationMethod",
                "spec.accessCredentials[0] requires a noCloud volume to exist when the noCloud propagationMethod is in use.",
            )],
        ),
        rule(
            [(
                "accessCredentials",
                json!([{
                    "sshPublicKey": { "source": secret, "propagationMethod": { "qemuGuestAgent": { "users": [] } } },
                }]),
            )],
            [(
                Invalid,
                "spec.accessCredentials[0].sshPublicKey.propagationMethod.qemuGuestAgent.users",
                "spec.accessCredentials[0] requires at least one user to be present in the users list",
            )],
        ),
        rule(
            [("accessCredentials", json!([{ "userPassword": { "source": {}, "propagationMethod": {} } }]))],
            [
                (
                    Invalid,
                    "spec.accessCredentials[0].userPassword.source",
                    "spec.accessCredentials[0] must have exactly one source set",
                ),
                (
                    Invalid,
                    "spec.accessCredentials[0].userPassword.propagationMethod",
                    "spec.accessCredentials[0] must have exactly one propagationMethod set",
                ),
            ],
        ),
    ]
}
