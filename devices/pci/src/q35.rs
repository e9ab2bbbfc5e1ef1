//! The two functions by which firmware and kernels recognise a Q35: the host bridge and the LPC bridge of its ICH9.
//!
//! They are configuration registers, and one of those moves something: PCIEXBAR says where ECAM answers. Power management
//! is fixed by the platform, where firmware for QEMU's Q35 puts it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use orlop_state::{Record, State, StateError};
use serde::{Deserialize, Serialize};

use crate::{BarMove, COMMAND, ConfigSpace, ConfigState, Doorbell, Function, Identity};

const INTEL: u16 = 0x8086;
/// The subsystem that QEMU's Q35 shows; drivers match quirks on it.
const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);

/// PCIEXBAR (82Q35 MCH datasheet §5.1.15): base, number of buses, enable.
const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_BYTES: u16 = 8;
const PCIEXBAR_ENABLE: u64 = 1;
/// Base address: bits 28 to 35. The number of buses cannot be changed.
const PCIEXBAR_BASE: u64 = 0xF_F000_0000;

/// Puts ECAM to a new place, or nowhere. Called from a vCPU in the middle of an access, one call at a time.
pub type MoveEcam = Box<dyn Fn(Option<u64>) + Send + Sync>;

/// A function that is only its configuration space.
pub struct Bridge {
    config: Mutex<ConfigSpace>,
    move_ecam: Option<MoveEcam>,
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
        Self { config: Mutex::new(config), move_ecam: None }
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out `change` and, where it moved ECAM, that.
    fn changing<T>(&self, change: impl FnOnce(&mut ConfigSpace) -> T) -> T {
        let mut config = self.config();
        let before = ecam(&config);
        let result = change(&mut config);
        let now = ecam(&config);
        drop(config);
        if let Some(move_ecam) = &self.move_ecam
            && before != now
        {
            move_ecam(now);
        }
        result
    }
}

/// Where PCIEXBAR says that ECAM answers.
fn ecam(config: &ConfigSpace) -> Option<u64> {
    let mut register = [0; 8];
    config.read(PCIEXBAR, &mut register);
    let register = u64::from_le_bytes(register);
    (register & PCIEXBAR_ENABLE != 0).then_some(register & PCIEXBAR_BASE)
}

/// The host bridge, at 00:00.0 (82Q35 MCH datasheet §5.1). ECAM for `buses` buses is at `ecam_base` at power-on, and
/// `move_ecam` puts it where PCIEXBAR says from then on.
pub fn host_bridge(ecam_base: u64, buses: u16, move_ecam: MoveEcam) -> Bridge {
    // 256, 128 or 64 buses (§5.1.15).
    let length = match buses {
        0..=64 => 0b10,
        65..=128 => 0b01,
        _ => 0b00,
    };
    let mut bridge = Bridge::new(0x29c0, [0x06, 0x00, 0x00], |config| {
        let register = ecam_base | length << 1 | PCIEXBAR_ENABLE;
        let writable = PCIEXBAR_BASE | PCIEXBAR_ENABLE;
        config.set(PCIEXBAR.into(), &register.to_le_bytes(), &writable.to_le_bytes());
        // PAM0 to PAM6: which parts of C0000–FFFFF are RAM. All of it is; the registers only remember.
        config.set(0x90, &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33], &[0x33; 7]);
    });
    bridge.move_ecam = Some(move_ecam);
    bridge
}

/// The LPC bridge, at 00:1f.0 (ICH9 datasheet §13.1). PMBASE shows `pm_base`, the I/O address of the power management
/// block, a multiple of 128; zero says that there is none.
pub fn lpc(pm_base: u16) -> Bridge {
    Bridge::new(0x2918, [0x06, 0x01, 0x00], |config| {
        // PCICMD: ports, memory and bus mastering are on and stay on (§13.1.3).
        config.set(COMMAND.into(), &[0b111, 0], &[]);
        // Header type: there are other functions beside this one, as the AHCI controller (§13.1.8).
        config.set(0x0e, &[0x80], &[]);
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
        // Of the two bridges only one has PCIEXBAR, and few writes reach it.
        if offset < PCIEXBAR || offset >= PCIEXBAR.saturating_add(PCIEXBAR_BYTES) {
            return self.config().write(offset, data);
        }
        self.changing(|config| config.write(offset, data))
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
        self.changing(ConfigSpace::reset);
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
        let state = record.read::<BridgeState>()?.config;
        self.changing(|config| config.restore(BridgeState::KIND, &state))
    }
}
