//! Disks and the volumes behind them.

use std::collections::{BTreeMap, BTreeSet};

use orlop_api::config::{
    BlockSize, CdromConfig, DiskBus, DiskConfig, DiskIo, ErrorPolicy, FileSource, ImageFormat, TrayPosition,
};
use orlop_crd::VirtualMachineInstanceSpec;
use orlop_crd::disks::{Disk, DiskBus as Bus, DiskCache, DiskErrorPolicy, DiskIo as Io, Tray};

use super::volumes::{self, Around};
use super::{FileWant, Refusal};

/// Requests per queue.
const QUEUE_SIZE: u16 = 256;
/// The smallest sector in bytes.
const SECTOR_BYTES: u32 = 512;
/// The largest logical sector in bytes: Linux wants one to fit a page.
const BLOCK_MAX_BYTES: u32 = 4096;
/// The largest physical sector in bytes, which is KubeVirt's limit.
const PHYSICAL_MAX_BYTES: u32 = 2 << 20;
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
        let volume = spec.volumes.iter().enumerate().find(|(_, v)| v.name == disk.name);
        if volume.is_none() && disk.cdrom.is_none() {
            let reason = format!("there is no volume '{}'", disk.name);
            refusals.push(Refusal::new(format!("{path}.name"), reason));
            continue;
        }
        let Some(target) = target(disk, &path, refusals) else { continue };
        let options = options(disk, &target, spec, &path, refusals);
        let id = format!("disk-{}", disk.name);
        let config = |source: Option<FileSource>, format: ImageFormat, read_only: bool| DiskConfig {
            id: id.clone(),
            source,
            bus: target.bus,
            cdrom: target.cdrom.clone(),
            format,
            backing: Vec::new(),
            overlay: None,
            read_only,
            serial: disk.serial.clone(),
            queues,
            queue_size: QUEUE_SIZE,
            direct: options.direct,
            write_through: options.write_through,
            io: options.io,
            shared: options.shared,
            block_size: options.block_size,
            error_policy: options.error_policy,
            bandwidth_limit: None,
            operations_limit: None,
        };
        let Some((number, volume)) = volume else {
            // A drive without a volume is empty, as with KubeVirt.
            disks.push(config(None, ImageFormat::Raw, true));
            continue;
        };
        let volume_path = format!("spec.volumes[{number}]");
        if options.shared && volume.host_disk.is_none() {
            let reason = "nobody else can have this volume: only a hostDisk can be shared";
            refusals.push(Refusal::new(format!("{path}.shareable"), reason));
        }
        match volumes::file(volume, target.read_only, around, &volume_path) {
            Ok(Some((want, read_only))) => {
                // No guest has written to a disk that comes out of an image: only there may its format be looked for.
                let format = match want {
                    FileWant::ImageDisk { .. } => ImageFormat::Detect,
                    _ => ImageFormat::Raw,
                };
                files.insert(id.clone(), want);
                disks.push(config(Some(FileSource::Fd(id.clone())), format, read_only));
            }
            // Another kind of volume: the table of fields has refused it.
            Ok(None) => {}
            Err(refusal) => refusals.push(refusal),
        }
    }
    disks
}

/// How a disk's requests are carried out.
struct DiskOptions {
    direct: bool,
    write_through: bool,
    io: DiskIo,
    shared: bool,
    block_size: Option<BlockSize>,
    error_policy: ErrorPolicy,
}

