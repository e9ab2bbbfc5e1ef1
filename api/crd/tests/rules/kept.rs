//! Changes that come near a rule and keep it.

use serde_json::json;

use super::Changes;

/// Changes that come near a rule and keep it.
pub fn narrowly() -> Vec<Changes> {
    vec![
        vec![
            ("domain.devices.disks.0.bootOrder", json!(1)),
            ("domain.devices.interfaces.0.bootOrder", json!(2)),
        ],
        vec![("domain.devices.disks.0.serial", json!("a".repeat(256)))],
        vec![("domain.devices.disks.0.cache", json!(""))],
        vec![("volumes.1", json!({ "name": "seed", "cloudInitNoCloud": { "userData": "x".repeat(2048) } }))],
        vec![("volumes.1", json!({ "name": "seed", "cloudInitConfigDrive": { "userDataBase64": "YQ==" } }))],
        vec![("volumes.1", json!({ "name": "auto", "emptyDisk": { "capacity": "1Gi" } }))],
        vec![(
            "domain.devices.interfaces.0.ports",
            json!([{ "port": 65535, "name": "last", "protocol": "UDP" }]),
        )],
        vec![("domain.devices.interfaces.0.macAddress", json!("02:00:00:00:00:01"))],
        vec![("domain.memory", json!({ "hugepages": { "pageSize": "2Mi" }, "guest": "4Mi" }))],
        vec![("domain.resources", json!({ "limits": { "memory": "1Gi" } }))],
        vec![("domain.cpu", json!({ "sockets": 2, "maxSockets": 2 }))],
        vec![("domain.firmware", json!({ "bootloader": { "efi": { "secureBoot": false } } }))],
        vec![("domain.machine", json!({ "type": "pc-q35-rhel9.6.0" }))],
        vec![("hostname", json!("a-1")), ("subdomain", json!("a.b"))],
        vec![("dnsPolicy", json!("None")), ("dnsConfig", json!({ "nameservers": ["::1"] }))],
        vec![("readinessProbe", json!({ "tcpSocket": { "port": 22 } }))],
        vec![
            ("domain.devices.autoattachVSOCK", json!(false)),
            ("domain.devices.interfaces.0.state", json!("down")),
        ],
    ]
}
