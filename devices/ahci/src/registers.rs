//! The HBA's registers (AHCI 1.3.1 §3). No I/O: what a write leads to is told to the caller, what a completion shows is
//! told to guest memory by the caller.

use crate::fis::{DRQ, READY, SIGNATURE_ATA, SIGNATURE_ATAPI};

/// The most ports: as many as fit a BAR of 4 KiB.
pub const PORTS_MAX: usize = 30;
/// Ports that are there even where nothing is on them, as in an ICH9.
pub(crate) const PORTS_MIN: usize = 6;

const PORTS: u64 = 0x100;
const PORT_BYTES: u64 = 0x80;

/// Capabilities but the number of ports: 64-bit addresses, NCQ, command list override, 6 Gb/s, AHCI only, multiple DRQ
/// blocks by PIO, 32 command slots (§3.1.1).
const CAP: u32 = 1 << 31 | 1 << 30 | 1 << 24 | 3 << 20 | 1 << 18 | 1 << 15 | 31 << 8;
const VERSION: u32 = 0x0001_0301;
const GHC_RESET: u32 = 1;
const GHC_INTERRUPTS: u32 = 1 << 1;
const GHC_AHCI: u32 = 1 << 31;

const CMD_START: u32 = 1;
/// Spin-up and power are always on: neither can be switched (§3.3.7).
const CMD_ON: u32 = 1 << 1 | 1 << 2;
const CMD_OVERRIDE: u32 = 1 << 3;
const CMD_FIS_RECEIVE: u32 = 1 << 4;
const CMD_FIS_RUNNING: u32 = 1 << 14;
const CMD_LIST_RUNNING: u32 = 1 << 15;
const CMD_ATAPI: u32 = 1 << 24;
const CMD_LED: u32 = 1 << 25;

/// A device is there and the link is up, at 6 Gb/s, active (§3.3.10).
const STATUS_UP: u32 = 0x133;
const CONTROL_DETECT: u32 = 0xf;
/// The device was exchanged (§3.3.12).
const ERROR_EXCHANGED: u32 = 1 << 26;

/// Interrupt bits of a port (§3.3.5).
pub(crate) mod irq {
    pub(crate) const TO_HOST: u32 = 1;
    pub(crate) const PIO_SETUP: u32 = 1 << 1;
    pub(crate) const SET_BITS: u32 = 1 << 3;
    pub(crate) const CONNECT: u32 = 1 << 6;
    pub(crate) const HOST_BUS_FATAL: u32 = 1 << 29;
    pub(crate) const TASK_FILE: u32 = 1 << 30;
    /// What the driver clears by writing ones; connect change follows PxSERR.
    pub(crate) const CLEARABLE: u32 = 0xfd80_00af;
    /// What can be enabled.
    pub(crate) const ALL: u32 = 0xfdc0_00ff;
}

/// What is on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Present {
    Nothing,
    Ata,
    Atapi,
}

/// One port.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) present: Present,
    pub(crate) list: u64,
    pub(crate) received: u64,
    pub(crate) interrupts: u32,
    pub(crate) enabled: u32,
    /// The bits that the driver writes.
    pub(crate) command: u32,
    pub(crate) task_file: u32,
    pub(crate) control: u32,
    pub(crate) errors: u32,
    pub(crate) active: u32,
    pub(crate) issued: u32,
    /// Slots that were fetched and are not finished.
    pub(crate) running: u32,
    /// An error stopped the port until ST is cleared.
    pub(crate) halted: bool,
    /// ST was cleared, or a reset asked for, while slots are running.
    pub(crate) stopping: bool,
    /// The link is to be reset as soon as nothing is running.
    pub(crate) link_reset: bool,
    /// SRST is set in the device.
    pub(crate) soft_reset: bool,
    /// A signature waits until the driver receives frames.
    pub(crate) signature_waits: bool,
}

/// What a write leads to beside the registers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The thread has something to look at.
    pub(crate) wake: bool,
    /// An interrupt goes out.
    pub(crate) interrupt: bool,
}

/// All registers.
#[derive(Debug)]
pub(crate) struct Hba {
    pub(crate) control: u32,
    pub(crate) interrupts: u32,
    pub(crate) ports: Vec<Port>,
    /// The machine stands still: nothing is fetched.
    pub(crate) paused: bool,
    /// The driver asked for a reset of everything.
    pub(crate) resetting: bool,
}

impl Port {
    /// The bits of PxCMD that the driver writes.
    pub(crate) const KEPT: u32 = CMD_START | CMD_FIS_RECEIVE | CMD_ATAPI | CMD_LED;

    pub(crate) fn new(present: Present) -> Self {
        let mut port = Self {
            present,
            list: 0,
            received: 0,
            interrupts: 0,
            enabled: 0,
            command: 0,
            task_file: 0x7f,
            control: 0,
            errors: 0,
            active: 0,
            issued: 0,
            running: 0,
            halted: false,
            stopping: false,
            link_reset: false,
            soft_reset: false,
            signature_waits: false,
        };
        port.link_up();
        port
    }

