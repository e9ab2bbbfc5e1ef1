//! What a preference needs, and whether instance type or template offer it.

use super::preference::{PreferredCpuTopology, SpreadAcross};
use super::{VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec};
use crate::admission::{Cause, CauseType};
use crate::quantity;
use crate::vmi::{Architecture, VirtualMachineInstanceSpec};

/// Cores for each socket where a preference that spreads vCPUs says nothing.
const DEFAULT_RATIO: u32 = 2;

/// The layout that a preference wants, in the spelling that is not deprecated.
pub fn preferred_topology(preference: Option<&VirtualMachinePreferenceSpec>) -> PreferredCpuTopology {
    use PreferredCpuTopology as T;
    let said = preference.and_then(|preference| preference.cpu.as_ref()?.preferred_cpu_topology);
    match said.unwrap_or(T::Sockets) {
        T::PreferSockets => T::Sockets,
        T::PreferCores => T::Cores,
        T::PreferThreads => T::Threads,
        T::PreferSpread => T::Spread,
        T::PreferAny => T::Any,
        other => other,
    }
}

/// Ratio and levels of the layout `spread`.
pub fn spread_options(preference: Option<&VirtualMachinePreferenceSpec>) -> (u32, SpreadAcross) {
    let options = preference.and_then(|preference| preference.cpu.as_ref()?.spread_options.clone());
    let old = preference.and_then(|preference| preference.prefer_spread_socket_to_core_ratio);
    let positive = |ratio: Option<u32>| ratio.filter(|&ratio| ratio > 0);
    let ratio = options.as_ref().and_then(|options| positive(options.ratio)).or(positive(old));
    let across = options.and_then(|options| options.across).unwrap_or(SpreadAcross::SocketsCores);
    (ratio.unwrap_or(DEFAULT_RATIO), across)
}

/// Why a machine does not suit its preference. `architecture` is that of machines that name none.
pub fn check(
    instancetype: Option<&VirtualMachineInstancetypeSpec>,
    preference: &VirtualMachinePreferenceSpec,
    spec: &VirtualMachineInstanceSpec,
    architecture: Architecture,
) -> Result<(), Vec<Cause>> {
    let Some(needed) = &preference.requirements else { return Ok(()) };
    if let Some(cpu) = &needed.cpu {
        cpus(instancetype, preference, spec, cpu.guest)?;
    }
    if let Some(memory) = &needed.memory {
        self::memory(instancetype, spec, &memory.guest.0)?;
    }
    let has = spec.architecture.unwrap_or(architecture);
    if let Some(needed) = needed.architecture.filter(|&needed| needed != has) {
        let message = format!(
            "preference requires architecture {} but {} is being requested",
            architecture_name(needed),
            architecture_name(has)
        );
        return refuse(&["spec.template.spec.architecture"], message);
    }
    Ok(())
}

fn architecture_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "amd64",
        Architecture::Arm64 => "arm64",
        Architecture::S390x => "s390x",
    }
}

/// One cause that names all fields, as KubeVirt has it.
fn refuse(fields: &[&str], message: String) -> Result<(), Vec<Cause>> {
    let message = format!("failure checking preference requirements: {message}");
    Err(vec![Cause { reason: CauseType::NotFound, message, field: fields.join(", ") }])
}

const CPU: &str = "spec.template.spec.domain.cpu";
const SOCKETS: &str = "spec.template.spec.domain.cpu.sockets";
const CORES: &str = "spec.template.spec.domain.cpu.cores";
const THREADS: &str = "spec.template.spec.domain.cpu.threads";

fn cpus(
    instancetype: Option<&VirtualMachineInstancetypeSpec>,
    preference: &VirtualMachinePreferenceSpec,
    spec: &VirtualMachineInstanceSpec,
    needed: u32,
) -> Result<(), Vec<Cause>> {
    if let Some(instancetype) = instancetype {
        let has = instancetype.cpu.guest;
        if has >= needed {
            return Ok(());
        }
        let message = format!(
            "insufficient CPU resources of {has} vCPU provided by instance type, preference requires {needed} vCPU"
        );
        return refuse(&["spec.instancetype"], message);
    }
    let Some(cpu) = &spec.domain.cpu else {
        let message =
            format!("no CPU resources provided by VirtualMachine, preference requires {needed} vCPU");
        return refuse(&[CPU], message);
    };
    let (sockets, cores, threads) = (count(cpu.sockets), count(cpu.cores), count(cpu.threads));
    let (has, fields, provided): (u32, &[&str], &str) = match preferred_topology(Some(preference)) {
        PreferredCpuTopology::Threads => (threads, &[THREADS], "threads"),
        PreferredCpuTopology::Cores => (cores, &[CORES], "cores"),
        PreferredCpuTopology::Spread => match spread_options(Some(preference)).1 {
            SpreadAcross::SocketsCores => (sockets.saturating_mul(cores), &[SOCKETS, CORES], "SocketsCores"),
            SpreadAcross::CoresThreads => (cores.saturating_mul(threads), &[CORES, THREADS], "CoresThreads"),
            SpreadAcross::SocketsCoresThreads => (
                sockets.saturating_mul(cores).saturating_mul(threads),
                &[SOCKETS, CORES, THREADS],
                "SocketsCoresThreads",
            ),
        },
        PreferredCpuTopology::Any => (
            cores.saturating_mul(sockets).saturating_mul(threads),
            &[CORES, SOCKETS, THREADS],
            "cores, sockets and threads",
        ),
        _ => (sockets, &[SOCKETS], "sockets"),
    };
    if has >= needed {
        return Ok(());
    }
    let message = format!(
        "insufficient CPU resources of {has} vCPU provided by VirtualMachine, preference requires {needed} vCPU provided as {provided}"
    );
    refuse(fields, message)
}

fn count(count: Option<u32>) -> u32 {
    count.unwrap_or_default()
}

fn memory(
    instancetype: Option<&VirtualMachineInstancetypeSpec>,
    spec: &VirtualMachineInstanceSpec,
    needed: &str,
) -> Result<(), Vec<Cause>> {
    let (has, field, by) = match instancetype {
        Some(instancetype) => (&instancetype.memory.guest, "spec.instancetype", "instance type"),
        None => match spec.domain.memory.as_ref().and_then(|memory| memory.guest.as_ref()) {
            Some(guest) => (guest, "spec.template.spec.domain.memory", "VirtualMachine"),
            None => return Ok(()),
        },
    };
    let needed_bytes =
        quantity::bytes(&k8s_openapi::apimachinery::pkg::api::resource::Quantity(needed.to_owned()));
    match (quantity::bytes(has), needed_bytes) {
        (Ok(has_bytes), Ok(needed_bytes)) if has_bytes < needed_bytes => {
            let message = format!(
                "insufficient Memory resources of {} provided by {by}, preference requires {needed}",
                has.0
            );
            refuse(&[field], message)
        }
        _ => Ok(()),
    }
}
