//! Images behind disks, whichever bus those are on.

use std::path::Path;

use orlop_api::config::{DiskBus, DiskConfig, FileSource, VmConfig};
use orlop_disk::{Disk, Options};

use super::DeviceError;
use crate::machine::files::Files;
use crate::machine::plan::{PlanError, check};

/// The disks of the configuration that are on `bus`, with their numbers.
pub fn on(config: &VmConfig, bus: DiskBus) -> impl Iterator<Item = (usize, &DiskConfig)> {
    config.disks.iter().enumerate().filter(move |(_, disk)| disk.bus == bus)
}

/// An image to open.
#[derive(Debug)]
pub struct Image {
    source: FileSource,
    options: Options,
}

impl Image {
    /// The image of `disk`, which is at `field` of the configuration.
    pub fn of(disk: &DiskConfig, field: &str) -> Result<Self, PlanError> {
        check::source(&disk.source, &format!("{field}.source"))?;
        let read_only = disk.read_only || disk.cdrom.is_some();
        Ok(Self { source: disk.source.clone(), options: Options { read_only, direct: disk.direct } })
    }

    /// Opens it.
    pub fn open(&self, files: &mut Files) -> Result<Disk, DeviceError> {
        let disk = match &self.source {
            FileSource::Path(path) => Disk::open(Path::new(path), self.options),
            FileSource::Fd(fd) => Disk::from_fd(files.descriptor(fd)?, fd, self.options),
        };
        disk.map_err(DeviceError::of)
    }
}

/// The serial number of a disk.
pub fn serial(serial: &str, most: usize, field: &str) -> Result<(), PlanError> {
    let printable = serial.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    check::ensure(printable && serial.len() <= most, field, || {
        format!("'{serial}' is not at most {most} printable ASCII characters")
    })
}

/// What only the virtio bus has, refused elsewhere.
pub fn only_virtio(disk: &DiskConfig, field: &str) -> Result<(), PlanError> {
    let refused = [("bandwidth_limit", disk.bandwidth_limit), ("operations_limit", disk.operations_limit)];
    refused.into_iter().try_for_each(|(name, limit)| {
        check::ensure(limit.is_none(), &format!("{field}.{name}"), || {
            "only disks on the virtio bus have limits".to_owned()
        })
    })
}
