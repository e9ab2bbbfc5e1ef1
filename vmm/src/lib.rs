//! The virtual machine monitor of Orlop: one process, one machine.

pub mod cli;
pub mod exit;
pub mod jail;
#[cfg(feature = "kit")]
pub mod kit;
pub mod kvm;
pub mod machine;
pub mod process;
pub mod run;
pub mod serve;
pub mod server;
pub mod terminal;
