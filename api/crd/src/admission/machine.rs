//! Machines: the template's rules, and those of the object around it.

use super::cause::{Cause, Causes, Path};
use super::site::Site;
use super::{instance, json, platform, spec};
use crate::instancetype::{
    VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec, apply, requirements,
};
use crate::vm::{RunStrategy, UpdateVolumesStrategy, VirtualMachine, VirtualMachineSpec};
use crate::vmi::VirtualMachineInstanceSpec;

/// What a machine refers to, where that was found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Referred<'r> {
    /// Its instance type.
    pub instancetype: Option<&'r VirtualMachineInstancetypeSpec>,
    /// Its preference.
    pub preference: Option<&'r VirtualMachinePreferenceSpec>,
}

/// Why a machine may not be created by this user. What it refers to is applied to a copy, which is then looked at as
/// the instance will be.
pub fn create(
    vm: &VirtualMachine,
    referred: Referred<'_>,
    user: &str,
    site: &Site,
) -> Result<(), Vec<Cause>> {
    if vm.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let mut vm = vm.clone();
    let at = Path::new("spec");
    let template = &mut vm.spec.template;
    let instance = template.spec.get_or_insert_with(VirtualMachineInstanceSpec::default);
    let metadata = template.metadata.get_or_insert_default();
    let base = at.child("template.spec");
    apply::apply(&base, referred.instancetype, referred.preference, instance, metadata)?;
    if let Some(preference) = referred.preference {
        requirements::check(referred.instancetype, preference, instance, site.architecture)?;
    }
    let mut causes = Causes::default();
    instance::metadata(&at.child("template.metadata"), metadata, user, site, &mut causes);
    causes.extend(spec::check(&base, instance, site).into_vec());
    let platform_spec = json(instance);
    data_volumes(&at, &vm, &mut causes);
    run_strategy(&at, &vm.spec, site, &mut causes);
    live_update(&at, &vm.spec, site, &mut causes);
    if causes.is_empty() {
        platform::check(&base, &platform_spec, &mut causes);
    }
    causes.into_result()
}

/// Why a machine may not be changed so by this user.
pub fn update(
    new: &VirtualMachine,
    old: &VirtualMachine,
    referred: Referred<'_>,
    user: &str,
    site: &Site,
) -> Result<(), Vec<Cause>> {
    create(new, referred, user, site)?;
    let mut causes = Causes::default();
    if new.metadata.deletion_timestamp.is_none() {
        in_progress(new, old, &mut causes);
    }
    causes.into_result()
}

/// The whole of a machine's status belongs to the platform; what another user writes there does not count.
pub fn keep_status(new: &mut VirtualMachine, old: Option<&VirtualMachine>, user: &str, site: &Site) {
    if !site.is_platform(user) {
        new.status = old.and_then(|old| old.status.clone());
    }
}

/// While a snapshot or a restore is at work, some things stay as they are.
fn in_progress(new: &VirtualMachine, old: &VirtualMachine, causes: &mut Causes) {
    let Some(status) = &new.status else { return };
    if let Some(snapshot) = &status.snapshot_in_progress {
        let volumes = |vm: &VirtualMachine| {
            vm.spec
                .template
                .spec
                .as_ref()
                .map(|spec| (spec.volumes.clone(), spec.domain.devices.disks.clone()))
        };
        if volumes(new) != volumes(old) {
            let message =
                format!("Cannot update VM disks or volumes until snapshot \"{snapshot}\" completes");
            causes.not_supported("spec", message);
        } else if strategy(&new.spec) != strategy(&old.spec) {
            let message = format!("Cannot update VM running state until snapshot \"{snapshot}\" completes");
            causes.not_supported("spec", message);
        }
    }
    if let Some(restore) = &status.restore_in_progress
        && strategy(&new.spec) != strategy(&old.spec)
    {
        let message = format!("Cannot update VM runStrategy until restore \"{restore}\" completes");
        causes.not_supported("spec", message);
    }
}

/// The strategy that a machine asks for, in either way.
pub fn strategy(spec: &VirtualMachineSpec) -> Option<RunStrategy> {
    let old = |running| if running { RunStrategy::Always } else { RunStrategy::Halted };
    spec.run_strategy.or_else(|| spec.running.map(old))
}

fn run_strategy(at: &Path, spec: &VirtualMachineSpec, site: &Site, causes: &mut Causes) {
    match (spec.running, spec.run_strategy) {
        (Some(_), Some(_)) => causes.invalid(
            at.child("running"),
            "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please use RunStrategy instead",
        ),
        (None, None) => causes.invalid(at.child("running"), "RunStrategy must be specified"),
        (None, Some(RunStrategy::WaitAsReceiver)) if !site.gate("DecentralizedLiveMigration") => {
            let gate = "DecentralizedLiveMigration feature gate is not enabled in kubevirt resource";
            causes.invalid(at.child("runStrategy"), format!("Invalid RunStrategy (WaitAsReceiver), {gate}"));
        }
        _ => {}
    }
}

