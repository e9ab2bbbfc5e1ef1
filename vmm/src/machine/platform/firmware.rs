//! What a board has more where stock firmware runs: its ROM, its flash chip, fw_cfg, the debug console.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use orlop_bus::BusDevice;
use orlop_chipset::{
    Content, DebugConsole, DmaMemory, FileName, Flash, FlashMemory, FwCfg, Items, Pm1, PowerSink, ports,
};
use orlop_firmware::acpi::{PciSpace, Relocatable};
use orlop_firmware::handover::{
    FILE_LOADER, FILE_RSDP, FILE_TABLES, Handover, LOADER_BYTES, Machine, acpi, loader,
};
use orlop_firmware::layout::ECAM_START;
use orlop_virtio::Ram;
use vm_memory::{Bytes, GuestAddress};

use super::{EcamWindow, PlatformError, Surroundings, port};
use crate::kvm::RomSlot;
use crate::machine::boot::{FirmwareSource, VariableStore, described, smbios};
use crate::machine::plan::{FirmwarePlan, Plan};

/// Numbers of the slots of read-only memory.
const CODE_SLOT: u32 = 0;
const VARIABLES_SLOT: u32 = 1;

/// The firmware's part of the board.
pub struct FirmwareBoard {
    fw_cfg: Arc<FwCfg>,
    flash: Option<Arc<Flash>>,
    pm1: Arc<Pm1>,
    #[expect(dead_code, reason = "held so that the guest sees it")]
    code: RomSlot,
}

impl FirmwareBoard {
    /// Builds it and places it on the buses of `around`.
    pub fn new(
        plan: &Plan,
        firmware: &FirmwarePlan,
        source: &FirmwareSource,
        ecam: &Arc<EcamWindow>,
        around: &Surroundings<'_>,
        power: PowerSink,
    ) -> Result<Self, PlatformError> {
        let code = around.vm.add_rom(CODE_SLOT, Arc::clone(&source.code), source.layout.code.start);
        code.show()?;
        let items = items(plan, firmware, ecam)?;
        let fw_cfg = Arc::new(FwCfg::new(items, Arc::new(GuestRam(Arc::clone(around.ram)))));
        let text = around.firmware_log.clone();
        let debug = DebugConsole::new(Arc::new(move |byte| text.output(&[byte])));
        let pm1 = Arc::new(Pm1::new(power));
        let on_ports: [(std::ops::Range<u64>, Arc<dyn BusDevice>); 3] = [
            (ports::FW_CFG, fw_cfg.clone()),
            (ports::DEBUG_CONSOLE, Arc::new(debug)),
            (ports::PM1, pm1.clone()),
        ];
        for (range, device) in on_ports {
            around.buses.ports.insert(range.start, range.end - range.start, device)?;
        }
        let flash = source.variables.as_ref().zip(source.layout.variables.as_ref()).map(|(store, range)| {
            let slot = around.vm.add_rom(VARIABLES_SLOT, Arc::clone(&store.memory), range.start);
            slot.show()?;
            let flash = Arc::new(Flash::new(Arc::new(Chip { store: Arc::clone(store), slot })));
            around.buses.memory.insert(range.start, range.end - range.start, flash.clone())?;
            Ok::<_, PlatformError>(flash)
        });
        Ok(Self { fw_cfg, flash: flash.transpose()?, pm1, code })
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.fw_cfg.reset();
        self.pm1.reset();
        if let Some(flash) = &self.flash {
            flash.reset();
        }
    }

    /// What it counts.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let flash = self.flash.iter().map(|flash| ("flash_write_failures", flash.failures()));
        std::iter::once(("fw_cfg_faults", self.fw_cfg.faults())).chain(flash).collect()
    }
}

/// Everything that fw_cfg shows.
fn items(plan: &Plan, firmware: &FirmwarePlan, ecam: &Arc<EcamWindow>) -> Result<Items, PlatformError> {
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
