//! What admission fills in where nobody said anything, with KubeVirt's defaults.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::memory::bytes;
use super::site::{DefaultInterface, Site};
use crate::cpu::{Cpu, CpuFeature, CpuFeaturePolicy};
use crate::devices::{I6300EsbWatchdog, Input, InputBus, InputType, WatchdogAction};
use crate::disks::{Disk, DiskBus, DiskTarget, Tray};
use crate::domain::{DomainSpec, Machine, Memory, ResourceRequirements};
use crate::features::{FeatureHyperv, FeatureState, Features};
use crate::firmware::ImagePullPolicy;
use crate::network::{Interface, InterfaceBridge, InterfaceMasquerade, Network, PodNetwork};
use crate::probes::Probe;
use crate::quantity;
use crate::status::{VirtualMachineInstanceStatus, VmiPhase};
use crate::vm::VirtualMachine;
use crate::vmi::{Architecture, VirtualMachineInstance, VirtualMachineInstanceSpec};
use crate::vmim::VirtualMachineInstanceMigration;

/// Keeps an instance until its pod is gone.
pub const FINALIZER: &str = "kubevirt.io/foregroundDeleteVirtualMachine";
/// Keeps a migration until both ends know that it is over.
pub const MIGRATION_FINALIZER: &str = "kubevirt.io/migrationJobFinalize";
/// Names a migration's instance.
pub const MIGRATION_LABEL: &str = "kubevirt.io/vmi-name";
/// How PCI addresses are dealt out.
pub const PCI_TOPOLOGY_ANNOTATION: &str = "kubevirt.io/pci-topology-version";
/// User id of the VMM process.
pub const RUNTIME_USER: u32 = 107;
/// The most vCPUs that hot-plug leads to (KubeVirt's limit).
const MAX_VCPUS: u32 = 512;
/// Memory hot-plug needs this much to start with, in bytes.
const MIN_HOTPLUG_BYTES: u64 = 1 << 30;

/// Fills in an instance that is being created, after [`keep_status`](super::instance::keep_status) took out what a
/// user wrote into its status.
pub fn instance(vmi: &mut VirtualMachineInstance, site: &Site) {
    spec(&mut vmi.spec, site);
    let finalizers = vmi.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let annotations = vmi.metadata.annotations.get_or_insert_default();
    annotations.entry(PCI_TOPOLOGY_ANNOTATION.to_owned()).or_insert_with(|| "v3".to_owned());
    let status = vmi.status.get_or_insert_with(VirtualMachineInstanceStatus::default);
    status.phase.get_or_insert(VmiPhase::Pending);
    status.runtime_user.get_or_insert(RUNTIME_USER);
}

/// Fills in a machine that is being created. `uuid` is the firmware's, random, for one that names none.
pub fn machine(vm: &mut VirtualMachine, site: &Site, uuid: &str) {
    let spec = vm.spec.template.spec.get_or_insert_with(VirtualMachineInstanceSpec::default);
    spec.architecture.get_or_insert(site.architecture);
    machine_type(&mut spec.domain, site);
    let firmware = spec.domain.firmware.get_or_insert_default();
    if firmware.uuid.as_deref().unwrap_or_default().is_empty() {
        firmware.uuid = Some(uuid.to_owned());
    }
    firmware.serial.get_or_insert_with(|| uuid.to_owned());
}

/// Fills in a migration that is being created.
pub fn migration(migration: &mut VirtualMachineInstanceMigration) {
    let finalizers = migration.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == MIGRATION_FINALIZER) {
        finalizers.push(MIGRATION_FINALIZER.to_owned());
    }
    if let Some(name) = &migration.spec.vmi_name {
        let labels = migration.metadata.labels.get_or_insert_default();
        labels.insert(MIGRATION_LABEL.to_owned(), name.clone());
    }
}

