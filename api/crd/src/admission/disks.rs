//! Disks, by themselves and against the volumes behind them.

use std::collections::{HashMap, HashSet};

use super::cause::{Causes, Path};
use super::names;
use super::spec::{MAX_SERIAL_BYTES, too_long, wrong_characters};
use crate::disks::{BlockSize, Disk, DiskBus};
use crate::features::FeatureState;
use crate::vmi::VirtualMachineInstanceSpec;
use crate::volumes::Volume;

/// Bounds of sector sizes, in bytes.
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 512..=2 << 20;

/// Disks and interfaces against volumes: each disk has one, and boot orders are unique.
pub(super) fn against_volumes(at: &Path, spec: &VirtualMachineInstanceSpec, causes: &mut Causes) {
    let volumes: HashMap<&str, &Volume> =
        spec.volumes.iter().map(|volume| (volume.name.as_str(), volume)).collect();
    let mut orders = HashSet::new();
    for (index, disk) in spec.domain.devices.disks.iter().enumerate() {
        let field = at.child("domain.devices.disks").index(index);
        match volumes.get(disk.name.as_str()) {
            None => {
                let message = format!("{} '{}' not found.", field.child("Name"), disk.name);
                causes.invalid(field.child("name"), message);
            }
            Some(volume) => behind(&field, disk, volume, causes),
        }
        boot_order(&field, disk.boot_order, &mut orders, causes);
    }
    for (index, interface) in spec.domain.devices.interfaces.iter().enumerate() {
        let field = at.child("domain.devices.interfaces").index(index);
        if interface.boot_order == Some(0) {
            let short = at.index(index);
            let message = format!("{short} must have a boot order > 0, if supplied");
            causes.invalid(short.child("bootOrder"), message);
        }
        boot_order(&field, interface.boot_order.filter(|&order| order > 0), &mut orders, causes);
    }
}

/// What a disk asks of the volume behind it.
fn behind(field: &Path, disk: &Disk, volume: &Volume, causes: &mut Causes) {
    if disk.lun.is_some() && volume.persistent_volume_claim.is_none() && volume.data_volume.is_none() {
        let lun = field.child("lun");
        causes.invalid(
            &lun,
            format!("{lun} can only be mapped to a DataVolume or PersistentVolumeClaim volume."),
        );
    }
    if volume.downward_metrics.is_none() {
        return;
    }
    match &disk.disk {
        None => {
            let field = field.child("disk");
            let message =
                format!("DownwardMetrics volume must be mapped to a disk, but disk is not set on {field}.");
            causes.required(&field, message);
        }
        Some(target) => {
            if let Some(bus) = target.bus.filter(|&bus| bus != DiskBus::Virtio) {
                let field = field.child("disk.bus");
                let message = format!(
                    "DownwardMetrics volume must be mapped to virtio bus, but {field} is set to {}",
                    bus_name(bus)
                );
                causes.invalid(&field, message);
            }
        }
    }
}

fn boot_order(field: &Path, order: Option<u32>, orders: &mut HashSet<u32>, causes: &mut Causes) {
    if order.is_some_and(|order| !orders.insert(order)) {
        let field = field.child("bootOrder");
        causes.invalid(&field, format!("Boot order for {field} already set for a different device."));
    }
}

fn bus_name(bus: DiskBus) -> &'static str {
    match bus {
        DiskBus::Sata => "sata",
        DiskBus::Scsi => "scsi",
        DiskBus::Usb => "usb",
        DiskBus::Virtio => "virtio",
    }
}

/// The list of disks at `at`, by itself.
pub(super) fn check(at: &Path, disks: &[Disk], causes: &mut Causes) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (index, disk) in disks.iter().enumerate() {
        let field = at.index(index);
        let other = *first.entry(&disk.name).or_insert(index);
        if other != index {
            let message = format!("{field} and {} must not have the same Name.", at.index(other));
            causes.invalid(field.child("name"), message);
        }
        let targets = [disk.disk.is_some(), disk.lun.is_some(), disk.cdrom.is_some()];
        if targets.iter().filter(|&&set| set).count() > 1 {
            causes.invalid(&field, format!("{field} can only have a single target type defined"));
        }
        if disk.boot_order == Some(0) {
            let message = format!("{field} must have a boot order > 0, if supplied");
            causes.invalid(field.child("bootOrder"), message);
        }
        pci_address(at, index, disk, causes);
        bus(at, index, disk, causes);
        serial(&field, disk, causes);
        for message in names::label(&disk.name) {
            causes.invalid(at.child("domain.devices.disks").index(index).child("name"), message);
        }
        if let Some(size) = &disk.block_size {
            block_size(&field, disk, size, causes);
        }
    }
}

