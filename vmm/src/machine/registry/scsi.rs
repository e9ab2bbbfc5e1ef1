//! The SCSI controller, with a target for each disk on its bus.

use orlop_api::config::{DiskBus, VmConfig};
use orlop_api::device::DeviceKind;
use orlop_scsi::SERIAL_MAX_BYTES;
use orlop_virtio_scsi::{Config, QUEUE_SIZE_MAX, QUEUE_SIZE_MIN, QUEUES_MAX, UNITS_MAX, build};

use super::drive::{Bus, Drive};
use super::{Built, Controls, DeviceError, Spec, Wanted};
use crate::machine::files::Files;
use crate::machine::plan::{PlanError, check};

const BUS: Bus = Bus {
    bus: DiskBus::Scsi,
    name: "scsi",
    drives_max: UNITS_MAX,
    serial_max_bytes: SERIAL_MAX_BYTES,
};

#[derive(Debug)]
struct Controller {
    units: Vec<Drive>,
    queues: u16,
    queue_size: u16,
}

/// One controller, where the configuration has disks on its bus: as many queues as the disk that wants the most.
pub fn row(config: &VmConfig) -> Result<Vec<Wanted>, PlanError> {
    let disks = BUS.disks(config)?;
    let Some((first, _)) = disks.first() else { return Ok(Vec::new()) };
    let field = format!("disks[{first}]");
    let (mut queues, mut queue_size) = (1, QUEUE_SIZE_MIN);
    for (index, disk) in &disks {
        let at = |name: &str| format!("disks[{index}].{name}");
        check::between(disk.queues, 1, QUEUES_MAX, &at("queues"))?;
        check::queue_size(disk.queue_size, QUEUE_SIZE_MIN, QUEUE_SIZE_MAX, &at("queue_size"))?;
        (queues, queue_size) = (queues.max(disk.queues), queue_size.max(disk.queue_size));
    }
    let spec = Box::new(Controller { units: BUS.drives(&disks)?, queues, queue_size });
    Ok(vec![Wanted { id: "scsi".to_owned(), field, kind: DeviceKind::Scsi, spec }])
}

impl Spec for Controller {
    fn build(self: Box<Self>, files: &mut Files) -> Result<Built, DeviceError> {
        let Self { units, queues, queue_size } = *self;
        let opened = units.iter().map(|unit| unit.open(files)).collect::<Result<_, _>>()?;
        let config = Config { name: "scsi".to_owned(), units: opened, queues, queue_size };
        let (parts, handle) = build(config).map_err(DeviceError::of)?;
        let members = units.into_iter().enumerate().map(|(target, unit)| {
            let (counts, disk) = (handle.clone(), handle.clone());
            let grow = Box::new(move |size_bytes| disk.grow(target, size_bytes));
            unit.member(Box::new(move || counts.counters(target)), handle.tray(target), grow)
        });
        let members = members.collect();
        Ok(Built { members, ..Built::virtio(parts, Controls::default()) })
    }

    fn members(&self) -> Vec<(String, String)> {
        self.units.iter().map(Drive::place).collect()
    }
}