/// Fills in a spec as it is for a new instance.
pub fn spec(spec: &mut VirtualMachineInstanceSpec, site: &Site) {
    spec.architecture.get_or_insert(site.architecture);
    machine_type(&mut spec.domain, site);
    processors(&mut spec.domain, site);
    memory(&mut spec.domain, site);
    if spec.eviction_strategy.is_none() {
        spec.eviction_strategy = site.eviction_strategy;
    }
    network(spec, site);
    disks(spec);
    images(spec);
    devices(&mut spec.domain);
    features(spec);
    for probe in [&mut spec.liveness_probe, &mut spec.readiness_probe].into_iter().flatten() {
        self::probe(probe);
    }
}

fn machine_type(domain: &mut DomainSpec, site: &Site) {
    let machine = domain.machine.get_or_insert_with(Machine::default);
    if machine.r#type.as_deref().unwrap_or_default().is_empty() {
        machine.r#type = Some(site.machine_type.clone());
    }
}

fn whole_cpus(resources: Option<&ResourceRequirements>) -> Option<u32> {
    let resources = resources?;
    let quantity = resources.limits.get("cpu").or_else(|| resources.requests.get("cpu"))?;
    let cpus = quantity::millis(quantity).ok()?.div_ceil(1000);
    u32::try_from(cpus).ok().filter(|&cpus| cpus > 0)
}

fn processors(domain: &mut DomainSpec, site: &Site) {
    let from_resources = whole_cpus(domain.resources.as_ref());
    let cpu = domain.cpu.get_or_insert_with(Cpu::default);
    let given =
        [cpu.sockets, cpu.cores, cpu.threads].iter().any(|count| count.is_some_and(|count| count > 0));
    let sockets = if given { 1 } else { from_resources.unwrap_or(1) };
    let or = |count: &mut Option<u32>, default| {
        if count.is_none_or(|count| count == 0) {
            *count = Some(default);
        }
    };
    or(&mut cpu.sockets, sockets);
    or(&mut cpu.cores, 1);
    or(&mut cpu.threads, 1);
    if cpu.model.as_deref().unwrap_or_default().is_empty() {
        cpu.model = Some(site.cpu_model.clone().unwrap_or_else(|| "host-model".to_owned()));
    }
    if site.live_update() && cpu.max_sockets.is_none_or(|max| max == 0) {
        let sockets = cpu.sockets.unwrap_or(1);
        let per_socket = cpu.cores.unwrap_or(1).saturating_mul(cpu.threads.unwrap_or(1)).max(1);
        let wished = site.max_cpu_sockets.unwrap_or_else(|| sockets.saturating_mul(site.max_hotplug_ratio));
        let most = (MAX_VCPUS / per_socket).max(sockets);
        cpu.max_sockets = Some(wished.max(sockets).min(most));
    }
}

fn memory(domain: &mut DomainSpec, site: &Site) {
    let from_resources = || {
        let resources = domain.resources.as_ref()?;
        resources.requests.get("memory").or_else(|| resources.limits.get("memory")).cloned()
    };
    let from_pages = || {
        let pages = domain.memory.as_ref()?.hugepages.as_ref()?;
        pages.page_size.clone().map(Quantity)
    };
    let guest = domain.memory.as_ref().and_then(|memory| memory.guest.clone());
    let Some(guest) = guest.or_else(from_resources).or_else(from_pages) else { return };
    let memory = domain.memory.get_or_insert_with(Memory::default);
    memory.guest.get_or_insert_with(|| guest.clone());
    if memory.max_guest.is_none() && site.live_update() && hot_plug_is_possible(domain, &guest) {
        let guest_bytes = bytes(Some(&guest));
        let ceiling = match &site.max_guest {
            Some(max) => Some(max.clone()).filter(|max| bytes(Some(max)) > guest_bytes),
            None => Some(multiple(&guest, site.max_hotplug_ratio)),
        };
        if let Some(memory) = &mut domain.memory {
            memory.max_guest = ceiling;
        }
    }
    let resources = domain.resources.get_or_insert_with(ResourceRequirements::default);
    let requests: &mut BTreeMap<String, Quantity> = &mut resources.requests;
    requests.entry("memory".to_owned()).or_insert(guest);
}

