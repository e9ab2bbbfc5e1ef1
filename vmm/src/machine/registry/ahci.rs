//! The AHCI controller, with a port for each disk on the sata bus.

use std::sync::Arc;

use orlop_ahci::{
    ABAR_BYTES, Ahci, Config, Controller, DriveConfig, DriveKind, PORTS_MAX, Platform, SERIAL_MAX_BYTES, build,
};
use orlop_api::config::{CdromConfig, DiskBus, DiskConfig, TrayPosition, VmConfig};
use orlop_api::device::DeviceKind;
use orlop_pci::Bdf;

use super::image::{self, Image};
use super::{
    Around, Built, Card, Controls, DeviceError, Grow, Inspected, Live, Member, Seat, Spec, TellFault, Wanted,
};
use crate::machine::files::Files;
use crate::machine::plan::PlanError;

/// Where Q35 has its AHCI controller.
const PLACE: Bdf = Bdf { bus: 0, device: 0x1f, function: 2 };

#[derive(Debug)]
struct Sata {
    drives: Vec<Drive>,
}

#[derive(Debug)]
struct Drive {
    id: String,
    field: String,
    image: Image,
    serial: String,
    cdrom: Option<CdromConfig>,
}

/// One controller, where the configuration has disks on its bus.
pub fn row(config: &VmConfig) -> Result<Vec<Wanted>, PlanError> {
    let disks: Vec<(usize, &DiskConfig)> = image::on(config, DiskBus::Sata).collect();
    let Some((first, _)) = disks.first() else { return Ok(Vec::new()) };
    let field = format!("disks[{first}]");
    if let Some((extra, _)) = disks.get(PORTS_MAX) {
        let problem = format!("the sata bus has room for {PORTS_MAX} disks");
        return Err(PlanError::new(format!("disks[{extra}].bus"), problem));
    }
    let drives = disks.iter().map(|(index, disk)| drive(*index, disk)).collect::<Result<_, _>>()?;
    Ok(vec![Wanted { id: "sata".to_owned(), field, kind: DeviceKind::Ahci, spec: Box::new(Sata { drives }) }])
}

fn drive(index: usize, disk: &DiskConfig) -> Result<Drive, PlanError> {
    let field = format!("disks[{index}]");
    let image = Image::of(disk, &field)?;
    image::only_virtio(disk, &field)?;
    let serial = disk.serial.clone().unwrap_or_else(|| disk.id.chars().take(SERIAL_MAX_BYTES).collect());
    image::serial(&serial, SERIAL_MAX_BYTES, &format!("{field}.serial"))?;
    Ok(Drive { id: disk.id.clone(), field, image, serial, cdrom: disk.cdrom.clone() })
}

impl Spec for Sata {
    fn build(self: Box<Self>, files: &mut Files) -> Result<Built, DeviceError> {
        let mut configs = Vec::new();
        for Drive { image, serial, cdrom, field, .. } in &self.drives {
            let kind = match cdrom {
                Some(CdromConfig { tray }) => {
                    let medium = image.medium(files).map_err(|e| e.at(field))?;
                    DriveKind::Cdrom { medium, open: *tray == TrayPosition::Open }
                }
                None => {
                    let disk = image.open(files).map_err(|e| e.at(field))?;
                    let (write_through, errors) = (image.write_through(), image.errors(files));
                    DriveKind::Disk(orlop_scsi::DiskConfig { disk, write_through, errors })
                }
            };
            configs.push(DriveConfig { kind, serial: serial.clone(), engine: image.engine() });
        }
        let config = Config { name: "sata".to_owned(), drives: configs };
        let controller = build(config).map_err(DeviceError::of)?;
        let members = self.drives.into_iter().enumerate().map(|(port, drive)| {
            let (counts, tray) = (controller.drive(port), controller.tray(port));
            let kind = if tray.is_some() { DeviceKind::Cdrom } else { DeviceKind::Disk };
            let disk = counts.clone();
            let grow: Grow = Box::new(move |size_bytes| disk.grow(size_bytes));
            let grow = tray.is_none().then_some(grow);
            Member { id: drive.id, kind, counters: Box::new(move || counts.counters()), tray, grow }
        });
        let members = members.collect();
        Ok(Built { card: Box::new(controller), controls: Controls::default(), members })
    }

    fn seat(&self) -> Seat {
        Seat::At { bdf: PLACE, bar_bytes: ABAR_BYTES }
    }

    fn members(&self) -> Vec<(String, String)> {
        self.drives.iter().map(|drive| (drive.id.clone(), drive.field.clone())).collect()
    }
}

impl Card for Controller {
    fn plug_in(self: Box<Self>, around: Around) -> Result<Arc<dyn Live>, DeviceError> {
        let Around { ram, msi, hook, bar_address } = around;
        Ok(Ahci::new(*self, Platform { ram, msi, hook, bar_address }).map_err(DeviceError::of)?)
    }
}

impl Live for Ahci {
    fn inspect(&self) -> Inspected {
        Inspected { virtio: None, counters: self.counters() }
    }

    fn on_fault(&self, tell: TellFault) {
        self.on_fault(tell);
    }
}
