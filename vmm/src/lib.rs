//! The virtual machine monitor of Orlop: one process, one machine.

pub mod exit;
pub mod machine;
