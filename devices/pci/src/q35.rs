//! The two functions by which firmware and kernels recognise a Q35: the host bridge and the LPC bridge of its ICH9.
//!
//! They are configuration registers, and few of those do something: PCIEXBAR says where ECAM answers, and where there is a
//! system management mode the host bridge hides its memory ([`Smram`]) and the LPC bridge locks its interrupt. Power
//! management is fixed by the platform, where firmware for QEMU's Q35 puts it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use orlop_state::{Record, State, StateError};
use serde::{Deserialize, Serialize};

use crate::{BarMove, COMMAND, ConfigSpace, ConfigState, Doorbell, Function, Identity, Smram, smram};

const INTEL: u16 = 0x8086;
/// The subsystem that QEMU's Q35 shows; drivers match quirks on it.
const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);

/// PCIEXBAR (82Q35 MCH datasheet §5.1.15): base, number of buses, enable.
const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_ENABLE: u64 = 1;
/// Base address: bits 28 to 35. The number of buses cannot be changed.
const PCIEXBAR_BASE: u64 = 0xF_F000_0000;

/// Puts ECAM to a new place, or nowhere. Called from a vCPU in the middle of an access, one call at a time.
pub type MoveEcam = Box<dyn Fn(Option<u64>) + Send + Sync>;

/// GEN_PMCON_1 (ICH9 datasheet §13.8.1.1), 16 bits: `SMI_LOCK`, which once set stays.
const GEN_PMCON_1: u16 = 0xa0;
const SMI_LOCK: u8 = 1 << 4;

/// Fixes how system management interrupts are enabled, or lets it be changed again. Called as [`MoveEcam`] is.
pub type LockSmi = Box<dyn Fn(bool) + Send + Sync>;

/// A function that is only its configuration space.
pub struct Bridge {
    config: Mutex<ConfigSpace>,
    role: Role,
    refused: AtomicU64,
}

/// Which of the two it is, and what its registers do.
enum Role {
    Host { move_ecam: MoveEcam, smram: Option<Smram> },
    Lpc { lock_smi: Option<LockSmi> },
}

/// What the registers say that is done outside them.
#[derive(PartialEq, Eq)]
enum Effect {
    Host { ecam: Option<u64>, hidden: Option<Range<u64>> },
    Lpc { smi_locked: bool },
}

#[derive(Serialize, Deserialize)]
struct BridgeState {
    config: ConfigState,
}

impl State for BridgeState {
    const KIND: &'static str = "pci-bridge";
    const VERSION: u16 = 1;
}

impl Role {
    /// What `config` says.
    fn effect(&self, config: &ConfigSpace) -> Effect {
        match self {
            Self::Host { smram, .. } => Effect::Host {
                ecam: ecam(config),
                hidden: smram.as_ref().and_then(|smram| smram::hidden(config, smram.top)),
            },
            Self::Lpc { .. } => Effect::Lpc { smi_locked: is_smi_locked(config) },
        }
    }

    /// Carries out what differs between `before` and `now`.
    fn carry_out(&self, before: &Effect, now: Effect) {
        match (self, before, now) {
            (
                Self::Host { move_ecam, smram },
                Effect::Host { ecam: ecam_before, hidden: hidden_before },
                Effect::Host { ecam, hidden },
            ) => {
                if *ecam_before != ecam {
                    move_ecam(ecam);
                }
                if let Some(smram) = smram
                    && *hidden_before != hidden
                {
                    (smram.hide)(hidden);
                }
            }
            (Self::Lpc { lock_smi: Some(lock) }, before, now) if *before != now => {
                lock(now == Effect::Lpc { smi_locked: true });
            }
            _ => {}
        }
    }

    /// Takes out of a write what is locked; says whether it wanted to change any of it.
    fn withhold(&self, config: &ConfigSpace, offset: u16, data: &mut [u8]) -> bool {
        match self {
            Self::Host { smram, .. } => smram.is_some() && smram::withhold(config, offset, data),
            Self::Lpc { .. } => {
                let locked = is_smi_locked(config);
                let lock = (offset..).zip(data).find(|(at, _)| locked && *at == GEN_PMCON_1);
                lock.is_some_and(|(_, byte)| {
                    let wanted = *byte;
                    *byte |= SMI_LOCK;
                    *byte != wanted
                })
            }
        }
    }
}