    /// The device says who it is (§3.3.9): it is ready, without an error in its last command.
    pub(crate) fn link_up(&mut self) {
        (self.task_file, self.signature_waits) = match self.present {
            Present::Nothing => (0x7f, false),
            Present::Ata => (1 << 8 | u32::from(READY), true),
            Present::Atapi => (1 << 8, true),
        };
        self.soft_reset = false;
    }

    pub(crate) fn signature(&self) -> u32 {
        match self.present {
            Present::Nothing => u32::MAX,
            Present::Ata => SIGNATURE_ATA,
            Present::Atapi => SIGNATURE_ATAPI,
        }
    }

    pub(crate) fn is_started(&self) -> bool {
        self.command & CMD_START != 0
    }

    /// Whether frames go to guest memory.
    pub(crate) fn receives(&self) -> bool {
        self.command & CMD_FIS_RECEIVE != 0
    }

    /// Nothing is running any more, or never was: carries out what waited for that.
    pub(crate) fn settle(&mut self) {
        if self.running != 0 {
            return;
        }
        if std::mem::take(&mut self.stopping) {
            (self.issued, self.active, self.halted) = (0, 0, false);
        }
        if self.link_reset && self.control & CONTROL_DETECT == 0 {
            self.link_reset = false;
            self.link_up();
            if self.present != Present::Nothing {
                self.errors |= ERROR_EXCHANGED;
            }
        }
    }

    fn stop(&mut self) {
        self.command &= !CMD_START;
        self.stopping = true;
        self.settle();
    }

    fn shown_interrupts(&self) -> u32 {
        self.interrupts | if self.errors & ERROR_EXCHANGED != 0 { irq::CONNECT } else { 0 }
    }

    fn read(&self, offset: u64) -> u32 {
        let [low, high] = halves(self.list);
        let [received_low, received_high] = halves(self.received);
        match offset {
            0x00 => low,
            0x04 => high,
            0x08 => received_low,
            0x0c => received_high,
            0x10 => self.shown_interrupts(),
            0x14 => self.enabled,
            0x18 => self.shown_command(),
            0x20 => self.task_file,
            0x24 => self.signature(),
            0x28 if self.present == Present::Nothing || self.link_reset => 0,
            0x28 => STATUS_UP,
            0x2c => self.control,
            0x30 => self.errors,
            0x34 => self.active,
            0x38 => self.issued,
            _ => 0,
        }
    }

    fn shown_command(&self) -> u32 {
        let receiving = if self.receives() { CMD_FIS_RUNNING } else { 0 };
        let listing = if self.is_started() || self.stopping { CMD_LIST_RUNNING } else { 0 };
        self.command | CMD_ON | receiving | listing
    }

    fn write(&mut self, offset: u64, value: u32) -> Effect {
        const NOTHING: Effect = Effect { wake: false, interrupt: false };
        match offset {
            0x00 => self.list = join(value & !0x3ff, halves(self.list)[1]),
            0x04 => self.list = join(halves(self.list)[0], value),
            0x08 => self.received = join(value & !0xff, halves(self.received)[1]),
            0x0c => self.received = join(halves(self.received)[0], value),
            0x10 => self.interrupts &= !(value & irq::CLEARABLE),
            0x14 => {
                self.enabled = value & irq::ALL;
                return Effect { wake: false, interrupt: true };
            }
            0x18 => return self.write_command(value),
            0x2c => {
                let (before, now) = (self.control & CONTROL_DETECT, value & CONTROL_DETECT);
                self.control = value & 0xfff;
                // DET 1 resets the link for as long as it is there (§10.4.2).
                if now == 1 && before != 1 {
                    self.link_reset = true;
                    self.stop();
                }
                self.settle();
                return Effect { wake: true, interrupt: true };
            }
            0x30 => self.errors &= !value,
            0x34 if self.is_started() => self.active |= value,
            0x38 if self.is_started() => {
                self.issued |= value;
                return Effect { wake: true, interrupt: false };
            }
            _ => {}
        }
        NOTHING
    }

    fn write_command(&mut self, value: u32) -> Effect {
        if value & CMD_OVERRIDE != 0 && !self.is_started() {
            self.task_file &= !u32::from(0x80 | DRQ);
        }
        self.command = value & (Self::KEPT & !CMD_START) | self.command & CMD_START;
        match (self.is_started(), value & CMD_START != 0) {
            (true, false) => self.stop(),
            // A port that is still stopping stays stopped.
            (false, true) if !self.stopping => self.command |= CMD_START,
            _ => {}
        }
        Effect { wake: true, interrupt: false }
    }
}

fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

