//! What the platform makes of each field of an instance: one table, and a walk over what is set.
//!
//! A field that has an effect on the guest and cannot be honoured is refused, by its path and with the reason; it is
//! never accepted and ignored. What the machine itself cannot do yet is refused here; what its pod, volumes and networks
//! are made of is the cluster's part.

use serde_json::Value;

use super::cause::{Causes, Path};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Carried out.
    Honoured,
    /// Accepted: it changes nothing that a guest could notice.
    NoEffect,
    /// Refused, for this reason.
    Refused(&'static str),
}

use Verdict::{Honoured, NoEffect, Refused};

const PINNED: &str = "processors are not pinned yet";
const USB: &str = "there is no USB controller";
const ENCRYPTED: &str = "encrypted guests are not supported";
const HYPERV: &str = "Hyper-V interfaces are not shown yet";
const MODEL: &str = "only virtio network adapters are supported";
const VFIO: &str = "devices cannot be passed through yet";
const VIRTIOFS: &str = "shared directories (virtiofs) are not supported yet";
const CLAIM: &str = "dynamic resource allocation is not supported yet";
const TABLES: &str = "further ACPI tables cannot be added";

/// Fields of `VirtualMachineInstanceSpec`, `[]` for every element of a list, `=value` for one value of a field. The
/// longest entry that is the field or one of its parents decides; every field has one.
pub const TABLE: &[(&str, Verdict)] = &[
    ("accessCredentials", Honoured),
    ("affinity", Honoured),
    ("architecture", Honoured),
    ("architecture=arm64", Refused("guests are x86-64 only")),
    ("architecture=s390x", Refused("guests are x86-64 only")),
    ("dnsConfig", Honoured),
    ("dnsPolicy", Honoured),
    ("domain.chassis", Honoured),
    ("domain.clock", Honoured),
    ("domain.clock.timer", NoEffect),
    ("domain.clock.timezone", Refused("the clock shows UTC; say clock.utc")),
    ("domain.cpu", Honoured),
    ("domain.cpu.dedicatedCpuPlacement", Refused(PINNED)),
    ("domain.cpu.features", Refused("processor features cannot be chosen yet")),
    ("domain.cpu.isolateEmulatorThread", Refused(PINNED)),
    ("domain.cpu.numa", Refused("the guest has one NUMA node")),
    ("domain.cpu.realtime", Refused("real-time scheduling is not supported")),
    ("domain.devices.autoattachGraphicsDevice", NoEffect),
    ("domain.devices.autoattachInputDevice", NoEffect),
    ("domain.devices.autoattachMemBalloon", Honoured),
    ("domain.devices.autoattachPodInterface", Honoured),
    ("domain.devices.autoattachSerialConsole", Honoured),
    ("domain.devices.autoattachVSOCK", Honoured),
    ("domain.devices.blockMultiQueue", Honoured),
    ("domain.devices.clientPassthrough", Refused(USB)),
    ("domain.devices.disableHotplug", NoEffect),
    ("domain.devices.disks", Honoured),
    ("domain.devices.disks[].changedBlockTracking", Refused("changed blocks are not tracked")),
    ("domain.devices.disks[].disk.bus=usb", Refused(USB)),
    ("domain.devices.disks[].cdrom.bus=usb", Refused(USB)),
    ("domain.devices.disks[].disk.pciAddress", Refused("devices take the next free place")),
    ("domain.devices.disks[].lun.reservation", Refused("persistent reservations are not supported")),
    ("domain.devices.downwardMetrics", Refused("host metrics are not shown to guests")),
    ("domain.devices.filesystems", Refused(VIRTIOFS)),
    ("domain.devices.gpus", Refused(VFIO)),
    ("domain.devices.hostDevices", Refused(VFIO)),
    ("domain.devices.inputs", NoEffect),
    ("domain.devices.interfaces", Honoured),
    ("domain.devices.interfaces[].acpiIndex", Refused("devices take the next free place")),
    ("domain.devices.interfaces[].binding", Refused("binding plugins are not supported")),
    ("domain.devices.interfaces[].model=e1000", Refused(MODEL)),
    ("domain.devices.interfaces[].model=e1000e", Refused(MODEL)),
    ("domain.devices.interfaces[].model=igb", Refused(MODEL)),
    ("domain.devices.interfaces[].model=ne2k_pci", Refused(MODEL)),
    ("domain.devices.interfaces[].model=pcnet", Refused(MODEL)),
    ("domain.devices.interfaces[].model=rtl8139", Refused(MODEL)),
    ("domain.devices.interfaces[].passtBinding", Refused("the passt binding is not supported")),
    ("domain.devices.interfaces[].pciAddress", Refused("devices take the next free place")),
    ("domain.devices.interfaces[].sriov", Refused(VFIO)),
    ("domain.devices.logSerialConsole", Honoured),
    ("domain.devices.networkInterfaceMultiqueue", Honoured),
    ("domain.devices.panicDevices", Honoured),
    ("domain.devices.rng", Honoured),
    ("domain.devices.sound", Refused("there is no sound card")),
    ("domain.devices.tpm", Refused("there is no trusted platform module yet")),
    ("domain.devices.useVirtioTransitional", Refused("devices speak virtio 1 only")),
    ("domain.devices.video", NoEffect),
    ("domain.devices.watchdog", Refused("there is no watchdog yet")),
    ("domain.features", Honoured),
    ("domain.features.hyperv", Refused(HYPERV)),
    ("domain.features.hypervPassthrough", Refused(HYPERV)),
    ("domain.features.kvm", Refused("KVM is not hidden yet")),
    ("domain.firmware", Honoured),
    ("domain.firmware.acpi", Refused(TABLES)),
    ("domain.ioThreads", Honoured),
    ("domain.ioThreadsPolicy", Honoured),
    ("domain.launchSecurity", Refused(ENCRYPTED)),
    ("domain.machine", Honoured),
    ("domain.memory", Honoured),
    ("domain.memory.reservedOverhead", Refused("memory beside the guest's is set aside by the platform")),
    ("domain.rebootPolicy", Honoured),
    ("domain.resources", Honoured),
    ("evictionStrategy", Honoured),
    ("hostname", Honoured),
    ("livenessProbe", Honoured),
    ("networks", Honoured),
    ("networks[].resourceClaim", Refused(CLAIM)),
    ("nodeSelector", Honoured),
    ("priorityClassName", Honoured),
    ("readinessProbe", Honoured),
    ("resourceClaims", Refused(CLAIM)),
    ("schedulerName", Honoured),
    ("serviceAccountName", Honoured),
    ("startStrategy", Honoured),
    ("subdomain", Honoured),
    ("terminationGracePeriodSeconds", Honoured),
    ("tolerations", Honoured),
    ("topologySpreadConstraints", Honoured),
    ("utilityVolumes", Refused("utility volumes are not supported")),
    ("volumes", Honoured),
    ("volumes[].containerPath", Refused(VIRTIOFS)),
    ("volumes[].hostDisk.shared", Refused("two machines may not share a writable disk")),
    ("volumes[].downwardMetrics", Refused("host metrics are not shown to guests")),
    ("volumes[].memoryDump", Refused("memory is not dumped to claims yet")),
];

