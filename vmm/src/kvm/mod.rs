//! The only code that speaks to `/dev/kvm`.
//!
//! Everything here is a thin, checked layer over the ioctls of the KVM api document (cited as `KVM api §n`): the
//! device node, a virtual machine with its interrupt controllers, a vCPU. What to do with them is decided elsewhere.

mod cpuid;
mod exits;
mod host;
mod kick;
mod memory;
mod power_on;
mod vcpu;
mod vm;

pub use cpuid::{HostCpu, describe as describe_cpuid, guest_cpuid};
pub use exits::{ExitCounters, ExitReason};
pub use host::{HostKvm, KvmError, KvmSource};
pub use kick::{Kicker, VcpuThread, install_kick_handler};
pub use memory::{MemorySlots, Space};
pub use power_on::{ChipsAtPowerOn, MemoryTypes, VcpuAtPowerOn};
pub use vcpu::{Exit, Vcpu};
pub use vm::{IrqLine, MsiSender, RomSlot, SmiLine, Vm};
