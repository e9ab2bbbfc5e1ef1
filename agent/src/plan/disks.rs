//! Disks and the volumes behind them.

use std::collections::{BTreeMap, BTreeSet};

use orlop_api::config::{CdromConfig, DiskBus, DiskConfig, FileSource, ImageFormat, TrayPosition};
use orlop_crd::VirtualMachineInstanceSpec;
use orlop_crd::disks::{Disk, DiskBus as Bus, DiskCache, Tray};

use super::volumes::{self, Around};
use super::{FileWant, Refusal};

/// Requests per queue.
const QUEUE_SIZE: u16 = 256;
/// The most queues that a disk is given, whatever the number of vCPUs.
const QUEUES_MAX: u32 = 16;

/// The disks in the manifest's order, and the files they need.
pub fn plan(
    spec: &VirtualMachineInstanceSpec,
    around: &Around<'_>,
    vcpus: u32,
    files: &mut BTreeMap<String, FileWant>,
    refusals: &mut Vec<Refusal>,
) -> Vec<DiskConfig> {
    let multi_queue = spec.domain.devices.block_multi_queue.unwrap_or(false);
    let queues = if multi_queue { u16::try_from(vcpus.clamp(1, QUEUES_MAX)).unwrap_or(1) } else { 1 };
    check_volumes(spec, refusals);
    let mut disks = Vec::new();
    for (index, disk) in spec.domain.devices.disks.iter().enumerate() {
        let path = format!("spec.domain.devices.disks[{index}]");
        let Some((number, volume)) = spec.volumes.iter().enumerate().find(|(_, v)| v.name == disk.name)
        else {
            let reason = format!("there is no volume '{}'", disk.name);
            refusals.push(Refusal::new(format!("{path}.name"), reason));
            continue;
        };
        let Some(target) = target(disk, &path, refusals) else { continue };
        let volume_path = format!("spec.volumes[{number}]");
        match volumes::file(volume, target.read_only, around, &volume_path) {
            Ok(Some((want, read_only))) => {
                // No guest has written to a disk that comes out of an image: only there may its format be looked for.
                let format = match want {
                    FileWant::ImageDisk { .. } => ImageFormat::Detect,
                    _ => ImageFormat::Raw,
                };
                let id = format!("disk-{}", disk.name);
                files.insert(id.clone(), want);
                disks.push(DiskConfig {
                    id: id.clone(),
                    source: FileSource::Fd(id),
                    bus: target.bus,
                    cdrom: target.cdrom,
                    format,
                    backing: Vec::new(),
                    overlay: None,
                    read_only,
                    serial: disk.serial.clone(),
                    queues,
                    queue_size: QUEUE_SIZE,
                    direct: disk.cache == Some(DiskCache::None),
                    bandwidth_limit: None,
                    operations_limit: None,
                });
            }
            // Another kind of volume: the table of fields has refused it.
            Ok(None) => {}
            Err(refusal) => refusals.push(refusal),
        }
        if disk.cache == Some(DiskCache::Writethrough) {
            refusals.push(Refusal::new(
                format!("{path}.cache"),
                "writethrough is not there: say none or writeback",
            ));
        }
    }
    disks
}

/// How the guest finds a disk.
struct Target {
    bus: DiskBus,
    cdrom: Option<CdromConfig>,
    read_only: bool,
}

/// What `disk` asks for; none where that was refused. An unset bus is sata, as KubeVirt has it.
fn target(disk: &Disk, path: &str, refusals: &mut Vec<Refusal>) -> Option<Target> {
    let mut refuse = |field: &str, reason: &str| {
        refusals.push(Refusal::new(format!("{path}.{field}"), reason));
        None
    };
    if let Some(cdrom) = &disk.cdrom {
        if cdrom.readonly == Some(false) {
            return refuse("cdrom.readonly", "a CD-ROM cannot be written to");
        }
        let bus = match cdrom.bus {
            None | Some(Bus::Sata) => DiskBus::Sata,
            Some(Bus::Scsi) => DiskBus::Scsi,
            Some(Bus::Virtio | Bus::Usb) => {
                return refuse("cdrom.bus", "CD-ROM drives are on the sata and scsi buses");
            }
        };
        let tray = match cdrom.tray {
            Some(Tray::Open) => TrayPosition::Open,
            Some(Tray::Closed) | None => TrayPosition::Closed,
        };
        return Some(Target { bus, cdrom: Some(CdromConfig { tray }), read_only: true });
    }
    if let Some(lun) = &disk.lun {
        if !matches!(lun.bus, None | Some(Bus::Scsi)) {
            return refuse("lun.bus", "LUNs are on the scsi bus");
        }
        return Some(Target { bus: DiskBus::Scsi, cdrom: None, read_only: lun.readonly.unwrap_or(false) });
    }
    let plain = disk.disk.as_ref();
    let bus = match plain.and_then(|d| d.bus) {
        Some(Bus::Virtio) => DiskBus::Virtio,
        Some(Bus::Scsi) => DiskBus::Scsi,
        None | Some(Bus::Sata) => DiskBus::Sata,
        Some(Bus::Usb) => return refuse("disk.bus", "there is no usb: say virtio, scsi or sata"),
    };
    Some(Target { bus, cdrom: None, read_only: plain.and_then(|d| d.readonly).unwrap_or(false) })
}

/// Each volume has a name of its own and a disk that shows it.
fn check_volumes(spec: &VirtualMachineInstanceSpec, refusals: &mut Vec<Refusal>) {
    let mut seen = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().enumerate() {
        let path = format!("spec.volumes[{index}].name");
        if !seen.insert(&volume.name) {
            refusals.push(Refusal::new(path.clone(), format!("'{}' is there twice", volume.name)));
        }
        if !spec.domain.devices.disks.iter().any(|d| d.name == volume.name) {
            let reason = format!(
                "no disk shows '{}': list it in spec.domain.devices.disks with disk: {{bus: virtio}}",
                volume.name
            );
            refusals.push(Refusal::new(path, reason));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, disk) in spec.domain.devices.disks.iter().enumerate() {
        if !seen.insert(&disk.name) {
            let path = format!("spec.domain.devices.disks[{index}].name");
            refusals.push(Refusal::new(path, format!("'{}' is there twice", disk.name)));
        }
    }
}
