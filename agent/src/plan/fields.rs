//! What becomes of each field of a manifest on this machine: one table, and a walk over what the manifest sets.

use serde_json::Value;

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Carried out.
    Honoured,
    /// Accepted: it has no effect on the guest of a run without a cluster. Listed in the room's README.
    NoEffect,
    /// Refused, for this reason.
    Refused(&'static str),
}

use Verdict::{Honoured, NoEffect, Refused};

const CLUSTER: &str = "needs a cluster";
const FIRMWARE: &str = "this firmware option is not carried out yet";
const DEVICE: &str = "there is no such device yet";
const VOLUME: &str = "this kind of volume needs a cluster";
const CLAIM: &str = "claims are a cluster's: without one, say containerDisk (read by many, changes lost at the end), emptyDisk \
                     or hostDisk";
const AGENT: &str = "travels by the guest agent, which is not spoken to yet: use cloud-init";
const BINDING: &str = "only masquerade and bridge bindings are carried out without a cluster so far";

/// Fields of `VirtualMachineInstanceSpec`, `[]` for every element of a list. The longest entry that is the field or
/// one of its parents decides; what no entry covers is refused.
pub const TABLE: &[(&str, Verdict)] = &[
    ("accessCredentials[].sshPublicKey.propagationMethod.configDrive", Honoured),
    ("accessCredentials[].sshPublicKey.propagationMethod.noCloud", Honoured),
    ("accessCredentials[].sshPublicKey.propagationMethod.qemuGuestAgent", Refused(AGENT)),
    ("accessCredentials[].sshPublicKey.source.secret.secretName", Honoured),
    ("accessCredentials[].userPassword", Refused(AGENT)),
    ("accessCredentials", Refused("only SSH public keys by noCloud and configDrive are carried out so far")),
    ("affinity", NoEffect),
    ("architecture", Honoured),
    ("dnsConfig", Refused(CLUSTER)),
    ("dnsPolicy", Refused(CLUSTER)),
    ("domain.chassis", Honoured),
    ("domain.clock.utc", Honoured),
    ("domain.clock.timer", NoEffect),
    ("domain.clock.timezone", Refused("only clock.utc is carried out so far")),
    ("domain.cpu.cores", Honoured),
    ("domain.cpu.sockets", Honoured),
    ("domain.cpu.threads", Honoured),
    ("domain.cpu.maxSockets", NoEffect),
    ("domain.cpu.model", Honoured),
    ("domain.cpu", Refused("processors can be counted, but not pinned or given features yet")),
    ("domain.devices.autoattachGraphicsDevice", NoEffect),
    ("domain.devices.autoattachInputDevice", NoEffect),
    ("domain.devices.autoattachMemBalloon", Honoured),
    ("domain.devices.autoattachPodInterface", Honoured),
    ("domain.devices.autoattachSerialConsole", Honoured),
    ("domain.devices.blockMultiQueue", Honoured),
    ("domain.devices.disableHotplug", NoEffect),
    ("domain.devices.disks[].name", Honoured),
    ("domain.devices.disks[].bootOrder", Honoured),
    ("domain.devices.disks[].cache", Honoured),
    ("domain.devices.disks[].blockSize", Honoured),
    ("domain.devices.disks[].dedicatedIOThread", Honoured),
    ("domain.devices.disks[].disk", Honoured),
    ("domain.devices.disks[].disk.pciAddress", Refused("devices take the next free place")),
    ("domain.devices.disks[].errorPolicy", Honoured),
    ("domain.devices.disks[].io", Honoured),
    ("domain.devices.disks[].serial", Honoured),
    ("domain.devices.disks[].shareable", Honoured),
    ("domain.devices.disks[].tag", NoEffect),
    ("domain.devices.disks[].cdrom", Honoured),
    ("domain.devices.disks[].lun", Honoured),
    (
        "domain.devices.disks[].lun.reservation",
        Refused("SCSI commands are not passed through to the host's device"),
    ),
    ("domain.devices.disks", Refused("this disk option is not carried out yet")),
    ("domain.devices.interfaces[].bootOrder", Honoured),
    ("domain.devices.interfaces[].name", Honoured),
    ("domain.devices.interfaces[].masquerade", Honoured),
    ("domain.devices.interfaces[].macAddress", Honoured),
    ("domain.devices.interfaces[].model", Honoured),
    ("domain.devices.interfaces[].ports", Honoured),
    ("domain.devices.interfaces[].portRanges", Honoured),
    ("domain.devices.interfaces[].dhcpOptions", Honoured),
    ("domain.devices.interfaces[].state", Honoured),
    ("domain.devices.interfaces[].tag", NoEffect),
    ("domain.devices.interfaces[].bridge", Honoured),
    ("domain.devices.interfaces[].sriov", Refused(BINDING)),
    ("domain.devices.interfaces[].binding", Refused(BINDING)),
    ("domain.devices.interfaces", Refused("this interface option is not carried out yet")),
    ("domain.devices.logSerialConsole", NoEffect),
    ("domain.devices.networkInterfaceMultiqueue", Honoured),
    ("domain.devices.panicDevices", Honoured),
    ("domain.devices.rng", Honoured),
    ("domain.devices.useVirtioTransitional", Refused("devices speak virtio 1 only")),
    ("domain.devices", Refused(DEVICE)),
    ("domain.features.acpi", Honoured),
    ("domain.features.apic", NoEffect),
    ("domain.features.pvspinlock", NoEffect),
    ("domain.features.smm", Honoured),
    ("domain.features", Refused("this processor feature cannot be chosen yet")),
    ("domain.firmware.bootloader", Honoured),
    ("domain.firmware.kernelBoot.kernelArgs", Honoured),
    ("domain.firmware.kernelBoot.container.image", Honoured),
    ("domain.firmware.kernelBoot.container.kernelPath", Honoured),
    ("domain.firmware.kernelBoot.container.initrdPath", Honoured),
    ("domain.firmware.kernelBoot.container.imagePullPolicy", Honoured),
    ("domain.firmware.kernelBoot.container.imagePullSecret", Honoured),
    ("domain.firmware.uuid", Honoured),
    ("domain.firmware.serial", Honoured),
    ("domain.firmware", Refused(FIRMWARE)),
    ("domain.ioThreadsPolicy", NoEffect),
    ("domain.ioThreads", NoEffect),
    ("domain.machine.type", Honoured),
    ("domain.memory.guest", Honoured),
    ("domain.memory.hugepages.pageSize", Honoured),
    ("domain.memory.maxGuest", NoEffect),
    ("domain.memory", Refused("not carried out yet")),
    ("domain.rebootPolicy", Honoured),
    ("domain.resources", Honoured),
    ("domain", Refused("not carried out yet")),
    ("evictionStrategy", NoEffect),
    ("hostname", Honoured),
    ("livenessProbe", Refused(CLUSTER)),
    ("networks[].name", Honoured),
    ("networks[].pod.vmNetworkCIDR", Honoured),
    ("networks[].pod.vmIPv6NetworkCIDR", Honoured),
    ("networks[].pod", Honoured),
    ("networks[].multus.networkName", Honoured),
    ("networks[].multus", Refused(CLUSTER)),
    ("networks", Refused("only the pod network and bridges of the machine are there without a cluster")),
    ("nodeSelector", NoEffect),
    ("priorityClassName", NoEffect),
    ("readinessProbe", Refused(CLUSTER)),
    ("schedulerName", NoEffect),
    ("startStrategy", Honoured),
    ("subdomain", NoEffect),
    ("terminationGracePeriodSeconds", Honoured),
    ("tolerations", NoEffect),
    ("topologySpreadConstraints", NoEffect),
    ("volumes[].name", Honoured),
    ("volumes[].cloudInitConfigDrive", Honoured),
    ("volumes[].cloudInitNoCloud", Honoured),
    ("volumes[].configMap", Honoured),
    ("volumes[].containerDisk", Honoured),
    ("volumes[].dataVolume", Refused(CLAIM)),
    ("volumes[].downwardAPI.fields", Honoured),
    ("volumes[].downwardAPI.volumeLabel", Honoured),
    ("volumes[].emptyDisk.capacity", Honoured),
    ("volumes[].ephemeral", Refused(CLAIM)),
    ("volumes[].hostDisk", Honoured),
    ("volumes[].hostDisk.shared", NoEffect),
    ("volumes[].persistentVolumeClaim", Refused(CLAIM)),
    ("volumes[].secret", Honoured),
    ("volumes[].serviceAccount", Refused("a service account and its token are a cluster's")),
    ("volumes[].sysprep", Honoured),
    ("volumes", Refused(VOLUME)),
];

