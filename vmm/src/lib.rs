//! The virtual machine monitor of Orlop: one process, one machine.

pub mod cli;
pub mod exit;
pub mod machine;
pub mod server;
