//! An instance type put into an instance's spec: what it says must not be said there.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::preference::{PreferredCpuTopology, SpreadAcross};
use super::requirements::{preferred_topology, spread_options};
use super::{VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec, prefer};
use crate::admission::{Cause, CauseType, Path};
use crate::cpu::Cpu;
use crate::domain::Memory;
use crate::quantity;
use crate::vmi::VirtualMachineInstanceSpec;

/// Threads on each core where vCPUs are spread over threads too.
pub(super) const THREADS_PER_CORE: u32 = 2;

/// Puts an instance type and a preference into the spec at `at`, or says which of its fields contradict.
pub fn apply(
    at: &Path,
    instancetype: Option<&VirtualMachineInstancetypeSpec>,
    preference: Option<&VirtualMachinePreferenceSpec>,
    spec: &mut VirtualMachineInstanceSpec,
    metadata: &mut ObjectMeta,
) -> Result<(), Vec<Cause>> {
    if let Some(instancetype) = instancetype {
        spreads(instancetype, preference)?;
        let conflicts = conflicts(instancetype, spec);
        if !conflicts.is_empty() {
            return Err(conflicts.iter().map(|field| conflict(&at.child(field))).collect());
        }
        annotations(instancetype, metadata)?;
        fill(instancetype, preference, spec);
    }
    if let Some(preference) = preference {
        prefer::fill(preference, spec, metadata);
    }
    Ok(())
}

fn conflict(field: &Path) -> Cause {
    Cause {
        reason: CauseType::Invalid,
        message: format!("VM field(s) {field} conflicts with selected instance type"),
        field: field.to_string(),
    }
}

/// Whether the vCPUs can be spread as the preference wants.
fn spreads(
    instancetype: &VirtualMachineInstancetypeSpec,
    preference: Option<&VirtualMachinePreferenceSpec>,
) -> Result<(), Vec<Cause>> {
    if preferred_topology(preference) != PreferredCpuTopology::Spread {
        return Ok(());
    }
    let guest = instancetype.cpu.guest;
    let (ratio, across) = spread_options(preference);
    let divides = |count: u32, by: u32| count.checked_rem(by) == Some(0);
    let message = match across {
        SpreadAcross::SocketsCores if !divides(guest, ratio) => format!(
            "{guest} vCPUs provided by the instance type are not divisible by the Spec.PreferSpreadSocketToCoreRatio or \
             Spec.CPU.PreferSpreadOptions.Ratio of {ratio} provided by the preference"
        ),
        SpreadAcross::CoresThreads if !divides(guest, ratio) => format!(
            "{guest} vCPUs provided by the instance type are not divisible by the number of threads per core {ratio}"
        ),
        SpreadAcross::SocketsCoresThreads
            if !divides(guest, THREADS_PER_CORE) || !divides(guest / THREADS_PER_CORE, ratio) =>
        {
            format!(
                "{guest} vCPUs provided by the instance type are not divisible by the number of threads per core \
                 {THREADS_PER_CORE} and Spec.PreferSpreadSocketToCoreRatio or Spec.CPU.PreferSpreadOptions.Ratio of {ratio}"
            )
        }
        _ => return Ok(()),
    };
    Err(vec![Cause { reason: CauseType::Invalid, message, field: "instancetype.spec.cpu.guest".to_owned() }])
}

/// Fields of the spec that say what the instance type says.
fn conflicts(
    instancetype: &VirtualMachineInstancetypeSpec,
    spec: &VirtualMachineInstanceSpec,
) -> Vec<&'static str> {
    let domain = &spec.domain;
    let cpu = domain.cpu.clone().unwrap_or_default();
    let resources = domain.resources.clone().unwrap_or_default();
    let positive = |count: Option<u32>| count.is_some_and(|count| count > 0);
    let kind = &instancetype.cpu;
    let mut found = Vec::new();
    let mut both = |field: &'static str, both: bool| {
        if both {
            found.push(field);
        }
    };
    both("nodeSelector", !spec.node_selector.is_empty() && !instancetype.node_selector.is_empty());
    both("schedulerName", given(&spec.scheduler_name) && given(&instancetype.scheduler_name));
    both("domain.resources.requests.cpu", resources.requests.contains_key("cpu"));
    both("domain.resources.limits.cpu", resources.limits.contains_key("cpu"));
    both("domain.cpu.sockets", positive(cpu.sockets));
    both("domain.cpu.cores", positive(cpu.cores));
    both("domain.cpu.threads", positive(cpu.threads));
    both("domain.cpu.model", given(&cpu.model) && kind.model.is_some());
    let dedicated = cpu.dedicated_cpu_placement == Some(true);
    both("domain.cpu.dedicatedCPUPlacement", dedicated && kind.dedicated_cpu_placement.is_some());
    let isolated = cpu.isolate_emulator_thread == Some(true);
    both("domain.cpu.isolateEmulatorThread", isolated && kind.isolate_emulator_thread.is_some());
    both("domain.cpu.numa", cpu.numa.is_some() && kind.numa.is_some());
    both("domain.cpu.realtime", cpu.realtime.is_some() && kind.realtime.is_some());
    if let Some(field) = memory_conflict(instancetype, spec) {
        both(field, true);
    }
    let threads = domain.io_threads_policy.is_some() && instancetype.io_threads_policy.is_some();
    both("domain.ioThreadsPolicy", threads);
    let security = domain.launch_security.is_some() && instancetype.launch_security.is_some();
    both("domain.launchSecurity", security);
    both("domain.devices.gpus", !domain.devices.gpus.is_empty() && !instancetype.gpus.is_empty());
    let devices = !domain.devices.host_devices.is_empty() && !instancetype.host_devices.is_empty();
    both("domain.devices.hostDevices", devices);
    found
}

