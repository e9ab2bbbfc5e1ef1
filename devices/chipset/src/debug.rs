//! The ports where firmware says how far it is: POST codes at 0x80, and text at 0x402.

use std::sync::Arc;

use crate::registers::{ByteRegisters, on_the_bus};

/// Takes every write without effect. Linux writes there to pass time (`io_delay`).
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

/// Takes a byte of firmware's messages. Called from vCPU threads; never waits.
pub type TextSink = Arc<dyn Fn(u8) + Send + Sync>;

/// Firmware's debug console (QEMU's `isa-debugcon`): what is written is text. It has no state.
pub struct DebugConsole {
    sink: TextSink,
}

/// What reading gives: by this firmware finds out that somebody listens (SeaBIOS `src/hw/serialio.c`).
const LISTENING: u8 = 0xE9;

impl DebugConsole {
    /// A console whose text goes to `sink`.
    pub fn new(sink: TextSink) -> Self {
        Self { sink }
    }
}

on_the_bus!(DebugConsole);

impl ByteRegisters for DebugConsole {
    const LEN: u8 = 1;

    fn read_byte(&self, _offset: u8) -> u8 {
        LISTENING
    }

    fn write_byte(&self, _offset: u8, value: u8) {
        (self.sink)(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{read_byte, survives_every_access};
    use orlop_bus::BusDevice;
    use std::sync::Mutex;

    #[test]
    fn text_reaches_the_sink() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&said);
        let console = DebugConsole::new(Arc::new(move |byte| sink.lock().unwrap().push(byte)));
        assert_eq!(read_byte(&console, 0), 0xE9);
        console.write(0, b"S");
        // `rep outsb` comes byte by byte; a wider access has one byte here.
        console.write(0, b"ea");
        assert_eq!(*said.lock().unwrap(), b"Se");
        survives_every_access(&console);
    }
}