/// What becomes of a field, by its pattern.
pub fn verdict(pattern: &str) -> Option<Verdict> {
    let decides = |field: &str| field == pattern || is_below(pattern, field);
    let entries = TABLE.iter().filter(|(field, _)| decides(field));
    entries.max_by_key(|(field, _)| field.len()).map(|(_, verdict)| *verdict)
}

fn is_below(field: &str, parent: &str) -> bool {
    field.strip_prefix(parent).is_some_and(|rest| rest.starts_with(['.', '[', '=']))
}

/// Everything that the spec at `root` sets and that is refused.
pub(super) fn check(root: &Path, spec: &Value, causes: &mut Causes) {
    walk(spec, root, "", causes);
}

fn walk(value: &Value, path: &Path, pattern: &str, causes: &mut Causes) {
    // An explicit "no" asks for nothing.
    if matches!(value, Value::Null | Value::Bool(false)) {
        return;
    }
    let refused = match value {
        Value::String(text) => verdict(&format!("{pattern}={text}")),
        _ => verdict(pattern),
    };
    if let Some(Refused(reason)) = refused {
        causes.not_supported(path, format!("{path} is not supported: {reason}"));
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if pattern.is_empty() { "" } else { "." };
                walk(value, &path.child(name), &format!("{pattern}{dot}{name}"), causes);
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                walk(value, &path.index(index), &format!("{pattern}[]"), causes);
            }
        }
        _ => {}
    }
}
