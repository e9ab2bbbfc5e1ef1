//! Every decision about a machine, before anything is touched: pure and total.
//!
//! `plan` refuses what cannot be, naming the field, and settles what the configuration leaves open: identity, MAC
//! addresses, PCI places, BAR addresses, thread names. Carrying a plan out ([`super::build`]) decides nothing.

pub mod check;
mod seed;
mod text;

use std::ops::Range;

use orlop_api::config::{BootConfig, FirmwareConfig, KernelConfig, MemoryBacking, VmConfig};
use orlop_api::device::DeviceKind;
use orlop_firmware::handover::BootDevice;
use orlop_firmware::layout::{MemoryLayout, PAGE_BYTES, PCI32};
use orlop_firmware::topology::Topology;
use orlop_pci::{Bdf, TSEG_MAX_BYTES};
use orlop_virtio::layout::BAR_BYTES;

pub use self::seed::Seed;
use super::registry::{ROWS, Seat, Wanted};

/// The most devices without a place of their own: those between host bridge and LPC bridge on bus 0.
const DEVICES_MAX: usize = 30;

/// What a plan must know of the host.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// The most vCPUs that KVM gives one machine.
    pub vcpus_max: u32,
    /// Whether processors have a system management mode.
    pub smm: bool,
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
    /// What of it is for system management mode alone, where there is one.
    pub smram: Option<Range<u64>>,
    /// Where it comes from.
    pub backing: MemoryBacking,
    /// What is started.
    pub boot: BootPlan,
    /// The devices on the bus, beside its bridges.
    pub slots: Vec<Slot>,
}

impl Plan {
    /// The plan without its devices, and the devices, which are used up by being built.
    pub fn split(mut self) -> (Self, Vec<Slot>) {
        let slots = std::mem::take(&mut self.slots);
        (self, slots)
    }

    /// The machine's identity, in the order of its text.
    pub fn uuid(&self) -> [u8; 16] {
        let text = self.config.uuid.as_deref().unwrap_or_default();
        let digits: Vec<u8> =
            text.chars().filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
        let mut uuid = [0; 16];
        for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        uuid
    }
}

/// What is started.
#[derive(Debug)]
pub enum BootPlan {
    /// A kernel, directly.
    Kernel(KernelConfig),
    /// Stock firmware.
    Firmware(FirmwarePlan),
}

/// Stock firmware, with what it is told.
#[derive(Debug)]
pub struct FirmwarePlan {
    /// Its files, and what it is to do.
    pub config: FirmwareConfig,
    /// The devices of the boot order, in their places.
    pub boot_order: Vec<BootDevice>,
    /// How far the guest's processors address, in bits.
    pub address_bits: u32,
}

/// A device and its place.
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
    let mut wanted = Vec::new();
    for row in ROWS {
        wanted.extend(row(&config)?);
    }
    check::names(&wanted)?;
    let slots = places(wanted, &layout)?;
    let boot = boot(&config, &slots, facts)?;
    let smram = smram(&config, &layout, facts)?;
    let backing = config.memory.backing;
    Ok(Plan { config, topology, layout, smram, backing, boot, slots })
}

fn boot(config: &VmConfig, slots: &[Slot], facts: &HostFacts) -> Result<BootPlan, PlanError> {
    match config.boot.clone() {
        BootConfig::Kernel(kernel) => {
            check::kernel(&kernel)?;
            Ok(BootPlan::Kernel(kernel))
        }
        BootConfig::Firmware(config) => {
            check::firmware(&config)?;
            let names = config.boot_order.iter().zip(0..);
            let boot_order = names.map(|(name, index)| boot_device(name, index, slots));
            let boot_order = boot_order.collect::<Result<_, _>>()?;
            Ok(BootPlan::Firmware(FirmwarePlan { config, boot_order, address_bits: facts.address_bits }))
        }
    }
}

/// The device `name`, as firmware recognises it.
fn boot_device(name: &str, index: usize, slots: &[Slot]) -> Result<BootDevice, PlanError> {
    let refuse = |problem: &str| {
        PlanError::new(format!("boot.firmware.boot_order[{index}]"), format!("'{name}' {problem}"))
    };
    if let Some(device) = slots.iter().find_map(|slot| member(name, slot)) {
        return Ok(device);
    }
    let slot = slots.iter().find(|slot| slot.device.id == name);
    let slot = slot.ok_or_else(|| refuse("is none of the machine's devices"))?;
    match slot.device.kind {
        DeviceKind::Block => Ok(BootDevice::VirtioBlk { device: slot.bdf.device }),
        DeviceKind::Net => Ok(BootDevice::VirtioNet { device: slot.bdf.device }),
        _ => Err(refuse("is neither a disk nor a network card")),
    }
}

