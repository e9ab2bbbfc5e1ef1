//! What a board has more where stock firmware runs: its ROM, its flash chip, fw_cfg, the debug console.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use orlop_bus::BusDevice;
use orlop_chipset::{
    ApmPorts, Content, DebugConsole, DmaMemory, FileName, Flash, FlashMemory, FwCfg, GuardedFlash, Items,
    Pm1, PowerSink, Smi, SmiEnable, ports,
};
use orlop_firmware::acpi::{PciSpace, Relocatable};
use orlop_firmware::handover::{
    FILE_LOADER, FILE_RSDP, FILE_TABLES, Handover, LOADER_BYTES, Machine, acpi, loader,
};
use orlop_firmware::layout::ECAM_START;
use orlop_virtio::Ram;
use vm_memory::{Bytes, GuestAddress};

use super::{EcamWindow, PlatformError, Surroundings, port};
use crate::kvm::{RomSlot, Space};
use crate::machine::boot::{FirmwareSource, VariableStore, described, smbios};
use crate::machine::plan::{FirmwarePlan, Plan};

/// Numbers of the slots of read-only memory.
const CODE_SLOT: u32 = 0;
const VARIABLES_SLOT: u32 = 1;

/// The firmware's part of the board.
pub struct FirmwareBoard {
    fw_cfg: Arc<FwCfg>,
    flash: Option<Arc<Flash>>,
    guard: Option<Arc<GuardedFlash>>,
    smi: Option<Arc<Smi>>,
    pm1: Arc<Pm1>,
    /// Held so that the guest sees them.
    roms: Vec<RomSlot>,
}

/// What connects it with the rest of the board.
pub struct Wires<'a> {
    /// Where PCI's configuration mechanism is.
    pub ecam: &'a Arc<EcamWindow>,
    /// What switches the machine off.
    pub power: PowerSink,
    /// The source of system management interrupts, where there is that mode.
    pub smi: Option<Arc<Smi>>,
}

impl FirmwareBoard {
    /// Builds it and places it on the buses of `around`.
    pub fn new(
        plan: &Plan,
        firmware: &FirmwarePlan,
        source: &FirmwareSource,
        wires: Wires<'_>,
        around: &Surroundings<'_>,
    ) -> Result<Self, PlatformError> {
        let Wires { ecam, power, smi } = wires;
        let fw_cfg = FwCfg::new(
            items(plan, firmware, ecam, smi.as_ref())?,
            Arc::new(GuestRam(Arc::clone(around.ram))),
        );
        let text = around.firmware_log.clone();
        let debug = DebugConsole::new(Arc::new(move |byte| text.output(&[byte])));
        let mut board = Self {
            fw_cfg: Arc::new(fw_cfg),
            flash: None,
            guard: None,
            smi,
            pm1: Arc::new(Pm1::new(power)),
            roms: Vec::new(),
        };
        board.show_code(source, around)?;
        board.show_variables(source, around)?;
        let mut on_ports: Vec<(std::ops::Range<u64>, Arc<dyn BusDevice>)> = vec![
            (ports::FW_CFG, board.fw_cfg.clone()),
            (ports::DEBUG_CONSOLE, Arc::new(debug)),
            (ports::PM1, board.pm1.clone()),
        ];
        if let Some(smi) = &board.smi {
            on_ports.push((ports::SMI, Arc::new(SmiEnable(Arc::clone(smi)))));
            on_ports.push((ports::APM, Arc::new(ApmPorts(Arc::clone(smi)))));
        }
        for (range, device) in on_ports {
            around.buses.ports.insert(range.start, range.end - range.start, device)?;
        }
        Ok(board)
    }

