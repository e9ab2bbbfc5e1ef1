//! A plan as text, for golden files and for people.

use std::fmt::{self, Display, Formatter};

use super::Plan;

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let topology = &self.topology;
        writeln!(f, "machine {} {}", self.config.name, self.config.uuid.as_deref().unwrap_or("-"))?;
        let (sockets, cores, threads) = (topology.sockets(), topology.cores(), topology.threads());
        writeln!(f, "cpus {sockets} x {cores} x {threads}, apic ids {:?}", topology.apic_ids())?;
        for range in self.layout.ram() {
            writeln!(f, "ram {:#x}..{:#x} {:?}", range.start, range.end, self.backing)?;
        }
        if let Some(smram) = &self.smram {
            writeln!(f, "smram {:#x}..{:#x}", smram.start, smram.end)?;
        }
        writeln!(f, "pci64 {:#x}..{:#x}", self.layout.pci64.start, self.layout.pci64.end)?;
        for slot in &self.slots {
            let (bdf, bar, device) = (slot.bdf, slot.bar_address, &slot.device);
            writeln!(f, "{bdf} bar {bar:#x} {} {:?}", device.id, device.kind)?;
            writeln!(f, "    {:?}", device.spec)?;
        }
        Ok(())
    }
}