/// Whether more memory can be plugged into a machine like this: KubeVirt leaves out those whose memory is pinned
/// to something, limited, or smaller than [`MIN_HOTPLUG_BYTES`].
fn hot_plug_is_possible(domain: &DomainSpec, guest: &Quantity) -> bool {
    let cpu = domain.cpu.as_ref();
    let numa = cpu.and_then(|cpu| cpu.numa.as_ref()).and_then(|numa| numa.guest_mapping_passthrough.as_ref());
    let realtime = cpu.and_then(|cpu| cpu.realtime.as_ref());
    let limited = domain.resources.as_ref().is_some_and(|resources| resources.limits.contains_key("memory"));
    let aligned = bytes(Some(guest)).is_multiple_of(2 << 20);
    let enough = bytes(Some(guest)) >= MIN_HOTPLUG_BYTES;
    numa.is_none() && realtime.is_none() && domain.launch_security.is_none() && !limited && aligned && enough
}

/// A multiple, in the same unit where that is a whole number.
fn multiple(quantity: &Quantity, times: u32) -> Quantity {
    let end = quantity.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.0.len());
    let (number, unit) = quantity.0.split_at(end);
    let product = number.parse::<u64>().ok().and_then(|number| number.checked_mul(u64::from(times)));
    match product {
        Some(product) if !unit.starts_with(['.', 'e', 'E']) || unit == "E" || unit == "Ei" => {
            Quantity(format!("{product}{unit}"))
        }
        _ => Quantity(bytes(Some(quantity)).saturating_mul(u64::from(times)).to_string()),
    }
}

fn network(spec: &mut VirtualMachineInstanceSpec, site: &Site) {
    let devices = &mut spec.domain.devices;
    if devices.autoattach_pod_interface == Some(false)
        || !devices.interfaces.is_empty()
        || !spec.networks.is_empty()
    {
        return;
    }
    let mut interface = Interface { name: "default".to_owned(), ..Interface::default() };
    match site.default_network_interface {
        DefaultInterface::Bridge => interface.bridge = Some(InterfaceBridge {}),
        DefaultInterface::Masquerade => interface.masquerade = Some(InterfaceMasquerade {}),
    }
    devices.interfaces.push(interface);
    let pod = Some(PodNetwork::default());
    spec.networks.push(Network { name: "default".to_owned(), pod, ..Network::default() });
}

/// Each volume has a disk or a file system, and each disk a target with a bus.
fn disks(spec: &mut VirtualMachineInstanceSpec) {
    let devices = &mut spec.domain.devices;
    let named: HashSet<String> = devices
        .disks
        .iter()
        .map(|disk| disk.name.clone())
        .chain(devices.filesystems.iter().map(|filesystem| filesystem.name.clone()))
        .collect();
    let without =
        spec.volumes.iter().filter(|volume| volume.memory_dump.is_none() && !named.contains(&volume.name));
    devices.disks.extend(without.map(|volume| Disk { name: volume.name.clone(), ..Disk::default() }));
    let bus = match spec.architecture {
        Some(Architecture::Arm64 | Architecture::S390x) => DiskBus::Virtio,
        _ => DiskBus::Sata,
    };
    for disk in &mut devices.disks {
        if let Some(target) = &mut disk.cdrom {
            target.bus.get_or_insert(bus_of_cdrom(bus));
            target.tray.get_or_insert(Tray::Closed);
            target.readonly.get_or_insert(true);
        } else if let Some(target) = &mut disk.lun {
            target.bus.get_or_insert(DiskBus::Scsi);
        } else {
            disk.disk.get_or_insert_with(DiskTarget::default).bus.get_or_insert(bus);
        }
    }
}

/// No CD-ROM is on virtio.
fn bus_of_cdrom(bus: DiskBus) -> DiskBus {
    if bus == DiskBus::Virtio { DiskBus::Scsi } else { bus }
}

