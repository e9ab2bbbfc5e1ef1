//! The rules that an instance's spec keeps, wherever it stands: in an instance, or in the template of a machine or a
//! replica set.

use super::cause::{Causes, Path};
use super::names;
use super::site::{Site, fits};
use super::{cpu, credentials, disks, memory, network, pod, volumes};
use crate::domain::DomainSpec;
use crate::firmware::{Firmware, KernelBoot};
use crate::vmi::VirtualMachineInstanceSpec;

/// Elements that a list may have (KubeVirt's limit).
pub(super) const MAX_LIST: usize = 256;
/// Bytes that a serial number may have.
pub(super) const MAX_SERIAL_BYTES: usize = 256;

/// All rules of a spec at `at`.
pub(super) fn check(at: &Path, spec: &VirtualMachineInstanceSpec, site: &Site) -> Causes {
    let mut causes = Causes::default();
    // Nobody reads beyond a list that is too long.
    let lists = [
        ("domain.devices.disks", spec.domain.devices.disks.len()),
        ("volumes", spec.volumes.len()),
        ("domain.devices.interfaces", spec.domain.devices.interfaces.len()),
        ("networks", spec.networks.len()),
    ];
    for (name, len) in lists {
        if len > MAX_LIST {
            let field = at.child(name);
            causes.invalid(&field, format!("{field} list exceeds the {MAX_LIST} element limit in length"));
            return causes;
        }
    }
    pod::names(at, spec, &mut causes);
    memory::check(at, &spec.domain, &mut causes);
    machine(at, spec, site, &mut causes);
    cpu::check(at, spec, &mut causes);
    pod::start(at, spec, &mut causes);
    disks::against_volumes(at, spec, &mut causes);
    network::check(at, spec, site, &mut causes);
    pod::probes(at, spec, &mut causes);
    domain(&at.child("domain"), &spec.domain, &mut causes);
    volumes::check(&at.child("volumes"), &spec.volumes, site, &mut causes);
    credentials::check(&at.child("accessCredentials"), spec, &mut causes);
    pod::dns(at, spec, &mut causes);
    gates(at, spec, site, &mut causes);
    causes
}

/// What a domain must keep by itself, also in a preset.
pub(super) fn domain(at: &Path, domain: &DomainSpec, causes: &mut Causes) {
    disks::check(&at.child("devices.disks"), &domain.devices.disks, causes);
    if let Some(firmware) = &domain.firmware {
        self::firmware(&at.child("firmware"), firmware, causes);
    }
}

fn machine(at: &Path, spec: &VirtualMachineInstanceSpec, site: &Site, causes: &mut Causes) {
    let domain = &spec.domain;
    if let Some(name) = domain.machine.as_ref().and_then(|machine| machine.r#type.as_deref())
        && !name.is_empty()
        && !site.emulated_machines.iter().any(|pattern| fits(pattern, name))
    {
        let field = at.child("domain.machine.type");
        let allowed = site.emulated_machines.join(" ");
        causes.invalid(&field, format!("{field} is not supported: {name} (allowed values: [{allowed}])"));
    }
    let serial = domain.firmware.as_ref().and_then(|firmware| firmware.serial.as_deref());
    if let Some(serial) = serial.filter(|serial| !serial.is_empty()) {
        let field = at.child("domain.firmware.serial");
        if serial.len() > MAX_SERIAL_BYTES {
            causes.invalid(&field, too_long(&field));
        }
        if !names::is_serial(serial) {
            causes.invalid(&field, wrong_characters(&field));
        }
    }
    let efi = domain.firmware.as_ref().and_then(|firmware| firmware.bootloader.as_ref()?.efi.as_ref());
    let smm = domain.features.as_ref().and_then(|features| features.smm.as_ref());
    if efi.is_some_and(|efi| efi.secure_boot != Some(false))
        && smm.is_none_or(|smm| smm.enabled == Some(false))
    {
        let field = at.child("domain");
        causes.invalid(
            &field,
            format!(
                "{field} has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled."
            ),
        );
    }
}

pub(super) fn too_long(field: &Path) -> String {
    format!("{field} must be less than or equal to {MAX_SERIAL_BYTES} in length, if specified")
}

pub(super) fn wrong_characters(field: &Path) -> String {
    format!("{field} must be made up of the following characters [A-Za-z0-9_.+-], if specified")
}

fn firmware(at: &Path, firmware: &Firmware, causes: &mut Causes) {
    if firmware.bootloader.as_ref().is_some_and(|loader| loader.efi.is_some() && loader.bios.is_some()) {
        let field = at.child("bootloader");
        causes.invalid(
            &field,
            format!("{field} has both EFI and BIOS configured, but they are mutually exclusive."),
        );
    }
    if let Some(boot) = &firmware.kernel_boot {
        kernel_boot(&at.child("kernelBoot"), boot, causes);
    }
}

fn kernel_boot(at: &Path, boot: &KernelBoot, causes: &mut Causes) {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let Some(container) = &boot.container else {
        if given(&boot.kernel_args).is_some() {
            let message = "kernel arguments cannot be provided without an external kernel";
            causes.invalid(at.child("kernelArgs"), message);
        }
        return;
    };
    let field = at.child("container");
    if container.image.is_empty() {
        causes.required(field.child("image"), format!("{field} must be defined with an image"));
    }
    let (kernel, initrd) = (given(&container.kernel_path), given(&container.initrd_path));
    if kernel.is_none() && initrd.is_none() {
        causes.required(
            &field,
            format!("{field} must be defined with at least one of the following: kernelPath, initrdPath"),
        );
    }
    for (name, path) in [("kernelPath", kernel), ("initrdPath", initrd)] {
        if let Some(path) = path {
            image_path(&field.child(name), &path, causes);
        }
    }
}

/// A path in an image: absolute, of a file, without `.` and `..`.
pub(super) fn image_path(field: &Path, path: &str, causes: &mut Causes) {
    if path == "/" {
        causes.invalid(field, format!("{field} must not point to root"));
        return;
    }
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !trimmed.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain)) {
        let message = format!("{field} must be an absolute path to a file without relative components");
        causes.invalid(field, message);
    }
}

/// What needs a feature gate that is closed.
fn gates(at: &Path, spec: &VirtualMachineInstanceSpec, site: &Site, causes: &mut Causes) {
    let devices = &spec.domain.devices;
    if devices.autoattach_vsock == Some(true) && !site.gate("VSOCK") {
        causes.invalid(
            at.child("domain.devices.autoattachVSOCK"),
            "VSOCK feature gate is not enabled in kubevirt-config",
        );
    }
    if devices.downward_metrics.is_some() && !site.gate("DownwardMetrics") {
        causes.invalid(
            at.child("domain.devices.downwardMetrics"),
            "downwardMetrics virtio serial is not allowed: DownwardMetrics feature gate is not enabled",
        );
    }
    if !devices.host_devices.is_empty() && !site.gate("HostDevices") {
        causes
            .invalid(at.child("HostDevices"), "Host Devices feature gate is not enabled in kubevirt-config");
    }
    if devices.sound.as_ref().is_some_and(|sound| sound.name.is_empty()) {
        causes.invalid(at.child("Sound"), "Sound device requires a name field.");
    }
    let reserves =
        |disk: &crate::disks::Disk| disk.lun.as_ref().is_some_and(|lun| lun.reservation == Some(true));
    if devices.disks.iter().any(reserves) && !site.gate("PersistentReservation") {
        causes.invalid(
            at.child("domain.devices.disks.luns.reservation"),
            "PersistentReservation feature gate is not enabled in kubevirt-config",
        );
    }
}