fn pci_address(at: &Path, index: usize, disk: &Disk, causes: &mut Causes) {
    let Some(target) = &disk.disk else { return };
    let Some(address) = target.pci_address.as_deref().filter(|address| !address.is_empty()) else { return };
    // KubeVirt names this one field oddly.
    let odd = at.child("domain.devices.disks.disk").index(index);
    let (name, field) = (odd.child("name"), odd.child("pciAddress"));
    if target.bus != Some(DiskBus::Virtio) {
        let message = format!("disk {name} - setting a PCI address is only possible with bus type virtio.");
        causes.invalid(&field, message);
    }
    if !names::is_pci_address(address) {
        causes.invalid(&field, format!("disk {name} has malformed PCI address ({address})."));
    }
}

/// The bus that a disk names, wherever it does.
fn named_bus(disk: &Disk) -> Option<DiskBus> {
    match (&disk.disk, &disk.lun, &disk.cdrom) {
        (Some(target), _, _) => target.bus,
        (_, Some(target), _) => target.bus,
        (_, _, Some(target)) => target.bus,
        _ => None,
    }
}

fn bus(at: &Path, index: usize, disk: &Disk, causes: &mut Causes) {
    let field = at.index(index);
    let Some(bus) = named_bus(disk) else { return };
    if disk.disk.is_none() && disk.lun.is_none() && bus == DiskBus::Virtio {
        causes.invalid(field.child("cdrom.bus"), "Bus type virtio is invalid for CD-ROM device");
    }
    let readonly = disk.disk.as_ref().is_some_and(|target| target.readonly == Some(true));
    if bus == DiskBus::Sata && readonly {
        causes.invalid(field.child("disk.bus"), "sata hard-disks do not support read-only.");
    }
    if disk.dedicated_io_thread == Some(true) && bus != DiskBus::Virtio {
        let message = format!("IOThreads are not supported for disks on a {} bus", bus_name(bus));
        causes.not_supported(at.child("domain.devices.disks").index(index), message);
    }
}

fn serial(field: &Path, disk: &Disk, causes: &mut Causes) {
    let Some(serial) = disk.serial.as_deref().filter(|serial| !serial.is_empty()) else { return };
    if !names::is_serial(serial) {
        causes.invalid(field.child("serial"), wrong_characters(field));
    }
    if serial.chars().count() > MAX_SERIAL_BYTES {
        causes.invalid(field.child("serial"), too_long(field));
    }
}

fn block_size(field: &Path, disk: &Disk, size: &BlockSize, causes: &mut Causes) {
    let Some(custom) = &size.custom else { return };
    let matches = |state: &FeatureState| state.enabled != Some(false);
    if size.match_volume.as_ref().is_some_and(matches) {
        let message = "Block size matching can't be enabled together with a custom value";
        causes.invalid(field.child("blockSize"), message);
        return;
    }
    let custom_field = field.child("blockSize.custom");
    let (logical, physical) = (custom.logical.unwrap_or(0), custom.physical.unwrap_or(0));
    let granularity = custom.discard_granularity.unwrap_or(0);
    if logical > physical {
        let message =
            format!("Logical size {logical} must be the same or less than the physical size of {physical}");
        causes.invalid(custom_field.child("logical"), message);
    } else if named_bus(disk) == Some(DiskBus::Sata) && logical != *BLOCK_BYTES.start() {
        let message = format!("Logical size {logical} must be {} for SATA devices", BLOCK_BYTES.start());
        causes.invalid(custom_field.child("logical"), message);
    } else if granularity.checked_rem(logical).is_some_and(|rest| rest != 0) {
        let message =
            format!("Discard granularity {granularity} must be multiples of logical size {logical}");
        causes.invalid(custom_field.child("discardGranularity"), message);
    } else {
        for (name, size) in [("logical", logical), ("physical", physical)] {
            if let Some(message) = wrong_size(size) {
                causes.invalid(custom_field.child(name), message);
            }
        }
    }
}

fn wrong_size(size: u32) -> Option<String> {
    if size < *BLOCK_BYTES.start() {
        Some(format!(
            "Provided size of {size} is less than the supported minimum size of {}",
            BLOCK_BYTES.start()
        ))
    } else if size > *BLOCK_BYTES.end() {
        Some(format!(
            "Provided size of {size} is greater than the supported maximum size of {}",
            BLOCK_BYTES.end()
        ))
    } else if !size.is_power_of_two() {
        Some(format!("Provided size of {size} is not a power of 2"))
    } else {
        None
    }
}