    /// The address spaces that there are.
    fn spaces(&self) -> &'static [Space] {
        if self.smi.is_some() { &[Space::Usual, Space::Smm] } else { &[Space::Usual] }
    }

    fn show_code(&mut self, source: &FirmwareSource, around: &Surroundings<'_>) -> Result<(), PlatformError> {
        for space in self.spaces() {
            let code =
                around.vm.add_rom(*space, CODE_SLOT, Arc::clone(&source.code), source.layout.code.start);
            code.show()?;
            self.roms.push(code);
        }
        Ok(())
    }

    /// Places the flash chip. With a system management mode it takes commands only in that mode; outside, what it has is
    /// read, whatever it is doing.
    fn show_variables(
        &mut self,
        source: &FirmwareSource,
        around: &Surroundings<'_>,
    ) -> Result<(), PlatformError> {
        let Some((store, range)) = source.variables.as_ref().zip(source.layout.variables.as_ref()) else {
            return Ok(());
        };
        let mut slots = Vec::new();
        for space in self.spaces() {
            let slot = around.vm.add_rom(*space, VARIABLES_SLOT, Arc::clone(&store.memory), range.start);
            slot.show()?;
            slots.push(slot);
        }
        // The last space is where it takes commands, which hide it.
        let Some(slot) = slots.pop() else { return Ok(()) };
        self.roms.extend(slots);
        let flash = Arc::new(Flash::new(Arc::new(Chip { store: Arc::clone(store), slot })));
        let len = range.end - range.start;
        if self.smi.is_some() {
            let guard = Arc::new(GuardedFlash::new(Arc::clone(&flash)));
            around.buses.smm.insert(range.start, len, flash.clone())?;
            around.buses.memory.insert(range.start, len, guard.clone())?;
            self.guard = Some(guard);
        } else {
            around.buses.memory.insert(range.start, len, flash.clone())?;
        }
        self.flash = Some(flash);
        Ok(())
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.fw_cfg.reset();
        self.pm1.reset();
        if let Some(flash) = &self.flash {
            flash.reset();
        }
        if let Some(smi) = &self.smi {
            smi.reset();
        }
    }

    /// What it counts.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let flash = self.flash.iter().map(|flash| ("flash_write_failures", flash.failures()));
        let guard = self.guard.iter().map(|guard| ("flash_writes_refused", guard.refused()));
        let smi = self.smi.iter().flat_map(|smi| [("smis", smi.raised()), ("smi_refusals", smi.refused())]);
        std::iter::once(("fw_cfg_faults", self.fw_cfg.faults()))
            .chain(flash)
            .chain(guard)
            .chain(smi)
            .collect()
    }
}

/// Everything that fw_cfg shows.
fn items(
    plan: &Plan,
    firmware: &FirmwarePlan,
    ecam: &Arc<EcamWindow>,
    smi: Option<&Arc<Smi>>,
) -> Result<Items, PlatformError> {
    let config = &firmware.config;
    let serial = config.serial_console && plan.config.serial.enabled;
    let Handover { items, files } = Handover::of(&Machine {
        layout: &plan.layout,
        processors: plan.topology.vcpus(),
        smbios: &smbios(plan),
        boot_order: firmware.boot_order.clone(),
        menu_ms: config.menu_ms,
        serial_console: serial.then_some(port(ports::SERIAL.start)),
    });
    let mut contents = BTreeMap::new();
    for (name, bytes) in files {
        contents.insert(file(name)?, Content::from(bytes));
    }
    for (name, content) in smi.into_iter().flat_map(Smi::files) {
        contents.insert(file(name)?, content);
    }
    // The tables tell where firmware has put the configuration mechanism: they are made when it asks for them.
    let (board, layout) = (described(plan, PciSpace::of(&plan.layout)), plan.layout.clone());
    let (ecam, address_bits) = (Arc::clone(ecam), firmware.address_bits);
    let tables = move || {
        let pci = PciSpace::programmed(&layout, ecam.place().unwrap_or(ECAM_START), address_bits);
        acpi(&orlop_firmware::acpi::Platform { pci, ..board.clone() })
    };
    let now = tables().map_err(|e| PlatformError::Tables(e.to_string()))?;
    contents.insert(file(FILE_RSDP)?, Content::from(now.rsdp.clone()));
    let tables = Arc::new(move || tables().unwrap_or_else(|_| now.clone()));
    let script = Arc::clone(&tables);
    let made = |len, make: Box<dyn Fn() -> Vec<u8> + Send + Sync>| Content::Made { len, make };
    contents.insert(file(FILE_LOADER)?, made(LOADER_BYTES, Box::new(move || loader(&script()))));
    let make_tables = Box::new(move || tables().tables);
    contents.insert(file(FILE_TABLES)?, made(Relocatable::TABLES_MAX_BYTES, make_tables));
    Ok(Items::new(items, contents))
}

fn file(name: &str) -> Result<FileName, PlatformError> {
    FileName::new(name).map_err(|e| PlatformError::Tables(e.to_string()))
}

/// The guest's RAM, for fw_cfg.
struct GuestRam(Arc<Ram>);

impl DmaMemory for GuestRam {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        self.0.read_slice(data, GuestAddress(address)).is_ok()
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        self.0.write_slice(data, GuestAddress(address)).is_ok()
    }
}

/// The variable store as a flash chip.
struct Chip {
    store: Arc<VariableStore>,
    slot: RomSlot,
}

impl FlashMemory for Chip {
    fn len_bytes(&self) -> u64 {
        self.store.memory.size() as u64
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        self.store.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.store.write(offset, data)
    }

    fn show(&self, shown: bool) {
        // A slot that cannot be changed stays as it is: shown, the guest reads the array for the status; hidden, its
        // reads come to us. Neither is wrong for long.
        let _ = if shown { self.slot.show() } else { self.slot.hide() };
        if shown {
            self.store.sync();
        }
    }
}