impl Hba {
    /// After power-on, with these devices on its first ports.
    pub(crate) fn new(devices: &[Present]) -> Self {
        let count = devices.len().clamp(PORTS_MIN, PORTS_MAX);
        let nothing = std::iter::repeat(Present::Nothing);
        let ports = devices.iter().copied().chain(nothing).take(count).map(Port::new).collect();
        Self { control: GHC_AHCI, interrupts: 0, ports, paused: false, resetting: false }
    }

    /// Back to power-on, but for the devices. Nothing is running.
    pub(crate) fn reset(&mut self) {
        let devices: Vec<Present> = self.ports.iter().map(|port| port.present).collect();
        *self = Self { paused: self.paused, ..Self::new(&devices) };
    }

    /// Carries out a reset that the driver asked for, once nothing is running.
    pub(crate) fn settle(&mut self) {
        self.ports.iter_mut().for_each(Port::settle);
        if self.resetting && self.ports.iter().all(|port| port.running == 0) {
            self.reset();
        }
    }

    /// Whether an interrupt is to go out now: brings the ports' interrupts into the HBA's.
    pub(crate) fn pending(&mut self) -> bool {
        for (port, number) in self.ports.iter().zip(0..32_u32) {
            if port.shown_interrupts() & port.enabled != 0 {
                self.interrupts |= 1 << number;
            }
        }
        self.interrupts != 0 && self.control & GHC_INTERRUPTS != 0
    }

    /// The register at `offset`, a multiple of 4.
    fn word(&self, offset: u64) -> u32 {
        let ports = u32::try_from(self.ports.len()).unwrap_or(0);
        match offset {
            0x00 => CAP | ports.saturating_sub(1),
            0x04 => self.control | if self.resetting { GHC_RESET } else { 0 },
            0x08 => self.interrupts,
            0x0c => 1_u32.checked_shl(ports).unwrap_or(0).wrapping_sub(1),
            0x10 => VERSION,
            _ => {
                let Some(within) = offset.checked_sub(PORTS) else { return 0 };
                let port = usize::try_from(within / PORT_BYTES).ok().and_then(|at| self.ports.get(at));
                port.map_or(0, |port| port.read(within % PORT_BYTES))
            }
        }
    }

    fn byte(&self, at: u64) -> u8 {
        let word = self.word(at & !3).to_le_bytes();
        usize::try_from(at & 3).ok().and_then(|at| word.get(at)).copied().unwrap_or(0)
    }

    /// A read of any size at any place; zero where nothing is.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        for (byte, index) in data.iter_mut().zip(0..) {
            *byte = offset.checked_add(index).map_or(0, |at| self.byte(at));
        }
    }

    /// A write of any size at any place: whole registers count, parts of one change nothing (§3).
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let mut effect = Effect::default();
        if !offset.is_multiple_of(4) {
            return effect;
        }
        for (bytes, index) in data.as_chunks::<4>().0.iter().zip((0..).step_by(4)) {
            let Some(at) = offset.checked_add(index) else { break };
            let Effect { wake, interrupt } = self.set_word(at, u32::from_le_bytes(*bytes));
            effect = Effect { wake: effect.wake | wake, interrupt: effect.interrupt | interrupt };
        }
        effect.interrupt = effect.interrupt && self.pending();
        effect
    }

    fn set_word(&mut self, offset: u64, value: u32) -> Effect {
        match offset {
            0x04 => {
                self.control = GHC_AHCI | value & GHC_INTERRUPTS;
                if value & GHC_RESET != 0 {
                    self.resetting = true;
                    self.ports.iter_mut().for_each(Port::stop);
                    self.settle();
                }
                Effect { wake: true, interrupt: true }
            }
            0x08 => {
                self.interrupts &= !value;
                Effect { wake: false, interrupt: true }
            }
            _ => {
                let within = offset.checked_sub(PORTS);
                let port = within.and_then(|within| usize::try_from(within / PORT_BYTES).ok());
                match (within, port.and_then(|port| self.ports.get_mut(port))) {
                    (Some(within), Some(port)) => port.write(within % PORT_BYTES, value),
                    _ => Effect::default(),
                }
            }
        }
    }

    /// Fetches a slot of `port` that is issued and not running, the first one after `last`: it is running from now on.
    pub(crate) fn fetch(&mut self, port: usize, last: u8) -> Option<u8> {
        if self.paused || self.resetting {
            return None;
        }
        let port = self.ports.get_mut(port)?;
        let ready = port.is_started() && !port.halted && port.present != Present::Nothing && !port.link_reset;
        let waiting = port.issued & !port.running;
        if !ready || waiting == 0 {
            return None;
        }
        let after = |slot: u8| slot.wrapping_sub(last).wrapping_sub(1) & 31;
        let slot = (0..32_u8).filter(|slot| waiting >> slot & 1 == 1).min_by_key(|slot| after(*slot))?;
        port.running |= 1 << slot;
        Some(slot)
    }
}
