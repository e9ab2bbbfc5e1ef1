//! The port where firmware reports its progress. Linux writes there to pass time (`io_delay`).

use crate::registers::{ByteRegisters, on_the_bus};

/// Takes every write without effect.
#[derive(Debug, Default)]
pub struct DebugPort;

on_the_bus!(DebugPort);

impl ByteRegisters for DebugPort {
    const LEN: u8 = 1;

    fn read_byte(&self, _offset: u8) -> u8 {
        0xff
    }

    fn write_byte(&self, _offset: u8, _value: u8) {}
}
