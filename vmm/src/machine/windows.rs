//! Where PCI BARs answer: windows on the memory bus, and doorbells that the kernel rings by itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use orlop_bus::{Bus, BusDevice};
use orlop_firmware::layout::{IOAPIC_START, LOW_RAM_END_MAX, MemoryLayout};
use orlop_pci::{Doorbell, Function, Windows};

use crate::kvm::Vm;

/// One BAR on the memory bus.
struct BarWindow {
    function: Arc<dyn Function>,
    bar: u8,
}

impl BusDevice for BarWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.function.bar_read(self.bar, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.function.bar_write(self.bar, offset, data);
    }
}

/// What was placed at an address, to be taken away as it came.
struct Placed {
    function: Arc<dyn Function>,
    bar: u8,
    /// Doorbells that the kernel rings, by guest-physical address.
    doorbells: Vec<(u64, Doorbell)>,
}

/// The PCI windows of one machine.
pub struct PciWindows {
    /// The bus holds the root, the root holds this: somebody has to let go.
    memory: Weak<Bus>,
    vm: Arc<Vm>,
    layout: MemoryLayout,
    placed: Mutex<BTreeMap<u64, Placed>>,
    refused: AtomicU64,
}

impl PciWindows {
    /// Windows on `memory`, around the RAM of `layout`.
    pub fn new(memory: &Arc<Bus>, vm: Arc<Vm>, layout: MemoryLayout) -> Self {
        let memory = Arc::downgrade(memory);
        Self { memory, vm, layout, placed: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// How often a BAR was moved to where none may be.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether a window may be there: below 4 GiB only where the chipset forwards to PCI, above it beyond all RAM. Firmware
    /// places BARs beyond what a directly booted kernel is told of: SeaBIOS up to the IOAPIC, OVMF from the end of low RAM
    /// on (`PlatformMemMapInitialization`). The configuration space is in between and on the bus, which has no room there.
    fn is_pci(&self, address: u64, len: u64) -> bool {
        let Some(end) = address.checked_add(len) else { return false };
        (LOW_RAM_END_MAX <= address && end <= IOAPIC_START) || address >= self.layout.pci64.start
    }

    fn place(&self, function: &Arc<dyn Function>, bar: u8, address: u64, len: u64) -> bool {
        if !self.is_pci(address, len) {
            return false;
        }
        let window = Arc::new(BarWindow { function: Arc::clone(function), bar });
        // The lock covers both halves, so that two moves of BARs do not mix.
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.memory.upgrade().is_none_or(|memory| memory.insert(address, len, window).is_err()) {
            return false;
        }
        // A doorbell that the kernel does not take still works, through the window.
        let doorbells = function.doorbells().into_iter().filter(|d| d.bar == bar);
        let doorbells = doorbells.filter_map(|doorbell| {
            let at = address.checked_add(doorbell.offset)?;
            self.vm.add_doorbell(at, &*doorbell.event).ok()?;
            Some((at, doorbell))
        });
        let doorbells = doorbells.collect();
        placed.insert(address, Placed { function: Arc::clone(function), bar, doorbells });
        true
    }
}

impl Windows for PciWindows {
    fn map(&self, function: &Arc<dyn Function>, bar: u8, address: u64, len: u64) {
        if !self.place(function, bar, address, len) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn unmap(&self, function: &Arc<dyn Function>, bar: u8, address: u64) {
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        // What was refused there is not there; another's window stays.
        let ours = placed.get(&address).is_some_and(|p| p.bar == bar && Arc::ptr_eq(&p.function, function));
        if !ours {
            return;
        }
        if let Some(memory) = self.memory.upgrade() {
            memory.remove(address);
        }
        for (at, doorbell) in placed.remove(&address).into_iter().flat_map(|p| p.doorbells) {
            // It was added, so it can be taken away.
            let _ = self.vm.remove_doorbell(at, &*doorbell.event);
        }
    }
}
