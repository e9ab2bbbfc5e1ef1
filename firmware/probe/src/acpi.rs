//! The little of ACPI that the probe needs: the FADT (ACPI 6.5 §5.2.9).

use crate::machine::Physical;

const XSDT_ENTRIES_MAX: u32 = 32;
const HEADER_BYTES: u64 = 36;
/// Offsets in the FADT of its generic addresses (12 bytes each, the address after 4) and the reset value.
const RESET_REGISTER: u64 = 116;
const RESET_VALUE: u64 = 128;
const X_PM_TIMER: u64 = 208;
const SLEEP_CONTROL: u64 = 244;
const GENERIC_ADDRESS: u64 = 4;
/// Sleep control: enter (bit 5) sleep type 5 (bits 2 to 4), which this machine's `_S5` names.
const POWER_OFF: u8 = 1 << 5 | 5 << 2;

/// Ports that the FADT names.
#[derive(Debug, Clone, Copy)]
pub struct Fadt {
    /// The reset register.
    pub reset: u16,
    /// What is written there.
    pub reset_value: u8,
    /// The sleep control register.
    pub sleep_control: u16,
    /// What is written there to power off.
    pub power_off: u8,
    /// The PM timer.
    pub pm_timer: Option<u16>,
}

impl Fadt {
    /// Follows the root pointer at `rsdp`.
    pub fn find(memory: &Physical, rsdp: u64) -> Option<Self> {
        if rsdp == 0 || memory.read64(rsdp) != u64::from_le_bytes(*b"RSD PTR ") {
            return None;
        }
        let xsdt = memory.read64(rsdp + 24);
        let entries = memory.read32(xsdt + 4).saturating_sub(36) / 8;
        let fadt = (0..u64::from(entries.min(XSDT_ENTRIES_MAX)))
            .map(|index| memory.read64(xsdt + HEADER_BYTES + index * 8))
            .find(|&table| memory.read32(table) == u32::from_le_bytes(*b"FACP"))?;
        let port = |offset| u16::try_from(memory.read64(fadt + offset + GENERIC_ADDRESS)).ok();
        Some(Self {
            reset: port(RESET_REGISTER)?,
            reset_value: memory.read8(fadt + RESET_VALUE),
            sleep_control: port(SLEEP_CONTROL)?,
            power_off: POWER_OFF,
            pm_timer: port(X_PM_TIMER).filter(|&p| p != 0),
        })
    }
}
