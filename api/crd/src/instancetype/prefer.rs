//! A preference put into an instance's spec: it fills in what nobody said.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::VirtualMachinePreferenceSpec;
use super::preference::{DevicePreferences, FirmwarePreferences};
use crate::clock::Clock;
use crate::cpu::Cpu;
use crate::devices::{Devices, PanicDevice};
use crate::disks::{Disk, DiskBus, DiskTarget};
use crate::domain::{DomainSpec, Machine};
use crate::features::Features;
use crate::firmware::{Bios, Bootloader, Efi, Firmware};
use crate::vmi::VirtualMachineInstanceSpec;

/// Fills in the spec of an instance and its metadata.
pub fn fill(
    preference: &VirtualMachinePreferenceSpec,
    spec: &mut VirtualMachineInstanceSpec,
    metadata: &mut ObjectMeta,
) {
    if !preference.annotations.is_empty() {
        let own = metadata.annotations.get_or_insert_default();
        for (name, value) in &preference.annotations {
            own.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    or(&mut spec.architecture, &preference.preferred_architecture);
    or(&mut spec.subdomain, &preference.preferred_subdomain);
    or(&mut spec.termination_grace_period_seconds, &preference.preferred_termination_grace_period_seconds);
    or(&mut spec.domain.launch_security, &preference.preferred_launch_security);
    clock(preference, &mut spec.domain);
    let features = preference.cpu.iter().flat_map(|cpu| &cpu.preferred_cpu_features);
    let features: Vec<_> = features.cloned().collect();
    if !features.is_empty() {
        let cpu = spec.domain.cpu.get_or_insert_with(Cpu::default);
        let named: Vec<String> = cpu.features.iter().map(|feature| feature.name.clone()).collect();
        cpu.features.extend(features.into_iter().filter(|feature| !named.contains(&feature.name)));
    }
    if let Some(devices) = &preference.devices {
        interfaces(devices, spec);
        self::devices(devices, &mut spec.domain.devices);
    }
    if let Some(preferred) = &preference.features {
        let features = spec.domain.features.get_or_insert_with(Features::default);
        or(&mut features.acpi, &preferred.preferred_acpi);
        or(&mut features.apic, &preferred.preferred_apic);
        or(&mut features.hyperv, &preferred.preferred_hyperv);
        or(&mut features.kvm, &preferred.preferred_kvm);
        or(&mut features.pvspinlock, &preferred.preferred_pvspinlock);
        or(&mut features.smm, &preferred.preferred_smm);
    }
    if let Some(preferred) = &preference.firmware {
        firmware(preferred, &mut spec.domain);
    }
    if let Some(preferred) =
        preference.machine.as_ref().and_then(|machine| machine.preferred_machine_type.as_ref())
    {
        let machine = spec.domain.machine.get_or_insert_with(Machine::default);
        if machine.r#type.as_deref().unwrap_or_default().is_empty() {
            machine.r#type = Some(preferred.clone());
        }
    }
}

/// The preferred value, where there is none.
fn or<T: Clone>(field: &mut Option<T>, preferred: &Option<T>) {
    if field.is_none() {
        field.clone_from(preferred);
    }
}

fn clock(preference: &VirtualMachinePreferenceSpec, domain: &mut DomainSpec) {
    let Some(preferred) = &preference.clock else { return };
    let clock = domain.clock.get_or_insert_with(Clock::default);
    if let Some(offset) = &preferred.preferred_clock_offset
        && clock.utc.is_none()
        && clock.timezone.is_none()
    {
        clock.utc.clone_from(&offset.utc);
        clock.timezone.clone_from(&offset.timezone);
    }
    or(&mut clock.timer, &preferred.preferred_timer);
}

fn devices(preferred: &DevicePreferences, devices: &mut Devices) {
    or(&mut devices.use_virtio_transitional, &preferred.preferred_use_virtio_transitional);
    or(&mut devices.block_multi_queue, &preferred.preferred_block_multi_queue);
    or(&mut devices.network_interface_multiqueue, &preferred.preferred_network_interface_multi_queue);
    if preferred.preferred_disable_hotplug.is_some() {
        devices.disable_hotplug = preferred.preferred_disable_hotplug;
    }
    or(&mut devices.rng, &preferred.preferred_rng);
    or(&mut devices.tpm, &preferred.preferred_tpm);
    or(&mut devices.autoattach_graphics_device, &preferred.preferred_autoattach_graphics_device);
    or(&mut devices.autoattach_mem_balloon, &preferred.preferred_autoattach_mem_balloon);
    or(&mut devices.autoattach_pod_interface, &preferred.preferred_autoattach_pod_interface);
    or(&mut devices.autoattach_serial_console, &preferred.preferred_autoattach_serial_console);
    or(&mut devices.autoattach_input_device, &preferred.preferred_autoattach_input_device);
    if let Some(sound) = &mut devices.sound {
        or(&mut sound.model, &preferred.preferred_sound_model);
    }
    if let Some(video) = &mut devices.video {
        or(&mut video.r#type, &preferred.preferred_video_type);
    }
    for input in &mut devices.inputs {
        or(&mut input.bus, &preferred.preferred_input_bus);
    }
    for gpu in &mut devices.gpus {
        or(&mut gpu.virtual_gpu_options, &preferred.preferred_virtual_gpu_options);
    }
    if let Some(model) = preferred.preferred_panic_device_model {
        if devices.panic_devices.is_empty() {
            devices.panic_devices.push(PanicDevice { model: Some(model) });
        }
        for device in &mut devices.panic_devices {
            device.model.get_or_insert(model);
        }
    }
    for disk in &mut devices.disks {
        self::disk(preferred, disk);
    }
}

fn disk(preferred: &DevicePreferences, disk: &mut Disk) {
    if let Some(target) = &mut disk.cdrom {
        or(&mut target.bus, &preferred.preferred_cdrom_bus);
        return;
    }
    if let Some(target) = &mut disk.lun {
        or(&mut target.bus, &preferred.preferred_lun_bus);
        return;
    }
    let target = disk.disk.get_or_insert_with(DiskTarget::default);
    or(&mut target.bus, &preferred.preferred_disk_bus);
    let virtio = target.bus == Some(DiskBus::Virtio);
    or(&mut disk.block_size, &preferred.preferred_disk_block_size);
    or(&mut disk.cache, &preferred.preferred_disk_cache);
    or(&mut disk.io, &preferred.preferred_disk_io);
    if virtio {
        or(&mut disk.dedicated_io_thread, &preferred.preferred_disk_dedicated_io_thread);
    }
}

fn interfaces(preferred: &DevicePreferences, spec: &mut VirtualMachineInstanceSpec) {
    let networks = &spec.networks;
    for interface in &mut spec.domain.devices.interfaces {
        or(&mut interface.model, &preferred.preferred_interface_model);
        let on_pod = networks.iter().any(|network| network.name == interface.name && network.pod.is_some());
        let unbound = matches!(interface.attachment(), Err(crate::choice::ChoiceError::None(_)));
        if on_pod && unbound {
            or(&mut interface.masquerade, &preferred.preferred_interface_masquerade);
        }
    }
}

fn firmware(preferred: &FirmwarePreferences, domain: &mut DomainSpec) {
    let firmware = domain.firmware.get_or_insert_with(Firmware::default);
    let loader = firmware.bootloader.get_or_insert_with(Bootloader::default);
    let free = loader.bios.is_none() && loader.efi.is_none();
    if free && preferred.preferred_use_bios == Some(true) {
        loader.bios = Some(Bios::default());
    }
    if let Some(bios) = &mut loader.bios {
        or(&mut bios.use_serial, &preferred.preferred_use_bios_serial);
        return;
    }
    if loader.efi.is_none() && preferred.preferred_efi.is_some() {
        loader.efi.clone_from(&preferred.preferred_efi);
        return;
    }
    if loader.efi.is_none() && preferred.preferred_use_efi == Some(true) {
        loader.efi = Some(Efi::default());
    }
    if let Some(efi) = &mut loader.efi {
        or(&mut efi.secure_boot, &preferred.preferred_use_secure_boot);
    }
}
