//! Drives behind a controller, sata or scsi: disks and CD-ROM drives.

use orlop_api::config::{CdromConfig, DiskBus, DiskConfig, TrayPosition, VmConfig};
use orlop_api::device::DeviceKind;
use orlop_scsi::{DriveConfig, DriveKind, Tray};

use super::image::{self, Image};
use super::{DeviceError, Grow, Member};
use crate::machine::files::Files;
use crate::machine::plan::PlanError;

/// A bus with a controller of its own.
pub struct Bus {
    /// Which.
    pub bus: DiskBus,
    /// Its name in messages.
    pub name: &'static str,
    /// How many drives it has room for.
    pub drives_max: usize,
    /// The longest serial number of a drive on it, in bytes.
    pub serial_max_bytes: usize,
}

/// A drive, and the disk of the configuration that it is.
#[derive(Debug)]
pub struct Drive {
    id: String,
    field: String,
    image: Image,
    serial: String,
    cdrom: Option<CdromConfig>,
}

impl Bus {
    /// The disks of the configuration on this bus, with their numbers: as many as it has room for.
    pub fn disks<'c>(&self, config: &'c VmConfig) -> Result<Vec<(usize, &'c DiskConfig)>, PlanError> {
        let disks: Vec<(usize, &DiskConfig)> = image::on(config, self.bus).collect();
        match disks.get(self.drives_max) {
            None => Ok(disks),
            Some((extra, _)) => {
                let problem = format!("the {} bus has room for {} disks", self.name, self.drives_max);
                Err(PlanError::new(format!("disks[{extra}].bus"), problem))
            }
        }
    }

    /// The drives that `disks` are.
    pub fn drives(&self, disks: &[(usize, &DiskConfig)]) -> Result<Vec<Drive>, PlanError> {
        disks.iter().map(|(index, disk)| self.drive(*index, disk)).collect()
    }

    fn drive(&self, index: usize, disk: &DiskConfig) -> Result<Drive, PlanError> {
        let field = format!("disks[{index}]");
        let image = Image::of(disk, &field)?;
        image::only_virtio(disk, &field)?;
        let serial =
            disk.serial.clone().unwrap_or_else(|| disk.id.chars().take(self.serial_max_bytes).collect());
        image::serial(&serial, self.serial_max_bytes, &format!("{field}.serial"))?;
        Ok(Drive { id: disk.id.clone(), field, image, serial, cdrom: disk.cdrom.clone() })
    }
}

impl Drive {
    /// Opens what is in it.
    pub fn open(&self, files: &mut Files) -> Result<DriveConfig, DeviceError> {
        let Self { image, serial, cdrom, field, .. } = self;
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
        Ok(DriveConfig { kind, serial: serial.clone(), engine: image.engine() })
    }

    /// Its name in the machine, and its field of the configuration.
    pub fn place(&self) -> (String, String) {
        (self.id.clone(), self.field.clone())
    }

    /// Itself as a member of the built controller: what it counts, the tray if it has one, and what makes a disk longer.
    pub fn member(
        self,
        counters: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send>,
        tray: Option<Box<dyn Tray>>,
        grow: Grow,
    ) -> Member {
        let kind = if tray.is_some() { DeviceKind::Cdrom } else { DeviceKind::Disk };
        let grow = tray.is_none().then_some(grow);
        Member { id: self.id, kind, counters, tray, grow }
    }
}
