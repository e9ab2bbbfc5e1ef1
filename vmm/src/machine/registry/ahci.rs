//! The AHCI controller, with a port for each disk on the sata bus.

use std::sync::Arc;

use orlop_ahci::{
    ABAR_BYTES, Ahci, Config, Controller, PORTS_MAX, Platform, SERIAL_MAX_BYTES, build,
};
use orlop_api::config::{DiskBus, VmConfig};
use orlop_api::device::DeviceKind;
use orlop_pci::Bdf;

use super::drive::{Bus, Drive};
use super::{Around, Built, Card, Controls, DeviceError, Inspected, Live, Seat, Spec, TellFault, Wanted};
use crate::machine::files::Files;
use crate::machine::plan::PlanError;

/// Where Q35 has its AHCI controller.
const PLACE: Bdf = Bdf { bus: 0, device: 0x1f, function: 2 };

const BUS: Bus = Bus {
    bus: DiskBus::Sata,
    name: "sata",
    drives_max: PORTS_MAX,
    serial_max_bytes: SERIAL_MAX_BYTES,
};

#[derive(Debug)]
struct Sata {
    drives: Vec<Drive>,
}

/// One controller, where the configuration has disks on its bus.
pub fn row(config: &VmConfig) -> Result<Vec<Wanted>, PlanError> {
    let disks = BUS.disks(config)?;
    let Some((first, _)) = disks.first() else { return Ok(Vec::new()) };
    let field = format!("disks[{first}]");
    let spec = Box::new(Sata { drives: BUS.drives(&disks)? });
    Ok(vec![Wanted { id: "sata".to_owned(), field, kind: DeviceKind::Ahci, spec }])
}

impl Spec for Sata {
    fn build(self: Box<Self>, files: &mut Files) -> Result<Built, DeviceError> {
        let drives = self.drives.iter().map(|drive| drive.open(files)).collect::<Result<_, _>>()?;
        let controller = build(Config { name: "sata".to_owned(), drives }).map_err(DeviceError::of)?;
        let members = self.drives.into_iter().enumerate().map(|(port, drive)| {
            let (counts, disk) = (controller.drive(port), controller.drive(port));
            let grow = Box::new(move |size_bytes| disk.grow(size_bytes));
            drive.member(Box::new(move || counts.counters()), controller.tray(port), grow)
        });
        let members = members.collect();
        Ok(Built { card: Box::new(controller), controls: Controls::default(), members })
    }

    fn seat(&self) -> Seat {
        Seat::At { bdf: PLACE, bar_bytes: ABAR_BYTES }
    }

    fn members(&self) -> Vec<(String, String)> {
        self.drives.iter().map(Drive::place).collect()
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
