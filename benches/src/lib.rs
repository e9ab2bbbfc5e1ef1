//! Benchmarks against QEMU and bare KVM: everything in one run, in the same node, with the same guest.
//!
//! ```text
//!   cargo xtask bench ── node ── orlop-bench ── [orlop-vmm | qemu-system-x86_64 | bare-kvm] ── guest (bench-load)
//!                                     └── table, JSON, plots
//! ```

pub mod boot;
pub mod exits;
pub mod firmware;
pub mod formats;
pub mod guest;
pub mod io;
pub mod load;
pub mod memory;
pub mod overlay;
pub mod plot;
pub mod report;
pub mod setup;
pub mod start;
pub mod vmm;
