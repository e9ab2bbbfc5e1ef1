//! Where the enhanced configuration mechanism answers: firmware may move it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use orlop_bus::{Bus, BusError};
use orlop_firmware::layout::{ECAM_BYTES, ECAM_START, IOAPIC_START, MemoryLayout};
use orlop_pci::{Ecam, PciRoot};

/// The window of one machine.
pub struct EcamWindow {
    /// The bus holds the root, the root the bridge, and the bridge this: somebody has to let go.
    memory: Weak<Bus>,
    root: Weak<PciRoot>,
    layout: MemoryLayout,
    place: Mutex<Option<u64>>,
    refused: AtomicU64,
}

impl EcamWindow {
    /// The window of `root` on `memory`, where it is at power-on.
    pub fn new(memory: &Arc<Bus>, root: &Arc<PciRoot>, layout: MemoryLayout) -> Result<Arc<Self>, BusError> {
        memory.insert(ECAM_START, ECAM_BYTES, Arc::new(Ecam(Arc::clone(root))))?;
        let (memory, root) = (Arc::downgrade(memory), Arc::downgrade(root));
        let place = Mutex::new(Some(ECAM_START));
        Ok(Arc::new(Self { memory, root, layout, place, refused: AtomicU64::new(0) }))
    }

    /// Where it is.
    pub fn place(&self) -> Option<u64> {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it was moved to where it may not be.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Moves it. Where it may not be it answers nowhere, as if it were off.
    pub fn move_to(&self, wanted: Option<u64>) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(memory), Some(root)) = (self.memory.upgrade(), self.root.upgrade()) else { return };
        if let Some(before) = place.take() {
            memory.remove(before);
        }
        let Some(address) = wanted else { return };
        let may = self.is_free(address)
            && memory.insert(address, ECAM_BYTES, Arc::new(Ecam(Arc::clone(&root)))).is_ok();
        if may {
            *place = Some(address);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Neither RAM nor what the chipset keeps for itself below 4 GiB.
    fn is_free(&self, address: u64) -> bool {
        let Some(end) = address.checked_add(ECAM_BYTES) else { return false };
        (self.layout.low.end <= address && end <= IOAPIC_START) || address >= self.layout.pci64.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orlop_pci::{Function, Windows};

    struct Nowhere;

    impl Windows for Nowhere {
        fn map(&self, _: &Arc<dyn Function>, _: u8, _: u64, _: u64) {}
        fn unmap(&self, _: &Arc<dyn Function>, _: u8, _: u64) {}
    }

    #[test]
    fn it_follows_where_there_is_room_and_answers_nowhere_else() {
        let memory = Arc::new(Bus::default());
        let root = PciRoot::new(Arc::new(Nowhere));
        let layout = MemoryLayout::of(3 << 30).unwrap();
        let window = EcamWindow::new(&memory, &root, layout.clone()).unwrap();
        let answers = |address| memory.read(address, &mut [0; 4]);
        assert!(answers(ECAM_START));
        window.move_to(Some(0xE000_0000));
        assert!(!answers(ECAM_START) && answers(0xE000_0000) && answers(0xEFFF_FFFC));
        // On RAM, on the IOAPIC, on high RAM, beyond everything.
        for bad in [0, 0x7000_0000, 0xF000_0000, 1 << 32, u64::MAX - 0xFFF_FFFF] {
            window.move_to(Some(bad));
            assert!(window.place().is_none() && !answers(bad), "{bad:#x}");
        }
        assert_eq!(window.refused(), 5);
        window.move_to(Some(layout.pci64.start));
        assert!(answers(layout.pci64.start));
        window.move_to(None);
        assert!(!answers(layout.pci64.start));
        assert_eq!(window.refused(), 5);
    }
}
