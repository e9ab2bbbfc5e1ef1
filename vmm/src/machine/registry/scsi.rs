//! The SCSI controller, with a target for each disk on its bus.

use orlop_api::config::{CdromConfig, DiskBus, DiskConfig, TrayPosition, VmConfig};
use orlop_api::device::DeviceKind;
use orlop_scsi::SERIAL_MAX_BYTES;
use orlop_virtio_scsi::{
    Config, QUEUE_SIZE_MAX, QUEUE_SIZE_MIN, QUEUES_MAX, UNITS_MAX, UnitConfig, UnitKind, build,
};

use super::image::{self, Image};
use super::{Built, Controls, DeviceError, Grow, Member, Spec, Wanted};
use crate::machine::files::Files;
use crate::machine::plan::{PlanError, check};

#[derive(Debug)]
struct Controller {
    units: Vec<Unit>,
    queues: u16,
    queue_size: u16,
}

#[derive(Debug)]
struct Unit {
    id: String,
    field: String,
    image: Image,
    serial: String,
    cdrom: Option<CdromConfig>,
}

/// One controller, where the configuration has disks on its bus: as many queues as the disk that wants the most.
pub fn row(config: &VmConfig) -> Result<Vec<Wanted>, PlanError> {
    let disks: Vec<(usize, &DiskConfig)> = image::on(config, DiskBus::Scsi).collect();
    let Some((first, _)) = disks.first() else { return Ok(Vec::new()) };
    let field = format!("disks[{first}]");
    if let Some((extra, _)) = disks.get(UNITS_MAX) {
        let problem = format!("the scsi bus has room for {UNITS_MAX} disks");
        return Err(PlanError::new(format!("disks[{extra}].bus"), problem));
    }
    let (mut queues, mut queue_size) = (1, QUEUE_SIZE_MIN);
    for (index, disk) in &disks {
        let at = |name: &str| format!("disks[{index}].{name}");
        check::between(disk.queues, 1, QUEUES_MAX, &at("queues"))?;
        check::queue_size(disk.queue_size, QUEUE_SIZE_MIN, QUEUE_SIZE_MAX, &at("queue_size"))?;
        (queues, queue_size) = (queues.max(disk.queues), queue_size.max(disk.queue_size));
    }
    let units = disks.iter().map(|(index, disk)| unit(*index, disk)).collect::<Result<_, _>>()?;
    let spec = Box::new(Controller { units, queues, queue_size });
    Ok(vec![Wanted { id: "scsi".to_owned(), field, kind: DeviceKind::Scsi, spec }])
}

fn unit(index: usize, disk: &DiskConfig) -> Result<Unit, PlanError> {
    let field = format!("disks[{index}]");
    let image = Image::of(disk, &field)?;
    image::only_virtio(disk, &field)?;
    let serial = disk.serial.clone().unwrap_or_else(|| disk.id.chars().take(SERIAL_MAX_BYTES).collect());
    image::serial(&serial, SERIAL_MAX_BYTES, &format!("{field}.serial"))?;
    Ok(Unit { id: disk.id.clone(), field, image, serial, cdrom: disk.cdrom.clone() })
}

impl Spec for Controller {
    fn build(self: Box<Self>, files: &mut Files) -> Result<Built, DeviceError> {
        let Self { units, queues, queue_size } = *self;
        let mut configs = Vec::new();
        for Unit { image, serial, cdrom, field, .. } in &units {
            let kind = match cdrom {
                Some(CdromConfig { tray }) => {
                    let medium = image.medium(files).map_err(|e| e.at(field))?;
                    UnitKind::Cdrom { medium, open: *tray == TrayPosition::Open }
                }
                None => {
                    let disk = image.open(files).map_err(|e| e.at(field))?;
                    let (write_through, errors) = (image.write_through(), image.errors(files));
                    UnitKind::Disk(orlop_scsi::DiskConfig { disk, write_through, errors })
                }
            };
            configs.push(UnitConfig { kind, serial: serial.clone(), engine: image.engine() });
        }
        let name = "scsi".to_owned();
        let config = Config { name, units: configs, queues, queue_size };
        let (parts, handle) = build(config).map_err(DeviceError::of)?;
        let members = units.into_iter().enumerate().map(|(target, unit)| {
            let (counts, tray) = (handle.clone(), handle.tray(target));
            let kind = if tray.is_some() { DeviceKind::Cdrom } else { DeviceKind::Disk };
            let disk = handle.clone();
            let grow: Grow = Box::new(move |size_bytes| disk.grow(target, size_bytes));
            let grow = tray.is_none().then_some(grow);
            Member { id: unit.id, kind, counters: Box::new(move || counts.counters(target)), tray, grow }
        });
        let members = members.collect();
        Ok(Built { members, ..Built::virtio(parts, Controls::default()) })
    }

    fn members(&self) -> Vec<(String, String)> {
        self.units.iter().map(|unit| (unit.id.clone(), unit.field.clone())).collect()
    }
}
