//! Processors: requests and limits, pinning, NUMA, real time.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::cause::{Causes, Path};
use super::memory::{bytes, limit, positive, request};
use crate::cpu::Cpu;
use crate::domain::DomainSpec;
use crate::quantity;
use crate::vmi::VirtualMachineInstanceSpec;

fn millis(quantity: Option<&Quantity>) -> u64 {
    quantity.and_then(|quantity| quantity::millis(quantity).ok()).unwrap_or_default()
}

/// Whole CPUs, rounded up.
fn cores(quantity: Option<&Quantity>) -> u64 {
    millis(quantity).div_ceil(1000)
}

pub(super) fn check(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    let domain = &spec.domain;
    let (requests, limits) =
        (at.child("domain.resources.requests.cpu"), at.child("domain.resources.limits.cpu"));
    let (request, limit) = (request(domain, "cpu"), limit(domain, "cpu"));
    positive(&requests, request, causes);
    positive(&limits, limit, causes);
    if let (Some(request), Some(limit)) = (request, limit)
        && millis(Some(limit)) > 0
        && millis(Some(request)) > millis(Some(limit))
    {
        let message = format!("{requests} '{}' is greater than {limits} '{}'", request.0, limit.0);
        causes.invalid(&requests, message);
    }
    let Some(cpu) = &domain.cpu else { return };
    let dedicated = cpu.dedicated_cpu_placement == Some(true);
    if dedicated {
        pinning(at, domain, cpu, causes);
    }
    numa(at, domain, cpu, dedicated, causes);
    if cpu.isolate_emulator_thread == Some(true) && !dedicated {
        causes.invalid(
            at.child("domain.cpu.isolateEmulatorThread"),
            "IsolateEmulatorThread should be only set in combination with DedicatedCPUPlacement",
        );
    }
    if cpu.sockets.unwrap_or(0) > cpu.max_sockets.filter(|&max| max > 0).unwrap_or(u32::MAX) {
        causes.invalid(
            at.child("domain.cpu.sockets"),
            "Number of sockets in CPU topology is greater than the maximum sockets allowed",
        );
    }
    if cpu.realtime.is_some() {
        realtime(at, cpu, dedicated, causes);
    }
}

fn pinning(at: &Path, domain: &DomainSpec, cpu: &Cpu, causes: &mut Causes) {
    let resource = |name: &str| at.child(&format!("domain.resources.{name}"));
    let (memory_request, memory_limit) = (bytes(request(domain, "memory")), bytes(limit(domain, "memory")));
    if memory_request == 0 && memory_limit == 0 {
        let message =
            format!("{} or {} should be provided", resource("requests.memory"), resource("limits.memory"));
        causes.invalid(resource("limits.memory"), message);
    }
    let (request, limit) = (request(domain, "cpu"), limit(domain, "cpu"));
    for (name, list, quantity) in [("requests.cpu", "requests", request), ("limits.cpu", "limits", limit)] {
        if !millis(quantity).is_multiple_of(1000) {
            causes.invalid(resource(name), format!("provided resources CPU {list} must be an interger"));
        }
    }
    if memory_request > 0 && memory_limit > 0 && memory_request != memory_limit {
        let message =
            format!("{} must be equal to {}", resource("requests.memory"), resource("limits.memory"));
        causes.invalid(resource("requests.memory"), message);
    }
    let (requests, limits) = (resource("requests.cpu"), resource("limits.cpu"));
    let (cores_field, field) = (at.child("domain.cpu.cores"), at.child("domain.cpu.dedicatedCpuPlacement"));
    let vcpus = vcpus(cpu);
    let (request, limit) = (cores(request), cores(limit));
    if request == 0 && limit == 0 && vcpus == 0 {
        let message = format!(
            "either {requests} or {limits} or {cores_field} must be provided when DedicatedCPUPlacement is true "
        );
        causes.invalid(&field, message);
    }
    if request > 0 && limit > 0 && request != limit {
        causes.invalid(
            &field,
            format!("{requests} or {limits} must be equal when DedicatedCPUPlacement is true "),
        );
    }
    if (request > 0 || limit > 0) && vcpus > 0 && request != vcpus && limit != vcpus {
        let message = format!(
            "{requests} or {limits} must not be provided at the same time with {cores_field} when DedicatedCPUPlacement is true "
        );
        causes.invalid(&field, message);
    }
    if let Some(threads) = cpu.threads.filter(|&threads| threads > 2) {
        let message = format!(
            "Not more than two threads must be provided at {} (got {threads}) when DedicatedCPUPlacement is true",
            at.child("domain.cpu.threads")
        );
        causes.invalid(&field, message);
    }
}

/// The vCPUs that are asked for by sockets, cores and threads; 0 where none of them is given.
fn vcpus(cpu: &Cpu) -> u64 {
    let given = [cpu.sockets, cpu.cores, cpu.threads].map(|count| count.filter(|&count| count > 0));
    if given.iter().all(Option::is_none) {
        return 0;
    }
    given.iter().map(|count| u64::from(count.unwrap_or(1))).fold(1, u64::saturating_mul)
}

fn numa(at: &Path, domain: &DomainSpec, cpu: &Cpu, dedicated: bool, causes: &mut Causes) {
    if !maps_nodes(cpu) {
        return;
    }
    let field = at.child("domain.cpu.numa.guestMappingPassthrough");
    if !dedicated {
        let needed = at.child("domain.cpu.dedicatedCpuPlacement");
        causes.invalid(
            &field,
            format!("{needed} must be set to true when NUMA topology strategy is set in {field}"),
        );
    }
    if domain.memory.as_ref().and_then(|memory| memory.hugepages.as_ref()).is_none() {
        let needed = at.child("domain.memory.hugepages");
        causes.invalid(
            &field,
            format!("{needed} must be requested when NUMA topology strategy is set in {field}"),
        );
    }
}

fn maps_nodes(cpu: &Cpu) -> bool {
    cpu.numa.as_ref().is_some_and(|numa| numa.guest_mapping_passthrough.is_some())
}

fn realtime(at: &Path, cpu: &Cpu, dedicated: bool, causes: &mut Causes) {
    let realtime = at.child("domain.cpu.realtime");
    if !dedicated {
        let field = at.child("domain.cpu.dedicatedCpuPlacement");
        causes.required(&field, format!("{field} must be set to true when {realtime} is used"));
    }
    if !maps_nodes(cpu) {
        let field = at.child("domain.cpu.numa.guestMappingPassthrough");
        causes.required(&field, format!("{field} must be defined when {realtime} is used"));
    }
}
