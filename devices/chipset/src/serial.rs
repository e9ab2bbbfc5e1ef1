//! The serial port: a 16550A from vm-superio, with a longer backlog of input and saved state.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_state::{Record, State, StateError};
use serde::{Deserialize, Serialize};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart, SerialState as UartState};

use crate::Interrupt;
use crate::registers::{ByteRegisters, on_the_bus};

/// Input that waits for the guest beyond what the port's own buffer holds, in bytes.
pub const INPUT_BACKLOG_BYTES: usize = 4096;
/// Bytes that vm-superio's port buffers.
const FIFO_BYTES: usize = 64;

/// Where the guest's output goes. Called from vCPU threads with the port locked: an implementation neither waits nor
/// calls the port.
pub trait SerialSink: Send + Sync {
    /// The guest sent `byte`.
    fn output(&self, byte: u8);
    /// The guest has read all its input: there is room for [`INPUT_BACKLOG_BYTES`] again.
    fn input_drained(&self) {}
}

/// Interrupt line of the port, in vm-superio's terms.
struct Line(Arc<dyn Interrupt>);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse();
        Ok(())
    }
}

/// Output of the port, in vm-superio's terms.
struct Output(Arc<dyn SerialSink>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().for_each(|&byte| self.0.output(byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The device.
pub struct Serial {
    interrupt: Arc<dyn Interrupt>,
    sink: Arc<dyn SerialSink>,
    inner: Mutex<Inner>,
}

struct Inner {
    uart: Uart<Line, NoEvents, Output>,
    /// Input that follows what the port itself holds.
    backlog: VecDeque<u8>,
}

/// Saved state of [`Serial`]: the registers as the 16550A data sheet names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialState {
    /// Divisor latch, low byte.
    pub baud_divisor_low: u8,
    /// Divisor latch, high byte.
    pub baud_divisor_high: u8,
    /// Interrupt enable register.
    pub interrupt_enable: u8,
    /// Interrupt identification register: 1 for none, else transmitter empty (2) and received data (4).
    pub interrupt_identification: u8,
    /// Line control register.
    pub line_control: u8,
    /// Line status register.
    pub line_status: u8,
    /// Modem control register.
    pub modem_control: u8,
    /// Modem status register.
    pub modem_status: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Received bytes in the port, at most 64.
    pub fifo: Vec<u8>,
    /// Received bytes that wait behind them, at most [`INPUT_BACKLOG_BYTES`].
    pub backlog: Vec<u8>,
}

impl State for SerialState {
    const KIND: &'static str = "serial";
    const VERSION: u16 = 1;
}

impl Serial {
    /// A port that interrupts on `interrupt` and sends to `sink`.
    pub fn new(interrupt: Arc<dyn Interrupt>, sink: Arc<dyn SerialSink>) -> Self {
        let uart = Uart::new(Line(Arc::clone(&interrupt)), Output(Arc::clone(&sink)));
        Self { interrupt, sink, inner: Mutex::new(Inner { uart, backlog: VecDeque::new() }) }
    }

    /// Gives the guest input; says how many of the bytes were taken. The rest must be offered again after
    /// [`SerialSink::input_drained`].
    pub fn input(&self, bytes: &[u8]) -> usize {
        let mut inner = self.lock();
        let room = INPUT_BACKLOG_BYTES.saturating_sub(inner.backlog.len());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        inner.backlog.extend(taken);
        inner.refill();
        taken.len()
    }

    /// Machine reset: registers as after power-on, input forgotten.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.uart = Uart::new(Line(Arc::clone(&self.interrupt)), Output(Arc::clone(&self.sink)));
        inner.backlog.clear();
    }

    /// The state, complete.
    pub fn save(&self) -> Result<Record, StateError> {
        let inner = self.lock();
        let uart = inner.uart.state();
        let state = SerialState {
            baud_divisor_low: uart.baud_divisor_low,
            baud_divisor_high: uart.baud_divisor_high,
            interrupt_enable: uart.interrupt_enable,
            interrupt_identification: uart.interrupt_identification,
            line_control: uart.line_control,
            line_status: uart.line_status,
            modem_control: uart.modem_control,
            modem_status: uart.modem_status,
            scratch: uart.scratch,
            fifo: uart.in_buffer,
            backlog: inner.backlog.iter().copied().collect(),
        };
        Record::write("", &state)
    }

    /// Takes over a saved state. An interrupt that was pending is signalled again.
    pub fn restore(&self, record: &Record) -> Result<(), StateError> {
        let state: SerialState = record.read()?;
        check(&state).map_err(|reason| StateError::Invalid { kind: SerialState::KIND, reason })?;
        let uart = UartState {
            baud_divisor_low: state.baud_divisor_low,
            baud_divisor_high: state.baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.fifo,
        };
        let (line, output) = (Line(Arc::clone(&self.interrupt)), Output(Arc::clone(&self.sink)));
        let uart = Uart::from_state(&uart, line, NoEvents, output)
            .map_err(|e| StateError::Invalid { kind: SerialState::KIND, reason: e.to_string() })?;
        *self.lock() = Inner { uart, backlog: state.backlog.into() };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Moves waiting input into the port once the guest has emptied it: one interrupt per bufferful.
    fn refill(&mut self) {
        if self.backlog.is_empty() || self.uart.fifo_capacity() < FIFO_BYTES {
            return;
        }
        let (next, _) = self.backlog.as_slices();
        let next: Vec<u8> = next.iter().take(FIFO_BYTES).copied().collect();
        // In loopback mode the port takes nothing; the input waits until that ends.
        if let Ok(taken) = self.uart.enqueue_raw_bytes(&next) {
            self.backlog.drain(..taken);
        }
    }

    fn is_drained(&self) -> bool {
        self.backlog.is_empty() && self.uart.fifo_capacity() == FIFO_BYTES
    }
}

/// Refuses registers that this port never has.
fn check(state: &SerialState) -> Result<(), String> {
    const DATA_READY: u8 = 1;
    const TRANSMITTER_EMPTY: u8 = 0x60;
    let data_ready = if state.fifo.is_empty() { 0 } else { DATA_READY };
    if state.fifo.len() > FIFO_BYTES || state.backlog.len() > INPUT_BACKLOG_BYTES {
        return Err(format!("{} and {} bytes of input", state.fifo.len(), state.backlog.len()));
    }
    if state.line_status != TRANSMITTER_EMPTY | data_ready {
        return Err(format!("line status {:#x}", state.line_status));
    }
    if !matches!(state.interrupt_identification, 1 | 2 | 4 | 6) {
        return Err(format!("interrupt identification {:#x}", state.interrupt_identification));
    }
    if state.interrupt_enable & 0xf0 != 0 {
        return Err(format!("interrupt enable {:#x}", state.interrupt_enable));
    }
    Ok(())
}

on_the_bus!(Serial);

impl ByteRegisters for Serial {
    const LEN: u8 = 8;

    fn read_byte(&self, offset: u8) -> u8 {
        let mut inner = self.lock();
        let before = inner.is_drained();
        let value = inner.uart.read(offset);
        inner.refill();
        if !before && inner.is_drained() {
            self.sink.input_drained();
        }
        value
    }

    fn write_byte(&self, offset: u8, value: u8) {
        let mut inner = self.lock();
        // Neither the interrupt nor the output can fail: both are injected without a way to.
        let _infallible = inner.uart.write(offset, value);
        inner.refill();
    }
}

#[cfg(test)]
mod tests;
