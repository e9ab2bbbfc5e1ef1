//! Every decision about a machine, before anything is touched: pure and total.
//!
//! `plan` refuses what cannot be, naming the field, and settles what the configuration leaves open: identity, MAC
//! addresses, PCI places, BAR addresses, thread names. Carrying a plan out ([`super::build`]) decides nothing.

pub mod check;
mod seed;
mod text;

use orlop_api::config::{BootConfig, KernelConfig, MemoryBacking, VmConfig};
use orlop_firmware::layout::{MemoryLayout, PAGE_BYTES};
use orlop_firmware::topology::Topology;
use orlop_pci::Bdf;
use orlop_virtio::layout::BAR_BYTES;

pub use self::seed::Seed;
use super::registry::{ROWS, Wanted};

/// The most virtio devices: the places between host bridge and LPC bridge on bus 0.
const DEVICES_MAX: usize = 30;

/// What a plan must know of the host.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The most vCPUs that KVM gives one machine.
    pub vcpus_max: u32,
    /// Width of a guest-physical address in bits.
    pub address_bits: u32,
    /// What random choices are drawn from.
    pub seed: Seed,
}

/// A configuration that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct PlanError {
    /// The field, `disks[0].queue_size`.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl PlanError {
    /// `problem` with `field`.
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// A machine, decided.
#[derive(Debug)]
pub struct Plan {
    /// The configuration with everything filled in that was drawn.
    pub config: VmConfig,
    /// vCPUs.
    pub topology: Topology,
    /// Guest memory.
    pub layout: MemoryLayout,
    /// Where it comes from.
    pub backing: MemoryBacking,
    /// What is started.
    pub kernel: KernelConfig,
    /// The virtio devices.
    pub slots: Vec<Slot>,
}

impl Plan {
    /// The plan without its devices, and the devices, which are used up by being built.
    pub fn split(mut self) -> (Self, Vec<Slot>) {
        let slots = std::mem::take(&mut self.slots);
        (self, slots)
    }
}

/// A virtio device and its place.
#[derive(Debug)]
pub struct Slot {
    /// Where it is on the bus.
    pub bdf: Bdf,
    /// Where its BAR answers after power-on.
    pub bar_address: u64,
    /// What it is.
    pub device: Wanted,
}

/// Decides everything about the machine that `config` describes.
pub fn plan(mut config: VmConfig, facts: &HostFacts) -> Result<Plan, PlanError> {
    check::machine(&config)?;
    seed::fill_in(&mut config, &facts.seed);
    let topology = topology(&config, facts)?;
    let layout = layout(&config, facts)?;
    let BootConfig::Kernel(kernel) = config.boot.clone();
    check::kernel(&kernel)?;
    let mut wanted = Vec::new();
    for row in ROWS {
        wanted.extend(row(&config)?);
    }
    check::names(&wanted)?;
    let slots = places(wanted, &layout)?;
    let backing = config.memory.backing;
    Ok(Plan { config, topology, layout, backing, kernel, slots })
}

fn topology(config: &VmConfig, facts: &HostFacts) -> Result<Topology, PlanError> {
    let cpus = &config.cpus;
    let refuse = |problem| PlanError::new("cpus", problem);
    let topology =
        Topology::new(cpus.sockets, cpus.cores, cpus.threads).map_err(|e| refuse(e.to_string()))?;
    if topology.vcpus() > facts.vcpus_max {
        let (asked, most) = (topology.vcpus(), facts.vcpus_max);
        return Err(refuse(format!("{asked} vCPUs: this host's KVM gives a machine at most {most}")));
    }
    Ok(topology)
}

fn layout(config: &VmConfig, facts: &HostFacts) -> Result<MemoryLayout, PlanError> {
    let size_bytes = config.memory.size_bytes;
    let refuse = |problem| PlanError::new("memory.size_bytes", problem);
    let layout = MemoryLayout::of(size_bytes).map_err(|e| refuse(e.to_string()))?;
    if layout.end() > 1_u64.checked_shl(facts.address_bits).unwrap_or(u64::MAX) {
        let bits = facts.address_bits;
        return Err(refuse(format!("{size_bytes} bytes: this host's guests address only {bits} bits")));
    }
    let page_bytes = match config.memory.backing {
        MemoryBacking::Anonymous | MemoryBacking::Memfd => PAGE_BYTES,
        MemoryBacking::Hugetlb2M => 2 << 20,
        MemoryBacking::Hugetlb1G => 1 << 30,
    };
    if !layout.ram().iter().all(|range| (range.end - range.start).is_multiple_of(page_bytes)) {
        return Err(refuse(format!("{size_bytes} bytes are no whole number of pages of {page_bytes} bytes")));
    }
    Ok(layout)
}

/// Gives every device a place on bus 0 and a BAR in the 64-bit window, in order.
fn places(wanted: Vec<Wanted>, layout: &MemoryLayout) -> Result<Vec<Slot>, PlanError> {
    if let Some(extra) = wanted.get(DEVICES_MAX) {
        let problem = format!("this is device {}; a machine has room for {DEVICES_MAX}", DEVICES_MAX + 1);
        return Err(PlanError::new(&extra.field, problem));
    }
    let place = |(device, number): (Wanted, u8)| Slot {
        bdf: Bdf { bus: 0, device: number + 1, function: 0 },
        bar_address: layout.pci64.start + u64::from(number) * BAR_BYTES,
        device,
    };
    Ok(wanted.into_iter().zip(0..).map(place).collect())
}

#[cfg(test)]
mod tests;
