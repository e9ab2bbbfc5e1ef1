//! The two functions by which firmware and kernels recognise a Q35: the host bridge and the LPC bridge of its ICH9.
//!
//! They are configuration registers and nothing else; what stands behind those (ECAM, power management) is fixed by
//! the platform and cannot be moved by the guest.

use std::sync::{Mutex, MutexGuard, PoisonError};

use orlop_state::{Record, State, StateError};
use serde::{Deserialize, Serialize};

use crate::{BarMove, ConfigSpace, ConfigState, Doorbell, Function, Identity};

const INTEL: u16 = 0x8086;
/// The subsystem that QEMU's Q35 shows; drivers match quirks on it.
const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);

/// A function that is only its configuration space.
pub struct Bridge {
    config: Mutex<ConfigSpace>,
}

#[derive(Serialize, Deserialize)]
struct BridgeState {
    config: ConfigState,
}

impl State for BridgeState {
    const KIND: &'static str = "pci-bridge";
    const VERSION: u16 = 1;
}

impl Bridge {
    fn new(device: u16, class: [u8; 3], layout: impl FnOnce(&mut ConfigSpace)) -> Self {
        let (subsystem_vendor, subsystem) = SUBSYSTEM;
        let identity = Identity { vendor: INTEL, device, revision: 2, class, subsystem_vendor, subsystem };
        let mut config = ConfigSpace::new(identity);
        layout(&mut config);
        Self { config: Mutex::new(config) }
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host bridge, at 00:00.0 (82Q35 MCH datasheet §5.1). PCIEXBAR shows that ECAM for `buses` buses is at
/// `ecam_base`; a write to it changes nothing.
pub fn host_bridge(ecam_base: u64, buses: u16) -> Bridge {
    // 256, 128 or 64 buses (§5.1.15).
    let length = match buses {
        0..=64 => 0b10,
        65..=128 => 0b01,
        _ => 0b00,
    };
    Bridge::new(0x29c0, [0x06, 0x00, 0x00], |config| {
        config.set(0x60, &(ecam_base | length << 1 | 1).to_le_bytes(), &[]);
        // PAM0 to PAM6: which parts of C0000–FFFFF are RAM. All of it is; the registers only remember.
        config.set(0x90, &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33], &[0x33; 7]);
    })
}

/// The LPC bridge, at 00:1f.0 (ICH9 datasheet §13.1). PMBASE shows `pm_base`, the I/O address of the power management
/// block, a multiple of 128; zero says that there is none.
pub fn lpc(pm_base: u16) -> Bridge {
    Bridge::new(0x2918, [0x06, 0x01, 0x00], |config| {
        if pm_base != 0 {
            config.set(0x40, &(u32::from(pm_base & 0xff80) | 1).to_le_bytes(), &[]);
            config.set(0x44, &[0x80], &[]); // ACPI_CNTL: the block is enabled
        }
        // PIRQ routing: no interrupt is routed, the registers only remember (§13.1.17).
        config.set(0x60, &[0x80; 4], &[0x8f; 4]);
        config.set(0x68, &[0x80; 4], &[0x8f; 4]);
    })
}

impl Function for Bridge {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Vec<BarMove> {
        self.config().write(offset, data)
    }

    fn bar_read(&self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) {}

    fn windows(&self) -> Vec<(u8, u64, u64)> {
        Vec::new()
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        Vec::new()
    }

    fn reset(&self) {
        self.config().reset();
    }

    fn pause(&self) {}

    fn resume(&self) {}

    fn save(&self) -> Result<Vec<Record>, StateError> {
        Ok(vec![Record::write("", &BridgeState { config: self.config().save() })?])
    }

    fn restore(&self, records: &[Record]) -> Result<(), StateError> {
        let [record] = records else {
            let reason = format!("{} records instead of one", records.len());
            return Err(StateError::Invalid { kind: BridgeState::KIND, reason });
        };
        self.config().restore(BridgeState::KIND, &record.read::<BridgeState>()?.config)
    }
}