fn data_volumes(at: &Path, vm: &VirtualMachine, causes: &mut Causes) {
    let volumes = vm.spec.template.spec.iter().flat_map(|spec| &spec.volumes).collect::<Vec<_>>();
    for (index, template) in vm.spec.data_volume_templates.iter().enumerate() {
        // KubeVirt spells this path in the singular.
        let field = at.child("dataVolumeTemplate").index(index);
        let metadata = template.metadata.as_ref();
        let name = metadata.and_then(|metadata| metadata.name.as_deref()).unwrap_or_default();
        if name.is_empty() {
            let message = format!("'name' field must not be empty for DataVolumeTemplate entry {field}.");
            causes.required(field.child("name"), message);
        }
        let namespace =
            metadata.and_then(|metadata| metadata.namespace.as_deref()).filter(|name| !name.is_empty());
        let own = vm.metadata.namespace.as_deref();
        if let (Some(namespace), Some(own)) = (namespace, own)
            && namespace != own
        {
            let message =
                format!("Embedded DataVolume namespace {namespace} differs from VM namespace {own}");
            causes.invalid(at.child("dataVolumeTemplates").index(index), message);
        }
        data_source(&field, template, causes);
        let named = volumes.iter().any(|volume| {
            let claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.as_str());
            let data = volume.data_volume.as_ref().map(|data| data.name.as_str());
            claim == Some(name) || data == Some(name)
        });
        if !named {
            let message = format!(
                "DataVolumeTemplate entry {field} must be referenced in the VMI template's 'volumes' list"
            );
            causes.required(&field, message);
        }
    }
}

/// A DataVolume says what it is filled with, once.
fn data_source(field: &Path, template: &crate::cdi::DataVolumeTemplateSpec, causes: &mut Causes) {
    let spec = json(&template.spec);
    let source = spec["source"].as_object();
    let set = source.map_or(0, |source| source.values().filter(|value| !value.is_null()).count());
    let reference = !spec["sourceRef"].is_null();
    if source.is_some() && reference {
        causes.invalid(field, "DataVolume cannot have both source and sourceRef");
    } else if set > 1 {
        causes.invalid(field.child("source"), "Multiple dataVolume sources");
    } else if set == 0 && !reference {
        causes.invalid(field, "Data volume should have either Source, SourceRef, or be externally populated");
    }
}

/// Rules of machines that change while they run.
fn live_update(at: &Path, spec: &VirtualMachineSpec, site: &Site, causes: &mut Causes) {
    if spec.update_volumes_strategy == Some(UpdateVolumesStrategy::Migration) && !site.live_update() {
        let message = "updateVolumesStrategy Migration needs vmRolloutStrategy LiveUpdate";
        causes.invalid(at.child("updateVolumesStrategy"), message);
    }
    let Some(domain) = spec.template.spec.as_ref().map(|spec| &spec.domain) else { return };
    let Some(memory) = domain.memory.as_ref().filter(|memory| memory.max_guest.is_some()) else { return };
    if !site.live_update() {
        return;
    }
    let field = at.child("template.spec.domain.memory.guest");
    let (guest, max) =
        (super::memory::bytes(memory.guest.as_ref()), super::memory::bytes(memory.max_guest.as_ref()));
    let cpu = domain.cpu.as_ref();
    let numa = cpu.and_then(|cpu| cpu.numa.as_ref()?.guest_mapping_passthrough.as_ref());
    let limited = super::memory::limit(domain, "memory").is_some();
    let align = match memory.hugepages.as_ref().and_then(|pages| pages.page_size.as_deref()) {
        Some("1Gi") => ("1Gi", 1 << 30),
        _ => ("2Mi", 2 << 20),
    };
    let message = if limited {
        "Configuration of Memory limits is not allowed when Memory live update is enabled".to_owned()
    } else if cpu.is_some_and(|cpu| cpu.realtime.is_some()) {
        "Memory hotplug is not compatible with realtime VMs".to_owned()
    } else if domain.launch_security.is_some() {
        "Memory hotplug is not compatible with encrypted VMs".to_owned()
    } else if numa.is_some() {
        "Memory hotplug is not compatible with guest mapping passthrough".to_owned()
    } else if memory.guest.is_none() {
        "Guest memory must be configured when memory hotplug is enabled".to_owned()
    } else if guest > max {
        "Guest memory is greater than the configured maxGuest memory".to_owned()
    } else if !guest.is_multiple_of(align.1) {
        format!("Guest memory must be {} aligned", align.0)
    } else if !max.is_multiple_of(align.1) {
        format!("MaxGuest must be {} aligned", align.0)
    } else if guest < 1 << 30 {
        "Memory hotplug is only available for VMs with at least 1Gi of guest memory".to_owned()
    } else {
        return;
    };
    causes.invalid(&field, message);
}
