//! One file per command.

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod image;
pub mod node;
pub mod test;
