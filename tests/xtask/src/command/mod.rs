//! One file per command.

pub mod node;
