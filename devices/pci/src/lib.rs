//! PCI as a guest sees it: configuration space, base address registers, MSI-X, and the root with its two
//! configuration mechanisms (ports 0xCF8/0xCFC and ECAM).
//!
//! A function of a PCI device implements [`Function`]; what the host must do for it, signalling a message and moving
//! a window, is injected as [`MsiSink`] and [`Windows`], so that nothing here knows KVM.
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

mod config;
mod msi;
mod msix;
mod q35;
mod root;
mod smram;

use std::sync::Arc;

use orlop_state::{Record, StateError};

pub use config::{COMMAND, COMMAND_MEMORY, CONFIG_BYTES, ConfigSpace, ConfigState, Identity, LayoutError};
pub use msi::Msi;
pub use msix::{ENTRY_BYTES, Msix, MsixState, VECTORS_MAX, VectorState};
pub use q35::{Bridge, LockSmi, MoveEcam, host_bridge, lpc};
pub use root::{ConfigPorts, Ecam, PciRoot, RootError};
pub use smram::{HideSmram, Smram, TSEG_MAX_BYTES};

/// Delivers message-signalled interrupts (PCI 3.0 §6.8).
pub trait MsiSink: Send + Sync {
    /// Writes `data` to `address`: one interrupt, at once, from any thread. A message that the guest programmed
    /// wrongly is dropped and counted by the implementation; the caller has nothing to do about it.
    fn signal(&self, address: u64, data: u32);
}

/// Bus, device and function number of a PCI function on segment 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl std::fmt::Display for Bdf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0000:{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Where a function's memory BARs answer. Called when the guest (or its firmware) moves a BAR or changes the memory
/// enable bit; the implementation keeps the memory bus and the doorbells of [`Function::doorbells`] in step.
pub trait Windows: Send + Sync {
    /// `function`'s BAR `bar` of `len` bytes now answers at `address`. A place that is taken or is guest memory is
    /// refused: the BAR then answers nowhere, as if memory decoding were off, and the refusal is counted.
    fn map(&self, function: &Arc<dyn Function>, bar: u8, address: u64, len: u64);
    /// BAR `bar` answers at `address` no longer.
    fn unmap(&self, function: &Arc<dyn Function>, bar: u8, address: u64);
}

/// One function of a PCI device. Called from vCPU threads, several at once: registers live behind the
/// implementation's own small lock, which is never held while waiting for a vCPU.
pub trait Function: Send + Sync {
    /// Fills `data` with the configuration space at `offset`. `data` is 1, 2 or 4 bytes long and does not cross a
    /// 32-bit boundary; `offset` is below 4096.
    fn config_read(&self, offset: u16, data: &mut [u8]);
    /// Takes a write to the configuration space, shaped as in [`Self::config_read`]. The result says which memory
    /// BARs must now answer elsewhere; the root carries that out through [`Windows`].
    fn config_write(&self, offset: u16, data: &[u8]) -> Vec<BarMove>;
    /// Reads inside BAR `bar`; any size from 1 to 8, any alignment.
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);
    /// Writes inside BAR `bar`; any size from 1 to 8, any alignment.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]);
    /// The memory BARs that answer now, as `(bar, address, length in bytes)`.
    fn windows(&self) -> Vec<(u8, u64, u64)>;
    /// The places inside BARs where a write of any value only signals an event file, so that the host may do it
    /// without leaving the kernel.
    fn doorbells(&self) -> Vec<Doorbell>;
    /// Machine reset: back to the state after power-on, BAR addresses as first assigned.
    fn reset(&self);
    /// Stops all work and waits for what is in flight. On return nothing of this function touches guest memory or
    /// signals an interrupt. Called with every vCPU stopped.
    fn pause(&self);
    /// Goes on after [`Self::pause`], looking at every queue once, so that no notification is lost.
    fn resume(&self);
    /// The state, complete. Called between [`Self::pause`] and [`Self::resume`].
    fn save(&self) -> Result<Vec<Record>, StateError>;
    /// Takes over a saved state. Called before the first vCPU runs; followed by [`Self::resume`].
    fn restore(&self, records: &[Record]) -> Result<(), StateError>;
}

/// A memory BAR that answers elsewhere after a configuration write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarMove {
    /// Which BAR, 0 to 5.
    pub bar: u8,
    /// Length in bytes.
    pub len: u64,
    /// Where it answered before; `None` when it did not.
    pub from: Option<u64>,
    /// Where it answers now; `None` when it does not.
    pub to: Option<u64>,
}

/// A write-only place inside a BAR that stands for an event file.
pub struct Doorbell {
    /// Which BAR.
    pub bar: u8,
    /// Offset in the BAR, in bytes.
    pub offset: u64,
    /// What a write signals.
    pub event: Arc<dyn std::os::fd::AsRawFd + Send + Sync>,
}
