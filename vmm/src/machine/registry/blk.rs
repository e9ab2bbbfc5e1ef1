//! Block devices.

use orlop_api::config::{DiskBus, DiskConfig, RateLimit, VmConfig};
use orlop_api::device::DeviceKind;
use orlop_virtio_blk::{Config, Limits, QUEUE_SIZE_MAX, QUEUE_SIZE_MIN, QUEUES_MAX, SERIAL_MAX_BYTES, build};

use super::image::{self, Image};
use super::{Built, Controls, DeviceError, Spec, Wanted};
use crate::machine::files::Files;
use crate::machine::plan::{PlanError, check};

#[derive(Debug)]
struct Block {
    name: String,
    image: Image,
    serial: String,
    queues: u16,
    queue_size: u16,
    limits: Limits,
}

/// A block device for each of the configuration's disks on the virtio bus.
pub fn row(config: &VmConfig) -> Result<Vec<Wanted>, PlanError> {
    image::on(config, DiskBus::Virtio).map(|(index, disk)| wanted(index, disk)).collect()
}

fn wanted(index: usize, disk: &DiskConfig) -> Result<Wanted, PlanError> {
    let field = format!("disks[{index}]");
    let at = |name: &str| format!("{field}.{name}");
    let image = Image::of(disk, &field)?;
    check::ensure(disk.cdrom.is_none(), &at("cdrom"), || {
        "a CD-ROM drive is on the scsi or the sata bus".to_owned()
    })?;
    check::between(disk.queues, 1, QUEUES_MAX, &at("queues"))?;
    check::queue_size(disk.queue_size, QUEUE_SIZE_MIN, QUEUE_SIZE_MAX, &at("queue_size"))?;
    check::limit(disk.bandwidth_limit, &at("bandwidth_limit"))?;
    check::limit(disk.operations_limit, &at("operations_limit"))?;
    let serial = disk.serial.clone().unwrap_or_default();
    image::serial(&serial, SERIAL_MAX_BYTES, &at("serial"))?;
    let spec = Block {
        name: format!("blk{index}"),
        image,
        serial,
        queues: disk.queues,
        queue_size: disk.queue_size,
        limits: Limits { bytes: limit(disk.bandwidth_limit), operations: limit(disk.operations_limit) },
    };
    Ok(Wanted { id: disk.id.clone(), field, kind: DeviceKind::Block, spec: Box::new(spec) })
}

fn limit(limit: Option<RateLimit>) -> Option<orlop_virtio_blk::RateLimit> {
    limit.map(|RateLimit { per_second, burst }| orlop_virtio_blk::RateLimit { per_second, burst })
}

impl Spec for Block {
    fn build(self: Box<Self>, files: &mut Files) -> Result<Built, DeviceError> {
        let Self { name, image, serial, queues, queue_size, limits } = *self;
        let disk = image.open(files)?;
        let (engine, write_through, errors) = (image.engine(), image.write_through(), image.errors(files));
        let config =
            Config { name, disk, serial, queues, queue_size, engine, limits, write_through, errors };
        let (parts, handle) = build(config).map_err(DeviceError::of)?;
        let grow = Box::new(move |size_bytes| handle.grow(size_bytes));
        Ok(Built::virtio(parts, Controls { grow: Some(grow), ..Controls::default() }))
    }
}
