//! Instances: created as they will be, and never changed by a user.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::cause::{Cause, Causes, Path};
use super::site::Site;
use super::{json, platform, spec};
use crate::features::{FeatureHyperv, FeatureState};
use crate::vmi::{VirtualMachineInstance, VirtualMachineInstanceSpec};

/// Labels that only the platform writes.
const RESERVED_LABELS: [&str; 6] = [
    "kubevirt.io/created-by",
    "kubevirt.io/migrationJobUID",
    "kubevirt.io/nodeName",
    "kubevirt.io/migrationTargetNodeName",
    "kubevirt.io/schedulable",
    "kubevirt.io/install-strategy",
];
const IGNITION: &str = "kubevirt.io/ignitiondata";
const HOOKS: &str = "hooks.kubevirt.io/hookSidecars";

/// Why an instance, with its defaults filled in, may not be created by this user.
pub fn create(vmi: &VirtualMachineInstance, user: &str, site: &Site) -> Result<(), Vec<Cause>> {
    let at = Path::new("spec");
    let mut causes = spec::check(&at, &vmi.spec, site);
    volumes_are_used(&at, &vmi.spec, &mut causes);
    has_memory(&at, &vmi.spec, &mut causes);
    metadata(&Path::new("metadata"), &vmi.metadata, user, site, &mut causes);
    hyperv(&at, &vmi.spec, &mut causes);
    if causes.is_empty() {
        platform::check(&at, &json(&vmi.spec), &mut causes);
    }
    causes.into_result()
}

/// Why an instance may not be changed so by this user.
pub fn update(
    new: &VirtualMachineInstance,
    old: &VirtualMachineInstance,
    user: &str,
    site: &Site,
) -> Result<(), Vec<Cause>> {
    let mut causes = Causes::default();
    if site.is_platform(user) {
        if new.spec != old.spec {
            hot_plug(new, old, &mut causes);
            causes.extend(spec::check(&Path::new("spec"), &new.spec, site).into_vec());
        }
        return causes.into_result();
    }
    if new.spec != old.spec {
        causes.not_supported("", "update of VMI object is restricted");
    } else if reserved(&new.metadata) != reserved(&old.metadata) {
        let message =
            "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited";
        causes.not_supported("", message);
    }
    causes.into_result()
}

/// An instance's status is the platform's: what another user writes there is as if it had not been written.
pub fn keep_status(
    new: &mut VirtualMachineInstance,
    old: Option<&VirtualMachineInstance>,
    user: &str,
    site: &Site,
) {
    if !site.is_platform(user) {
        new.status = old.and_then(|old| old.status.clone());
    }
}

/// What the platform itself may not change of a running instance.
fn hot_plug(new: &VirtualMachineInstance, old: &VirtualMachineInstance, causes: &mut Causes) {
    let sockets = |vmi: &VirtualMachineInstance| vmi.spec.domain.cpu.as_ref().and_then(|cpu| cpu.max_sockets);
    if sockets(new) != sockets(old) {
        causes.invalid("", "CPU topology maxSockets changed");
    }
    let memory = |vmi: &VirtualMachineInstance| {
        vmi.spec.domain.memory.as_ref().and_then(|memory| memory.max_guest.clone())
    };
    if let (Some(new), Some(old)) = (memory(new), memory(old))
        && super::memory::bytes(Some(&new)) != super::memory::bytes(Some(&old))
    {
        causes.invalid("", "Memory maxGuest changed");
    }
    let dumps = new.spec.volumes.iter().filter(|volume| volume.memory_dump.is_some()).count();
    let (disks, volumes) = (new.spec.domain.devices.disks.len(), new.spec.volumes.len() - dumps);
    let filesystems = new.spec.domain.devices.filesystems.len();
    if disks + filesystems != volumes {
        let message = format!("number of disks ({disks}) does not equal the number of volumes ({volumes})");
        causes.invalid("", message);
    }
}