impl Bridge {
    fn new(device: u16, class: [u8; 3], role: Role, layout: impl FnOnce(&mut ConfigSpace)) -> Self {
        let (subsystem_vendor, subsystem) = SUBSYSTEM;
        let identity = Identity { vendor: INTEL, device, revision: 2, class, subsystem_vendor, subsystem };
        let mut config = ConfigSpace::new(identity);
        layout(&mut config);
        Self { config: Mutex::new(config), role, refused: AtomicU64::new(0) }
    }

    /// Writes that wanted to change what is locked.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out `change` and what follows from it.
    fn changing<T>(&self, change: impl FnOnce(&mut ConfigSpace) -> T) -> T {
        let mut config = self.config();
        let before = self.role.effect(&config);
        let result = change(&mut config);
        let now = self.role.effect(&config);
        drop(config);
        self.role.carry_out(&before, now);
        result
    }
}

/// Whether the LPC bridge's `config` has its `SMI_LOCK` set.
fn is_smi_locked(config: &ConfigSpace) -> bool {
    config.register(GEN_PMCON_1).to_le_bytes().first().is_some_and(|low| low & SMI_LOCK != 0)
}

/// Where PCIEXBAR says that ECAM answers.
fn ecam(config: &ConfigSpace) -> Option<u64> {
    let mut register = [0; 8];
    config.read(PCIEXBAR, &mut register);
    let register = u64::from_le_bytes(register);
    (register & PCIEXBAR_ENABLE != 0).then_some(register & PCIEXBAR_BASE)
}

/// The host bridge, at 00:00.0 (82Q35 MCH datasheet §5.1). ECAM for `buses` buses is at `ecam_base` at power-on, and
/// `move_ecam` puts it where PCIEXBAR says from then on. Without `smram` it has no registers for that.
pub fn host_bridge(ecam_base: u64, buses: u16, move_ecam: MoveEcam, smram: Option<Smram>) -> Bridge {
    // 256, 128 or 64 buses (§5.1.15).
    let length = match buses {
        0..=64 => 0b10,
        65..=128 => 0b01,
        _ => 0b00,
    };
    let has_smram = smram.is_some();
    Bridge::new(0x29c0, [0x06, 0x00, 0x00], Role::Host { move_ecam, smram }, |config| {
        let register = ecam_base | length << 1 | PCIEXBAR_ENABLE;
        let writable = PCIEXBAR_BASE | PCIEXBAR_ENABLE;
        config.set(PCIEXBAR.into(), &register.to_le_bytes(), &writable.to_le_bytes());
        // PAM0 to PAM6: which parts of C0000–FFFFF are RAM. All of it is; the registers only remember.
        config.set(0x90, &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33], &[0x33; 7]);
        if has_smram {
            smram::lay_out(config);
        }
    })
}

/// The LPC bridge, at 00:1f.0 (ICH9 datasheet §13.1). PMBASE shows `pm_base`, the I/O address of the power management
/// block, a multiple of 128; zero says that there is none. `lock_smi` is called when firmware locks how system management
/// interrupts are enabled; without it there is no such lock.
pub fn lpc(pm_base: u16, lock_smi: Option<LockSmi>) -> Bridge {
    let can_lock = lock_smi.is_some();
    Bridge::new(0x2918, [0x06, 0x01, 0x00], Role::Lpc { lock_smi }, |config| {
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
        if can_lock {
            config.set(GEN_PMCON_1.into(), &[0], &[SMI_LOCK]);
        }
    })
}

impl Function for Bridge {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Vec<BarMove> {
        self.changing(|config| {
            let mut data = data.to_vec();
            if self.role.withhold(config, offset, &mut data) {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            config.write(offset, &data)
        })
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