/// What `disk` asks for. What is unset is KubeVirt's default, where a guest could tell.
fn options(
    disk: &Disk,
    target: &Target,
    spec: &VirtualMachineInstanceSpec,
    path: &str,
    refusals: &mut Vec<Refusal>,
) -> DiskOptions {
    let mut refuse =
        |field: &str, reason: &str| refusals.push(Refusal::new(format!("{path}.{field}"), reason));
    let cdrom = target.cdrom.is_some();
    let shared = disk.shareable.unwrap_or(false);
    if shared && !matches!(disk.cache, None | Some(DiskCache::None)) {
        refuse("cache", "a shareable disk requires cache = none: others do not see what this host caches");
    }
    if shared && cdrom {
        refuse("shareable", "a CD-ROM is only read, and many may do so");
    }
    let alone = spec.domain.devices.disks.iter().filter(|other| is_on_scsi(other)).count() == 1;
    if disk.dedicated_io_thread == Some(true) {
        match target.bus {
            DiskBus::Virtio => {}
            DiskBus::Scsi if alone => {}
            DiskBus::Scsi => {
                refuse("dedicatedIOThread", "the disks of the scsi bus share a thread: say virtio")
            }
            DiskBus::Sata => {
                refuse("dedicatedIOThread", "the disks of the sata bus share a thread: say virtio")
            }
        }
    }
    let error_policy = match (disk.error_policy, cdrom) {
        (None, true) => ErrorPolicy::Report,
        (None | Some(DiskErrorPolicy::Stop), false) => ErrorPolicy::Stop,
        (Some(DiskErrorPolicy::Report), _) => ErrorPolicy::Report,
        (Some(DiskErrorPolicy::Ignore), false) => ErrorPolicy::Ignore,
        (Some(DiskErrorPolicy::Enospace), false) => ErrorPolicy::StopWhenFull,
        (Some(_), true) => {
            refuse("errorPolicy", "a CD-ROM drive reports its errors to the guest");
            ErrorPolicy::Report
        }
    };
    let block_size = block_size(disk, cdrom, &mut refuse);
    DiskOptions {
        direct: shared || disk.cache == Some(DiskCache::None),
        write_through: disk.cache == Some(DiskCache::Writethrough),
        io: match disk.io {
            None | Some(Io::Default | Io::Native) => DiskIo::Auto,
            Some(Io::Threads) => DiskIo::Synchronous,
        },
        shared,
        block_size,
        error_policy,
    }
}

fn is_on_scsi(disk: &Disk) -> bool {
    let plain = disk.disk.as_ref().and_then(|disk| disk.bus);
    let drive = disk.cdrom.as_ref().and_then(|cdrom| cdrom.bus);
    disk.lun.is_some() || plain == Some(Bus::Scsi) || drive == Some(Bus::Scsi)
}

/// The sector sizes that `disk` asks for.
fn block_size(disk: &Disk, cdrom: bool, refuse: &mut dyn FnMut(&str, &str)) -> Option<BlockSize> {
    let asked = disk.block_size.as_ref()?;
    if cdrom {
        refuse("blockSize", "a CD-ROM has blocks of 2048 bytes");
        return None;
    }
    let matches = asked.match_volume.as_ref().is_some_and(|state| state.enabled.unwrap_or(true));
    let Some(custom) = &asked.custom else { return matches.then_some(BlockSize::Storage {}) };
    if matches {
        refuse("blockSize", "say either custom or matchVolume");
    }
    let logical_bytes = custom.logical.unwrap_or(SECTOR_BYTES);
    let physical_bytes = custom.physical.unwrap_or(logical_bytes);
    let fits = |value: u32, least: u32, most: u32| value.is_power_of_two() && (least..=most).contains(&value);
    if !fits(logical_bytes, SECTOR_BYTES, BLOCK_MAX_BYTES) {
        refuse("blockSize.custom.logical", "a guest takes 512, 1024, 2048 or 4096");
    } else if !fits(physical_bytes, logical_bytes, PHYSICAL_MAX_BYTES) {
        refuse("blockSize.custom.physical", "a power of two from the logical size to 2097152 is possible");
    }
    let discard_bytes = custom.discard_granularity;
    let fits = |discard: u32| {
        discard > 0
            && logical_bytes > 0
            && discard.is_multiple_of(logical_bytes)
            && discard <= PHYSICAL_MAX_BYTES
    };
    if !discard_bytes.is_none_or(fits) {
        let reason = "a multiple of the logical size up to 2097152 is possible";
        refuse("blockSize.custom.discardGranularity", reason);
    }
    Some(BlockSize::Custom { logical_bytes, physical_bytes, discard_bytes })
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

#[cfg(test)]
mod tests;
