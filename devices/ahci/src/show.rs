//! How the driver is shown what became of a command: frames in its memory, registers, interrupts.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};

use vm_memory::{Bytes, GuestAddress};

use crate::Shared;
use crate::fis::{ERR, READY, TaskFile, pio_setup, set_bits, signature, to_host};
use crate::registers::{Hba, Present, irq};

/// Where frames of each kind are received (AHCI 1.3.1 §4.2.1).
const PIO_SETUP_AT: u64 = 0x20;
const REGISTERS_AT: u64 = 0x40;
const SET_BITS_AT: u64 = 0x58;

/// How a command that went well is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Success {
    /// By a register frame.
    Registers,
    /// By the setup frame before its data, so many bytes.
    Pio(usize),
    /// By both: a packet's data, and its end.
    PioAndRegisters(usize),
    /// By a set-bits frame with its tag.
    Queued(u8),
}

/// How a command that failed is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    error: u8,
    file: TaskFile,
    tag: Option<u8>,
}

impl Failure {
    /// The error register, the others, and the tag of a queued command.
    pub(crate) fn new(error: u8, file: TaskFile, tag: Option<u8>) -> Self {
        Self { error, file, tag }
    }
}

impl Shared {
    pub(crate) fn hba(&self) -> MutexGuard<'_, Hba> {
        self.hba.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot to begin, and where the list of slots is.
    pub(crate) fn fetch(&self, port: usize, last: u8) -> Option<(u8, u64)> {
        let mut hba = self.hba();
        let number = hba.fetch(port, last)?;
        self.counters.commands.fetch_add(1, Relaxed);
        Some((number, hba.ports.get(port)?.list))
    }

    /// A slot that must wait.
    pub(crate) fn put_back(&self, port: usize, number: u8) {
        let mut hba = self.hba();
        if let Some(port) = hba.ports.get_mut(port) {
            port.running &= !(1 << (number & 31));
        }
        self.counters.commands.fetch_sub(1, Relaxed);
        hba.settle();
    }

    /// Writes `frame` to where `port` receives such; what cannot be written is a host bus fatal error.
    fn receive(&self, hba: &mut Hba, port: usize, at: u64, frame: &[u8]) {
        let Some(port) = hba.ports.get_mut(port).filter(|port| port.receives()) else { return };
        let written = port.received.checked_add(at).map(GuestAddress);
        if written.is_none_or(|at| self.ram.write_slice(frame, at).is_err()) {
            port.interrupts |= irq::HOST_BUS_FATAL;
            port.halted = true;
            self.fault("frames are received outside guest memory");
        }
    }

    /// The device took a queued command: its slot may be used again once it is done.
    pub(crate) fn accept(&self, port: usize, number: u8, file: TaskFile) {
        let mut hba = self.hba();
        let Some(at) = hba.ports.get_mut(port).filter(|port| !port.stopping) else { return };
        at.issued &= !(1 << (number & 31));
        self.receive(&mut hba, port, REGISTERS_AT, &to_host(false, READY, 0, file));
    }

    /// The end of a slot: lets go of it and, where the driver still waits for it, shows it by `show`.
    fn finish(&self, port: usize, number: u8, show: impl FnOnce(&mut Hba)) {
        let interrupt = {
            let mut hba = self.hba();
            let Some(at) = hba.ports.get_mut(port) else { return };
            at.running &= !(1 << (number & 31));
            if !at.stopping && !at.halted {
                show(&mut hba);
            }
            hba.settle();
            hba.pending()
        };
        if interrupt {
            self.interrupt();
        }
    }

    pub(crate) fn interrupt(&self) {
        self.counters.interrupts.fetch_add(1, Relaxed);
        self.msi.signal();
    }

    pub(crate) fn succeed(&self, port: usize, number: u8, success: Success, file: TaskFile) {
        self.finish(port, number, |hba| {
            let registers = to_host(true, READY, 0, file);
            let mut bits = 0;
            if let Success::Pio(len) | Success::PioAndRegisters(len) = success {
                self.receive(hba, port, PIO_SETUP_AT, &pio_setup(READY, file, len));
                bits |= irq::PIO_SETUP;
            }
            match success {
                Success::Registers | Success::PioAndRegisters(_) => {
                    self.receive(hba, port, REGISTERS_AT, &registers);
                    bits |= irq::TO_HOST;
                }
                Success::Queued(tag) => {
                    self.receive(hba, port, SET_BITS_AT, &set_bits(READY, 0, 1 << (tag & 31)));
                    bits |= irq::SET_BITS;
                }
                Success::Pio(_) => {}
            }
            let Some(at) = hba.ports.get_mut(port) else { return };
            at.task_file = u32::from(READY);
            match success {
                Success::Queued(tag) => at.active &= !(1 << (tag & 31)),
                _ => at.issued &= !(1 << (number & 31)),
            }
            at.interrupts |= bits;
        });
    }

    /// A task file error: the port stops until the driver clears ST (§6.2.2).
    pub(crate) fn fail(&self, port: usize, number: u8, failure: &Failure) {
        self.counters.task_file_errors.fetch_add(1, Relaxed);
        let Failure { error, file, tag } = *failure;
        let status = READY | ERR;
        self.finish(port, number, |hba| {
            let bit = match tag {
                Some(_) => {
                    self.receive(hba, port, SET_BITS_AT, &set_bits(status, error, 0));
                    irq::SET_BITS
                }
                None => {
                    self.receive(hba, port, REGISTERS_AT, &to_host(true, status, error, file));
                    irq::TO_HOST
                }
            };
            let Some(at) = hba.ports.get_mut(port) else { return };
            if tag.is_some() {
                at.issued &= !(1 << (number & 31));
            }
            at.task_file = u32::from(error) << 8 | u32::from(status);
            at.interrupts |= bit | irq::TASK_FILE;
            at.halted = true;
        });
    }

    /// A host bus fatal error: the driver named memory that is not there (§6.1.2).
    pub(crate) fn fatal(&self, port: usize, number: u8) {
        self.fault("a command names memory outside guest memory");
        self.finish(port, number, |hba| {
            let Some(at) = hba.ports.get_mut(port) else { return };
            at.interrupts |= irq::HOST_BUS_FATAL;
            at.halted = true;
        });
    }

    /// The driver wrote the device control register.
    pub(crate) fn soft_reset(&self, port: usize, number: u8, reset: bool) {
        self.finish(port, number, |hba| {
            let Some(at) = hba.ports.get_mut(port) else { return };
            at.issued &= !(1 << (number & 31));
            if std::mem::replace(&mut at.soft_reset, reset) && !reset {
                at.link_up();
            }
        });
        self.show_signature(port);
    }

    /// Shows who the device is, where that waits for the driver to receive frames.
    pub(crate) fn show_signature(&self, port: usize) {
        let mut hba = self.hba();
        let Some(at) = hba.ports.get_mut(port) else { return };
        if !at.receives() || !std::mem::take(&mut at.signature_waits) {
            return;
        }
        let status = if at.present == Present::Ata { READY } else { 0 };
        let frame = to_host(false, status, 1, signature(at.signature()));
        self.receive(&mut hba, port, REGISTERS_AT, &frame);
    }

    /// Counts and tells that the driver broke the contract.
    fn fault(&self, what: &'static str) {
        self.counters.faults.fetch_add(1, Relaxed);
        if let Some(tell) = self.on_fault.get() {
            tell(what);
        }
    }
}