/// Of memory only the first conflict is named.
fn memory_conflict(
    instancetype: &VirtualMachineInstancetypeSpec,
    spec: &VirtualMachineInstanceSpec,
) -> Option<&'static str> {
    let memory = spec.domain.memory.clone().unwrap_or_default();
    let resources = spec.domain.resources.clone().unwrap_or_default();
    let kind = &instancetype.memory;
    let candidates = [
        ("domain.memory.guest", memory.guest.is_some()),
        ("domain.memory.hugepages", memory.hugepages.is_some() && kind.hugepages.is_some()),
        ("domain.memory.maxGuest", memory.max_guest.is_some() && kind.max_guest.is_some()),
        ("domain.resources.requests.memory", resources.requests.contains_key("memory")),
        ("domain.resources.limits.memory", resources.limits.contains_key("memory")),
    ];
    candidates.into_iter().find(|(_, both)| *both).map(|(field, _)| field)
}

fn given(text: &Option<String>) -> bool {
    text.as_deref().is_some_and(|text| !text.is_empty())
}

/// Annotations may be said twice, if they are the same.
fn annotations(
    instancetype: &VirtualMachineInstancetypeSpec,
    metadata: &mut ObjectMeta,
) -> Result<(), Vec<Cause>> {
    if instancetype.annotations.is_empty() {
        return Ok(());
    }
    let own = metadata.annotations.get_or_insert_default();
    for (name, value) in &instancetype.annotations {
        if own.get(name).is_some_and(|own| own != value) {
            return Err(vec![conflict(&Path::new("annotations").child(name))]);
        }
    }
    own.extend(instancetype.annotations.clone());
    Ok(())
}

fn fill(
    instancetype: &VirtualMachineInstancetypeSpec,
    preference: Option<&VirtualMachinePreferenceSpec>,
    spec: &mut VirtualMachineInstanceSpec,
) {
    if !instancetype.node_selector.is_empty() {
        spec.node_selector.clone_from(&instancetype.node_selector);
    }
    or(&mut spec.scheduler_name, &instancetype.scheduler_name);
    let domain = &mut spec.domain;
    let kind = &instancetype.cpu;
    let cpu = domain.cpu.get_or_insert_with(Cpu::default);
    or(&mut cpu.model, &kind.model);
    or(&mut cpu.dedicated_cpu_placement, &kind.dedicated_cpu_placement);
    or(&mut cpu.isolate_emulator_thread, &kind.isolate_emulator_thread);
    or(&mut cpu.numa, &kind.numa);
    or(&mut cpu.realtime, &kind.realtime);
    or(&mut cpu.max_sockets, &kind.max_sockets);
    (cpu.sockets, cpu.cores, cpu.threads) = topology(kind.guest, preference);
    let kind = &instancetype.memory;
    let memory = domain.memory.get_or_insert_with(Memory::default);
    memory.guest = Some(kind.guest.clone());
    or(&mut memory.hugepages, &kind.hugepages);
    or(&mut memory.max_guest, &kind.max_guest);
    if let Some(requested) = overcommitted(kind) {
        let resources = domain.resources.get_or_insert_default();
        resources.requests.insert("memory".to_owned(), requested);
    }
    or(&mut domain.io_threads_policy, &instancetype.io_threads_policy);
    or(&mut domain.io_threads, &instancetype.io_threads);
    or(&mut domain.launch_security, &instancetype.launch_security);
    domain.devices.gpus.extend(instancetype.gpus.clone());
    domain.devices.host_devices.extend(instancetype.host_devices.clone());
}

/// What the instance type says, where it says something.
fn or<T: Clone>(field: &mut Option<T>, said: &Option<T>) {
    if said.is_some() {
        field.clone_from(said);
    }
}

/// The pod's memory request, where it is less than the guest's memory.
fn overcommitted(memory: &super::MemoryInstancetype) -> Option<Quantity> {
    let percent = memory.overcommit_percent.and_then(|percent| u64::try_from(percent).ok())?;
    let guest = quantity::bytes(&memory.guest).ok()?;
    (1..=100).contains(&percent).then(|| {
        let requested = u128::from(guest) * u128::from(100 - percent) / 100;
        Quantity(requested.to_string())
    })
}

type Counts = (Option<u32>, Option<u32>, Option<u32>);

/// Sockets, cores and threads for a number of vCPUs. Ratios divide it, which [`spreads`] made sure of.
fn topology(vcpus: u32, preference: Option<&VirtualMachinePreferenceSpec>) -> Counts {
    let counts = |sockets, cores, threads| (Some(sockets), Some(cores), Some(threads));
    if vcpus == 1 {
        return counts(1, 1, 1);
    }
    match preferred_topology(preference) {
        PreferredCpuTopology::Cores => counts(1, vcpus, 1),
        PreferredCpuTopology::Threads => counts(1, 1, vcpus),
        PreferredCpuTopology::Spread => {
            let (ratio, across) = spread_options(preference);
            let ratio = ratio.max(1);
            match across {
                SpreadAcross::SocketsCores => counts(vcpus / ratio, ratio, 1),
                SpreadAcross::CoresThreads => counts(1, vcpus / ratio, ratio),
                SpreadAcross::SocketsCoresThreads => {
                    counts(vcpus / THREADS_PER_CORE / ratio, ratio, THREADS_PER_CORE)
                }
            }
        }
        _ => counts(vcpus, 1, 1),
    }
}