/// The disk `name` behind the controller in `slot`, as firmware recognises it: by its place among the others.
fn member(name: &str, slot: &Slot) -> Option<BootDevice> {
    let place = slot.device.spec.members().iter().position(|(id, _)| id == name)?;
    let place = u16::try_from(place).ok()?;
    match slot.device.kind {
        DeviceKind::Scsi => Some(BootDevice::VirtioScsi { device: slot.bdf.device, target: place }),
        DeviceKind::Ahci => Some(BootDevice::Ahci { port: place }),
        _ => None,
    }
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
    let page_bytes = page_bytes(config);
    if !layout.ram().iter().all(|range| (range.end - range.start).is_multiple_of(page_bytes)) {
        return Err(refuse(format!("{size_bytes} bytes are no whole number of pages of {page_bytes} bytes")));
    }
    Ok(layout)
}

/// How long the pages are that memory comes from, in bytes.
fn page_bytes(config: &VmConfig) -> u64 {
    match config.memory.backing {
        MemoryBacking::Anonymous | MemoryBacking::Memfd => PAGE_BYTES,
        MemoryBacking::Hugetlb2M => 2 << 20,
        MemoryBacking::Hugetlb1G => 1 << 30,
    }
}

/// Firmware with a system management mode has its own 16 MiB, and needs as much again and more to run at all.
const SMM_MEMORY_MIN_BYTES: u64 = 64 << 20;

/// The memory for system management mode: the end of low RAM, as much as the host bridge can hide.
fn smram(
    config: &VmConfig,
    layout: &MemoryLayout,
    facts: &HostFacts,
) -> Result<Option<Range<u64>>, PlanError> {
    let BootConfig::Firmware(FirmwareConfig { smm: true, variables, .. }) = &config.boot else {
        return Ok(None);
    };
    let field = "boot.firmware.smm";
    check::ensure(facts.smm, field, || {
        "this host's KVM gives processors no system management mode (KVM_CAP_X86_SMM)".to_owned()
    })?;
    check::ensure(variables.is_some(), field, || {
        "firmware with a system management mode needs boot.firmware.variables".to_owned()
    })?;
    let (size_bytes, end) = (config.memory.size_bytes, layout.low.end);
    // The registers that firmware reads and writes count in MiB.
    let fits = end.is_multiple_of(1 << 20) && end >= SMM_MEMORY_MIN_BYTES;
    check::ensure(fits, "memory.size_bytes", || {
        format!(
            "{size_bytes} bytes: with a system management mode memory is whole MiB, at least {SMM_MEMORY_MIN_BYTES}"
        )
    })?;
    let start = end - TSEG_MAX_BYTES;
    check::ensure(start.is_multiple_of(page_bytes(config)), "memory.backing", || {
        "system management mode needs 16 MiB of their own, which is no whole number of such pages".to_owned()
    })?;
    Ok(Some(start..end))
}

/// Gives every device a place on bus 0 and a BAR: most the next place and a BAR in the 64-bit window, in order.
fn places(wanted: Vec<Wanted>, layout: &MemoryLayout) -> Result<Vec<Slot>, PlanError> {
    let movable = || wanted.iter().filter(|device| device.spec.seat() == Seat::Next);
    if let Some(extra) = movable().nth(DEVICES_MAX) {
        let problem = format!("this is device {}; a machine has room for {DEVICES_MAX}", DEVICES_MAX + 1);
        return Err(PlanError::new(&extra.field, problem));
    }
    let (mut number, mut low) = (0, PCI32.start);
    let place = |device: Wanted| match device.spec.seat() {
        Seat::At { bdf, bar_bytes } => {
            let bar_address = low.next_multiple_of(bar_bytes);
            low = bar_address + bar_bytes;
            Slot { bdf, bar_address, device }
        }
        Seat::Next => {
            let bdf = Bdf { bus: 0, device: number + 1, function: 0 };
            let bar_address = layout.pci64.start + u64::from(number) * BAR_BYTES;
            number += 1;
            Slot { bdf, bar_address, device }
        }
    };
    Ok(wanted.into_iter().map(place).collect())
}

#[cfg(test)]
mod tests;
