//! The small devices of a PC: serial port, clock, reset and power.
//!
//! Each is a [`BusDevice`] of a few registers. What it does to the world is injected: [`Interrupt`] lines, a [`Clock`],
//! a [`PowerSink`], a [`SerialSink`]. Assembling them at their [`ports`] is the VMM's work.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

mod clock;
mod debug;
mod flash;
mod fw_cfg;
mod power;
mod pvpanic;
mod registers;
mod reset;
mod rtc;
mod serial;
mod smi;
#[cfg(test)]
mod testing;

use std::sync::Arc;

#[cfg(doc)]
use orlop_bus::BusDevice;

pub use clock::{Clock, HostClock};
pub use debug::{DebugConsole, DebugPort, TextSink};
pub use flash::{BLOCK_BYTES, Flash, FlashMemory, FlashState, GuardedFlash};
pub use fw_cfg::{
    Content, DmaMemory, FileName, FwCfg, FwCfgState, Held, Items, NameTooLong, TRANSFER_MAX_BYTES,
};
pub use power::{Pm1, Pm1State, PmTimer, PmTimerState, PowerManagement, PowerManagementState};
pub use pvpanic::PvPanic;
pub use reset::{I8042, ResetControl, ResetControlState, SystemPortA};
pub use rtc::{Inventory, Rtc, RtcState};
pub use serial::{INPUT_BACKLOG_BYTES, Serial, SerialSink, SerialState};
pub use smi::{ApmPorts, Smi, SmiEnable, SmiState};

/// Where the devices answer in the port space, and by which global system interrupts they call.
pub mod ports {
    use std::ops::Range;

    /// Keyboard controller: data at its start, status and command at offset 4.
    pub const I8042: Range<u64> = 0x60..0x65;
    /// Index and data of clock and non-volatile memory.
    pub const RTC: Range<u64> = 0x70..0x72;
    /// Where firmware reports its progress.
    pub const DEBUG: Range<u64> = 0x80..0x81;
    /// Fast reset and A20 gate.
    pub const SYSTEM_PORT_A: Range<u64> = 0x92..0x93;
    /// Control and status of system management interrupts.
    pub const APM: Range<u64> = 0xB2..0xB4;
    /// First serial port, ttyS0.
    pub const SERIAL: Range<u64> = 0x3F8..0x400;
    /// GSI of the serial port: edge-triggered.
    pub const SERIAL_GSI: u32 = 4;
    /// Firmware's debug console.
    pub const DEBUG_CONSOLE: Range<u64> = 0x402..0x403;
    /// pvpanic.
    pub const PVPANIC: Range<u64> = 0x505..0x506;
    /// fw_cfg: selector, data, address of a descriptor.
    pub const FW_CFG: Range<u64> = 0x510..0x51C;
    /// PM1 status, enable and control: where Q35's are when its power management block is at 0x600.
    pub const PM1: Range<u64> = 0x600..0x606;
    /// GSI of the system control interrupt, which never comes.
    pub const SCI_GSI: u8 = 10;
    /// Power management timer: where Q35's is when its power management block is at 0x600.
    pub const PM_TIMER: Range<u64> = 0x608..0x60C;
    /// Enable and status of system management interrupts, in the same block.
    pub const SMI: Range<u64> = 0x630..0x638;
    /// Sleep control, sleep status and event status, in a part of that block that Q35 leaves free.
    pub const POWER_MANAGEMENT: Range<u64> = 0x640..0x643;
    /// GSI of the generic event device: edge-triggered.
    pub const GED_GSI: u32 = 9;
    /// PCI's configuration address and data; [`ResetControl`](crate::ResetControl) answers at its second byte.
    pub const PCI_CONFIG: Range<u64> = 0xCF8..0xD00;
    /// Reset control register, a byte inside [`PCI_CONFIG`].
    pub const RESET_CONTROL: u64 = 0xCF9;
}

/// An edge-triggered interrupt line.
pub trait Interrupt: Send + Sync {
    /// One edge, at once, from any thread.
    fn pulse(&self);
}

impl<F: Fn() + Send + Sync> Interrupt for F {
    fn pulse(&self) {
        self();
    }
}

/// What the guest did that concerns the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerEvent {
    /// The guest powered the machine off (ACPI S5).
    Shutdown,
    /// The guest asked for a reset.
    Reset,
    /// The guest's kernel panicked and will do nothing more.
    Panicked,
    /// The guest's kernel panicked and has started its crash kernel.
    CrashLoaded,
}

/// Takes [`PowerEvent`]s. Called from vCPU threads in the middle of an access; must not wait for a vCPU.
pub type PowerSink = Arc<dyn Fn(PowerEvent) + Send + Sync>;