/// Every field that the manifest sets and that is refused, as `(path, reason)`.
pub fn refused(spec: &Value) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    walk(spec, &mut String::new(), &mut String::new(), &mut found);
    found
}

/// `path` has indices, `pattern` has `[]` in their place.
fn walk(value: &Value, path: &mut String, pattern: &mut String, found: &mut Vec<(String, &'static str)>) {
    let step =
        |path: &mut String, pattern: &mut String, p: &str, q: &str, value: &Value, found: &mut Vec<_>| {
            let (path_len, pattern_len) = (path.len(), pattern.len());
            path.push_str(p);
            pattern.push_str(q);
            walk(value, path, pattern, found);
            path.truncate(path_len);
            pattern.truncate(pattern_len);
        };
    match value {
        Value::Null => {}
        Value::Object(fields) if !is_decided_whole(pattern) => {
            let dot = if path.is_empty() { "" } else { "." };
            for (name, value) in fields {
                let p = format!("{dot}{name}");
                step(path, pattern, &p, &p, value, found);
            }
        }
        Value::Array(elements) if !is_decided_whole(pattern) => {
            for (index, value) in elements.iter().enumerate() {
                step(path, pattern, &format!("[{index}]"), "[]", value, found);
            }
        }
        // An explicit "no" asks for nothing.
        Value::Bool(false) => {}
        _ => {
            if let Refused(reason) = verdict(pattern) {
                found.push((format!("spec.{path}"), reason));
            }
        }
    }
}

/// Whether no entry of the table is below `pattern`, so that its own verdict holds for all of it.
fn is_decided_whole(pattern: &str) -> bool {
    !pattern.is_empty() && !TABLE.iter().any(|(field, _)| is_below(field, pattern))
}

fn is_below(field: &str, parent: &str) -> bool {
    field.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.') || rest.starts_with('['))
}

fn verdict(pattern: &str) -> Verdict {
    TABLE
        .iter()
        .filter(|(field, _)| *field == pattern || is_below(pattern, field))
        .max_by_key(|(field, _)| field.len())
        .map_or(Refused("not carried out without a cluster"), |(_, verdict)| *verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths(spec: &Value) -> Vec<String> {
        refused(spec).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn what_is_carried_out_is_not_refused() {
        let spec = json!({
            "domain": {
                "cpu": {"cores": 2},
                "devices": {"disks": [{"name": "a", "disk": {"bus": "virtio"}}], "rng": {},
                            "interfaces": [{"name": "n", "masquerade": {}, "ports": [{"port": 22}]}]},
                "resources": {"requests": {"memory": "1Gi"}},
            },
            "networks": [{"name": "n", "pod": {}}],
            "volumes": [{"name": "a", "hostDisk": {"path": "/x", "type": "Disk"}}],
        });
        assert_eq!(paths(&spec), Vec::<String>::new());
    }

    #[test]
    fn the_rest_is_refused_by_its_path() {
        let spec = json!({
            "dnsPolicy": "None",
            "domain": {"devices": {"disks": [{"name": "a"}, {"name": "b", "changedBlockTracking": true}], "tpm": {"persistent": true}},
                       "firmware": {"acpi": {"slicNameRef": "a"}}},
            "volumes": [{"name": "a", "ephemeral": {"persistentVolumeClaim": {"claimName": "x"}}}],
        });
        assert_eq!(
            paths(&spec),
            [
                "spec.dnsPolicy",
                "spec.domain.devices.disks[1].changedBlockTracking",
                "spec.domain.devices.tpm",
                "spec.domain.firmware.acpi",
                "spec.volumes[0].ephemeral",
            ]
        );
    }

    #[test]
    fn an_explicit_no_asks_for_nothing() {
        assert_eq!(paths(&json!({"domain": {"devices": {"autoattachVSOCK": false}}})), Vec::<String>::new());
    }
}