fn images(spec: &mut VirtualMachineInstanceSpec) {
    for disk in spec.volumes.iter_mut().filter_map(|volume| volume.container_disk.as_mut()) {
        disk.image_pull_policy.get_or_insert(pull_policy(&disk.image));
    }
    let firmware = spec.domain.firmware.as_mut();
    let container = firmware.and_then(|firmware| firmware.kernel_boot.as_mut()?.container.as_mut());
    if let Some(container) = container {
        container.image_pull_policy.get_or_insert(pull_policy(&container.image));
    }
}

/// `Always` for an image without tag, or with the tag `latest`.
fn pull_policy(image: &str) -> ImagePullPolicy {
    let name = image.rsplit('/').next().unwrap_or(image);
    let tagged = name.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    if tagged { ImagePullPolicy::IfNotPresent } else { ImagePullPolicy::Always }
}

fn devices(domain: &mut DomainSpec) {
    let devices = &mut domain.devices;
    if devices.autoattach_input_device == Some(true) && devices.inputs.is_empty() {
        devices.inputs.push(Input { name: "default-0".to_owned(), ..Input::default() });
    }
    for input in &mut devices.inputs {
        input.bus.get_or_insert(InputBus::Usb);
        input.r#type = InputType::Tablet;
    }
    if let Some(watchdog) = &mut devices.watchdog
        && watchdog.diag288.is_none()
    {
        let model = watchdog.i6300esb.get_or_insert_with(I6300EsbWatchdog::default);
        model.action.get_or_insert(WatchdogAction::Reset);
    }
}

fn features(spec: &mut VirtualMachineInstanceSpec) {
    let arm = spec.architecture == Some(Architecture::Arm64);
    let domain = &mut spec.domain;
    let efi = domain.firmware.as_mut().and_then(|firmware| firmware.bootloader.as_mut()?.efi.as_mut());
    let secure = efi.is_some_and(|efi| {
        if arm {
            efi.secure_boot.get_or_insert(false);
        }
        efi.secure_boot != Some(false)
    });
    let features = domain.features.get_or_insert_with(Features::default);
    features.acpi.get_or_insert(FeatureState { enabled: Some(true) });
    if secure {
        features.smm.get_or_insert(FeatureState { enabled: Some(true) });
    }
    if let Some(hyperv) = &mut features.hyperv
        && self::hyperv(hyperv)
    {
        require_vmx(domain.cpu.get_or_insert_with(Cpu::default));
    }
}

/// Turns on what Hyper-V interfaces need, where nothing was said. Whether nested guests are enlightened.
fn hyperv(hyperv: &mut FeatureHyperv) -> bool {
    let on = |state: Option<&FeatureState>| state.is_some_and(|state| state.enabled != Some(false));
    let turn_on = |state: &mut Option<FeatureState>| {
        state.get_or_insert_with(FeatureState::default).enabled.get_or_insert(true);
    };
    let evmcs = on(hyperv.evmcs.as_ref());
    if evmcs {
        turn_on(&mut hyperv.vapic);
    }
    if hyperv.synictimer.as_ref().is_some_and(|timer| timer.enabled != Some(false)) {
        turn_on(&mut hyperv.synic);
    }
    let flush = hyperv.tlbflush.as_ref().is_some_and(|flush| flush.enabled != Some(false));
    if flush || on(hyperv.ipi.as_ref()) || on(hyperv.synic.as_ref()) {
        turn_on(&mut hyperv.vpindex);
    }
    evmcs
}

fn require_vmx(cpu: &mut Cpu) {
    match cpu.features.iter_mut().find(|feature| feature.name == "vmx") {
        Some(feature) => feature.policy = Some(CpuFeaturePolicy::Require),
        None => {
            let policy = Some(CpuFeaturePolicy::Require);
            cpu.features.push(CpuFeature { name: "vmx".to_owned(), policy });
        }
    }
}

/// As the kubelet's.
fn probe(probe: &mut Probe) {
    let or = |count: &mut Option<u32>, default| {
        if count.is_none_or(|count| count == 0) {
            *count = Some(default);
        }
    };
    or(&mut probe.timeout_seconds, 1);
    or(&mut probe.period_seconds, 10);
    or(&mut probe.success_threshold, 1);
    or(&mut probe.failure_threshold, 3);
}