fn reserved(metadata: &ObjectMeta) -> BTreeMap<&str, &str> {
    let labels = metadata.labels.iter().flatten();
    let reserved = labels.filter(|(name, _)| RESERVED_LABELS.contains(&name.as_str()));
    reserved.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Labels and annotations that need a right or a feature gate.
pub(super) fn metadata(at: &Path, metadata: &ObjectMeta, user: &str, site: &Site, causes: &mut Causes) {
    if !site.is_platform(user) && !reserved(metadata).is_empty() {
        let message = "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited";
        causes.not_supported(at.child("labels"), message);
    }
    let given = |name: &str| {
        metadata.annotations.as_ref().and_then(|all| all.get(name)).is_some_and(|value| !value.is_empty())
    };
    let field = at.child("annotations");
    if given(IGNITION) {
        if site.gate("ExperimentalIgnitionSupport") {
            causes.not_supported(
                &field,
                format!("{} is not supported: there is no ignition yet", field.child(IGNITION)),
            );
        } else {
            let message = format!(
                "ExperimentalIgnitionSupport feature gate is not enabled in kubevirt-config, invalid entry {}",
                field.child(IGNITION)
            );
            causes.invalid(&field, message);
        }
    }
    if given(HOOKS) {
        if site.gate("Sidecar") {
            let reason = "hooks change a domain description that there is none of here";
            causes.not_supported(&field, format!("{} is not supported: {reason}", field.child(HOOKS)));
        } else {
            let message = format!(
                "sidecar feature gate is not enabled in kubevirt-config, invalid entry {}",
                field.child(HOOKS)
            );
            causes.invalid(&field, message);
        }
    }
}

fn volumes_are_used(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    let devices = &spec.domain.devices;
    for (index, volume) in spec.volumes.iter().enumerate().filter(|(_, volume)| volume.memory_dump.is_none())
    {
        let used = devices.disks.iter().any(|disk| disk.name == volume.name)
            || devices.filesystems.iter().any(|filesystem| filesystem.name == volume.name);
        if !used {
            let field = at.child("domain.volumes").index(index).child("name");
            causes.invalid(&field, format!("{field} '{}' not found.", volume.name));
        }
    }
}

fn has_memory(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    let domain = &spec.domain;
    let memory = domain.memory.as_ref();
    let said = memory.is_some_and(|memory| memory.guest.is_some() || memory.hugepages.is_some());
    if !said && super::memory::bytes(super::memory::request(domain, "memory")) == 0 {
        let message = format!(
            "no memory requested, at least one of '{}', '{}' or '{}' must be set",
            at.child("domain.memory.guest"),
            at.child("domain.memory.hugepages.size"),
            at.child("domain.resources.requests.memory")
        );
        causes.required("", message);
    }
}

/// Hyper-V interfaces that need others (Hypervisor Top Level Functional Specification). Defaults turned on what was not
/// said, so that only an explicit "no" is in the way.
fn hyperv(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    let Some(features) = &spec.domain.features else { return };
    let Some(hyperv) = &features.hyperv else { return };
    let field = at.child("domain.features.hyperv");
    for (name, is_on, needed, has) in dependencies(hyperv) {
        if is_on && !has {
            let (field, needed) = (field.child(name), field.child(needed));
            causes.invalid(&field, format!("'{field}' requires '{needed}', which was disabled."));
        }
    }
    if features.hyperv_passthrough.is_some() {
        let message = "Cannot explicitly set hyperV features if HypervPassthrough is being used. Please use either \
                       HyperV or HypervPassthrough.";
        causes.invalid(at, message);
    }
}

/// An interface, whether it is on, another that it needs, and whether that is on.
type Dependency = (&'static str, bool, &'static str, bool);

fn dependencies(hyperv: &FeatureHyperv) -> [Dependency; 5] {
    let on = |state: Option<&FeatureState>| state.is_some_and(|state| state.enabled != Some(false));
    let vpindex = on(hyperv.vpindex.as_ref());
    let synic = on(hyperv.synic.as_ref());
    let timer = hyperv.synictimer.as_ref().is_some_and(|timer| timer.enabled != Some(false));
    let flush = hyperv.tlbflush.as_ref().is_some_and(|flush| flush.enabled != Some(false));
    [
        ("evmcs", on(hyperv.evmcs.as_ref()), "vapic", on(hyperv.vapic.as_ref())),
        ("ipi", on(hyperv.ipi.as_ref()), "vpindex", vpindex),
        ("tlbflush", flush, "vpindex", vpindex),
        ("synictimer", timer, "synic", synic),
        ("synic", synic, "vpindex", vpindex),
    ]
}
