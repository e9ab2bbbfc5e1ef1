//! Rules of memory, processors and what else makes a machine.

use orlop_crd::admission::CauseType::{Invalid, NotSupported, Required};
use serde_json::{Value, json};

use super::{Rule, rule};

pub fn memory() -> Vec<Rule> {
    let requests = "spec.domain.resources.requests.memory";
    vec![
        rule(
            [("domain.memory", Value::Null)],
            [(
                Required,
                "",
                "no memory requested, at least one of 'spec.domain.memory.guest', 'spec.domain.memory.hugepages.size' or 'spec.domain.resources.requests.memory' must be set",
            )],
        ),
        rule(
            [("domain.resources.requests.memory", json!("-1Gi"))],
            [(
                Invalid,
                requests,
                "spec.domain.resources.requests.memory '-1Gi': must be greater than or equal to 0.",
            )],
        ),
        rule(
            [("domain.resources.requests.memory", json!("500k"))],
            [(
                Invalid,
                requests,
                "spec.domain.resources.requests.memory '500k': must be greater than or equal to 1M.",
            )],
        ),
        rule(
            [("domain.resources.limits.memory", json!("512Mi"))],
            [
                (
                    Invalid,
                    requests,
                    "spec.domain.resources.requests.memory '1Gi' is greater than spec.domain.resources.limits.memory '512Mi'",
                ),
                (
                    Invalid,
                    "spec.domain.memory.guest",
                    "spec.domain.memory.guest '1Gi' must be equal to or less than the memory limit spec.domain.resources.limits.memory '512Mi'",
                ),
            ],
        ),
        rule(
            [("domain.memory", json!({ "guest": "3Mi", "hugepages": { "pageSize": "2Mi" } }))],
            [
                (
                    Invalid,
                    requests,
                    "spec.domain.resources.requests.memory '3Mi' is not a multiple of the page size spec.domain.hugepages.size '2Mi'",
                ),
                (
                    Invalid,
                    "spec.domain.memory.guest",
                    "spec.domain.memory.guest '3Mi' is not a multiple of the page size spec.domain.hugepages.size '2Mi'",
                ),
            ],
        ),
        rule(
            [
                ("domain.memory", json!({ "guest": "1Gi", "hugepages": { "pageSize": "1Gi" } })),
                ("domain.resources.requests.memory", json!("512Mi")),
            ],
            [(
                Invalid,
                requests,
                "spec.domain.resources.requests.memory '512Mi' must be equal to or larger than page size spec.domain.hugepages.size '1Gi'",
            )],
        ),
        rule(
            [("domain.memory.hugepages", json!({ "pageSize": "x" }))],
            [(
                Invalid,
                "spec.domain.hugepages.size",
                "spec.domain.hugepages.size 'x': quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            )],
        ),
    ]
}

pub fn processors() -> Vec<Rule> {
    let numa = "spec.domain.cpu.numa.guestMappingPassthrough";
    let dedicated = "spec.domain.cpu.dedicatedCpuPlacement";
    vec![
        rule(
            [("domain.resources.requests.cpu", json!("2")), ("domain.resources.limits.cpu", json!("1"))],
            [(
                Invalid,
                "spec.domain.resources.requests.cpu",
                "spec.domain.resources.requests.cpu '2' is greater than spec.domain.resources.limits.cpu '1'",
            )],
        ),
        rule(
            [("domain.resources.requests.cpu", json!("-1"))],
            [(
                Invalid,
                "spec.domain.resources.requests.cpu",
                "spec.domain.resources.requests.cpu '-1': must be greater than or equal to 0.",
            )],
        ),
        rule(
            [
                ("domain.cpu", json!({ "dedicatedCpuPlacement": true })),
                ("domain.resources.requests.cpu", json!("1500m")),
            ],
            [(
                Invalid,
                "spec.domain.resources.requests.cpu",
                "provided resources CPU requests must be an interger",
            )],
        ),
        rule(
            [
                ("domain.cpu", json!({ "dedicatedCpuPlacement": true, "cores": 2 })),
                ("domain.resources.requests.cpu", json!("4")),
            ],
            [(
                Invalid,
                dedicated,
                "spec.domain.resources.requests.cpu or spec.domain.resources.limits.cpu must not be provided at the same time with spec.domain.cpu.cores when DedicatedCPUPlacement is true ",
            )],
        ),
        rule(
            [("domain.cpu", json!({ "dedicatedCpuPlacement": true, "threads": 3 }))],
            [(
                Invalid,
                dedicated,
                "Not more than two threads must be provided at spec.domain.cpu.threads (got 3) when DedicatedCPUPlacement is true",
            )],
        ),
        rule(
            [("domain.cpu", json!({ "isolateEmulatorThread": true }))],
            [(
                Invalid,
                "spec.domain.cpu.isolateEmulatorThread",
                "IsolateEmulatorThread should be only set in combination with DedicatedCPUPlacement",
            )],
        ),
        rule(
            [("domain.cpu", json!({ "numa": { "guestMappingPassthrough": {} } }))],
            [
                (
                    Invalid,
                    numa,
                    "spec.domain.cpu.dedicatedCpuPlacement must be set to true when NUMA topology strategy is set in spec.domain.cpu.numa.guestMappingPassthrough",
                ),
                (
                    Invalid,
                    numa,
                    "spec.domain.memory.hugepages must be requested when NUMA topology strategy is set in spec.domain.cpu.numa.guestMappingPassthrough",
                ),
            ],
        ),
        rule(
            [("domain.cpu", json!({ "realtime": {} }))],
            [
                (
                    Required,
                    dedicated,
                    "spec.domain.cpu.dedicatedCpuPlacement must be set to true when spec.domain.cpu.realtime is used",
                ),
                (
                    Required,
                    numa,
                    "spec.domain.cpu.numa.guestMappingPassthrough must be defined when spec.domain.cpu.realtime is used",
                ),
            ],
        ),
        rule(
            [("domain.cpu", json!({ "sockets": 4, "maxSockets": 2 }))],
            [(
                Invalid,
                "spec.domain.cpu.sockets",
                "Number of sockets in CPU topology is greater than the maximum sockets allowed",
            )],
        ),
        rule(
            [("domain.cpu", json!({ "features": [{ "name": "vmx", "policy": "x" }] }))],
            [(
                NotSupported,
                "spec.domain.cpu.features[0].policy",
                "CPU feature vmx uses policy x that is not supported.",
            )],
        ),
    ]
}

pub fn machine_rules() -> Vec<Rule> {
    vec![
        rule(
            [("domain.machine", json!({ "type": "pc-i440fx" }))],
            [(
                Invalid,
                "spec.domain.machine.type",
                "spec.domain.machine.type is not supported: pc-i440fx (allowed values: [q35* pc-q35*])",
            )],
        ),
        rule(
            [("domain.firmware", json!({ "serial": "a b" }))],
            [(
                Invalid,
                "spec.domain.firmware.serial",
                "spec.domain.firmware.serial must be made up of the following characters [A-Za-z0-9_.+-], if specified",
            )],
        ),
        rule(
            [("domain.firmware", json!({ "bootloader": { "efi": { "secureBoot": false }, "bios": {} } }))],
            [(
                Invalid,
                "spec.domain.firmware.bootloader",
                "spec.domain.firmware.bootloader has both EFI and BIOS configured, but they are mutually exclusive.",
            )],
        ),
        rule(
            [
                ("domain.firmware", json!({ "bootloader": { "efi": {} } })),
                ("domain.features", json!({ "smm": { "enabled": false } })),
            ],
            [(
                Invalid,
                "spec.domain",
                "spec.domain has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled.",
            )],
        ),
        rule(
            [("domain.firmware", json!({ "kernelBoot": { "kernelArgs": "x" } }))],
            [(
                Invalid,
                "spec.domain.firmware.kernelBoot.kernelArgs",
                "kernel arguments cannot be provided without an external kernel",
            )],
        ),
        rule(
            [("domain.firmware", json!({ "kernelBoot": { "container": { "image": "" } } }))],
            [
                (
                    Required,
                    "spec.domain.firmware.kernelBoot.container.image",
                    "spec.domain.firmware.kernelBoot.container must be defined with an image",
                ),
                (
                    Required,
                    "spec.domain.firmware.kernelBoot.container",
                    "spec.domain.firmware.kernelBoot.container must be defined with at least one of the following: kernelPath, initrdPath",
                ),
            ],
        ),
        rule(
            [(
                "domain.firmware",
                json!({ "kernelBoot": { "container": { "image": "x", "kernelPath": "a" } } }),
            )],
            [(
                Invalid,
                "spec.domain.firmware.kernelBoot.container.kernelPath",
                "spec.domain.firmware.kernelBoot.container.kernelPath must be an absolute path to a file without relative components",
            )],
        ),
        rule(
            [("domain.features", json!({ "hyperv": { "ipi": {}, "vpindex": { "enabled": false } } }))],
            [(
                Invalid,
                "spec.domain.features.hyperv.ipi",
                "'spec.domain.features.hyperv.ipi' requires 'spec.domain.features.hyperv.vpindex', which was disabled.",
            )],
        ),
        rule(
            [("domain.features", json!({ "hyperv": { "relaxed": {} }, "hypervPassthrough": {} }))],
            [(
                Invalid,
                "spec",
                "Cannot explicitly set hyperV features if HypervPassthrough is being used. Please use either HyperV or HypervPassthrough.",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.state", json!("x"))],
            [(
                Invalid,
                "spec.domain.devices.interfaces[0].state",
                "logical default interface state value is unsupported: x",
            )],
        ),
        rule(
            [("domain.ioThreadsPolicy", json!("x"))],
            [(Invalid, "spec.domain.ioThreadsPolicy", "Invalid IOThreadsPolicy (x)")],
        ),
        rule(
            [("domain.devices.inputs", json!([{ "name": "i", "type": "tablet", "bus": "x" }]))],
            [(Invalid, "spec.domain.devices.inputs[0].bus", "Input device can have only virtio or usb bus.")],
        ),
        rule(
            [("domain.devices.inputs", json!([{ "name": "i", "type": "mouse" }]))],
            [(Invalid, "spec.domain.devices.inputs[0].type", "Input device can have only tablet type.")],
        ),
        rule(
            [("domain.devices.sound", json!({ "name": "s", "model": "x" }))],
            [(Invalid, "spec.Sound", "Sound device type is not supported. Options: 'ich9' or 'ac97'")],
        ),
        rule(
            [("domain.devices.sound", json!({ "name": "" }))],
            [(Invalid, "spec.Sound", "Sound device requires a name field.")],
        ),
        rule(
            [("domain.devices.autoattachVSOCK", json!(true))],
            [(
                Invalid,
                "spec.domain.devices.autoattachVSOCK",
                "VSOCK feature gate is not enabled in kubevirt-config",
            )],
        ),
        rule(
            [("domain.devices.hostDevices", json!([{ "name": "h", "deviceName": "a/b" }]))],
            [(Invalid, "spec.HostDevices", "Host Devices feature gate is not enabled in kubevirt-config")],
        ),
        rule(
            [("domain.devices.downwardMetrics", json!({}))],
            [(
                Invalid,
                "spec.domain.devices.downwardMetrics",
                "downwardMetrics virtio serial is not allowed: DownwardMetrics feature gate is not enabled",
            )],
        ),
    ]
}

/// What the platform adds: a field that it cannot honour, by path.
pub fn platform() -> Vec<Rule> {
    vec![
        rule(
            [("domain.devices.sound", json!({ "name": "s" }))],
            [(
                NotSupported,
                "spec.domain.devices.sound",
                "spec.domain.devices.sound is not supported: there is no sound card",
            )],
        ),
        rule(
            [("architecture", json!("arm64"))],
            [(
                NotSupported,
                "spec.architecture",
                "spec.architecture is not supported: guests are x86-64 only",
            )],
        ),
        rule(
            [("domain.devices.interfaces.0.model", json!("e1000"))],
            [(
                NotSupported,
                "spec.domain.devices.interfaces[0].model",
                "spec.domain.devices.interfaces[0].model is not supported: only virtio network adapters are supported",
            )],
        ),
        rule(
            [("domain.devices.tpm", json!({}))],
            [(
                NotSupported,
                "spec.domain.devices.tpm",
                "spec.domain.devices.tpm is not supported: there is no trusted platform module yet",
            )],
        ),
        rule(
            [("domain.devices.disks.0.disk.bus", json!("usb"))],
            [(
                NotSupported,
                "spec.domain.devices.disks[0].disk.bus",
                "spec.domain.devices.disks[0].disk.bus is not supported: there is no USB controller",
            )],
        ),
        rule(
            [("domain.cpu", json!({ "dedicatedCpuPlacement": true }))],
            [(
                NotSupported,
                "spec.domain.cpu.dedicatedCpuPlacement",
                "spec.domain.cpu.dedicatedCpuPlacement is not supported: processors are not pinned yet",
            )],
        ),
        rule(
            [("domain.launchSecurity", json!({ "snp": {} }))],
            [(
                NotSupported,
                "spec.domain.launchSecurity",
                "spec.domain.launchSecurity is not supported: encrypted guests are not supported",
            )],
        ),
    ]
}
