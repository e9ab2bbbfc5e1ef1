//! What the thread does with a port: fetches commands, carries them out, shows how they ended.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use orlop_disk::{Completion, Operation};
use orlop_scsi::{Bay, Kind, Range, Sense, Step, Work};

use crate::Shared;
use crate::ata::{self, Act, Protocol, QueuedError};
use crate::drive::Drive;
use crate::fis::{ABRT, Command, ERR, Frame, IDNF, READY, SIGNATURE_ATAPI, TaskFile, UNC, signature};
use crate::identify;
use crate::pieces::{Outside, Pieces};
use crate::show::{Failure, Success};
use crate::table::Slot;

/// Length of a register frame in dwords.
const FRAME_DWORDS: std::ops::RangeInclusive<u8> = 5..=16;
/// Interrupt reason of a packet command that is over: I/O, command/data (ATA8-ACS §7.18).
const PACKET_OVER: u16 = 0b11;

/// A command that was handed to an engine.
struct Running {
    slot: Slot,
    file: TaskFile,
    success: Success,
    work: Work,
    bytes: u64,
    moved: usize,
    rest: VecDeque<Range>,
    durable: bool,
}

impl Running {
    fn next(&mut self) -> Option<Operation<Pieces>> {
        if let Some(Range { offset, len }) = self.rest.pop_front() {
            return Some(Operation::Discard { offset, len });
        }
        std::mem::take(&mut self.durable).then_some(Operation::Flush)
    }

    fn queued(&self) -> bool {
        matches!(self.success, Success::Queued(_))
    }
}

/// Why a command goes no further.
enum Stop {
    /// The device refuses it: the error register and the others.
    Refused(u8, TaskFile),
    /// It names memory that is not there.
    Outside,
}

impl From<Outside> for Stop {
    fn from(_: Outside) -> Self {
        Self::Outside
    }
}

/// One port as the thread knows it.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    port: usize,
    /// The slot that was fetched last.
    last: u8,
    running: Vec<Option<Running>>,
}

impl Lane {
    pub(crate) fn new(shared: Arc<Shared>, port: usize) -> Self {
        Self { shared, port, last: 31, running: (0..32).map(|_| None).collect() }
    }

    /// Finishes what is finished and begins what can be begun.
    pub(crate) fn serve(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(drive) = shared.drives.get(self.port) else { return };
        shared.show_signature(self.port);
        if !shared.hba().paused
            && let Some(engine) = &mut drive.bay().engine
        {
            engine.go_on();
        }
        loop {
            self.reap(&mut drive.bay());
            if !self.begin_next(drive) {
                break;
            }
        }
    }

    /// Waits for everything that is in flight.
    pub(crate) fn drain(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(drive) = shared.drives.get(self.port) else { return };
        let mut bay = drive.bay();
        while bay.engine.as_ref().is_some_and(|engine| engine.in_flight() > 0) {
            if let Some(engine) = &mut bay.engine {
                engine.wait();
            }
            self.reap(&mut bay);
        }
        if let Some(engine) = &mut bay.engine {
            engine.stand_still();
        }
    }

    /// Forgets the commands that wait for the machine to go on.
    pub(crate) fn forget(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(drive) = shared.drives.get(self.port) else { return };
        if let Some(engine) = &mut drive.bay().engine {
            engine.forget();
        }
        self.running.fill_with(|| None);
    }

    /// Fetches a command and begins it. False when there is none, or none that may run beside what is running: only
    /// queued commands run together.
    fn begin_next(&mut self, drive: &Drive) -> bool {
        let (others, alone) = {
            let mut running = self.running.iter().flatten();
            (running.clone().next().is_some(), running.any(|running| !running.queued()))
        };
        if alone {
            return false;
        }
        let Some((number, list)) = self.shared.fetch(self.port, self.last) else { return false };
        let Ok(slot) = Slot::read(&self.shared.ram, list, number) else {
            self.shared.fatal(self.port, number);
            return true;
        };
        let frame = Frame::of(&slot.frame).filter(|_| FRAME_DWORDS.contains(&slot.frame_dwords));
        let queued = matches!(&frame, Some(Frame::Command(c)) if ata::is_queued(c.command));
        if others && !(queued && drive.kind == Kind::Disk) {
            self.shared.put_back(self.port, number);
            return false;
        }
        self.last = number;
        self.begin(drive, number, slot, frame);
        true
    }

    fn begin(&mut self, drive: &Drive, number: u8, slot: Slot, frame: Option<Frame>) {
        let command = match frame {
            Some(Frame::Control { reset }) if !slot.multiplied => {
                return self.shared.soft_reset(self.port, number, reset);
            }
            Some(Frame::Command(command)) if !slot.multiplied => command,
            // No device takes such a frame.
            _ => {
                drive.counters.refused();
                return self.shared.fail(self.port, number, &Failure::new(ABRT, TaskFile::default(), None));
            }
        };
        let queued = ata::is_queued(command.command) && drive.kind == Kind::Disk;
        let mut bay = drive.bay();
        let begun = match drive.kind {
            Kind::Disk => self.begin_ata(drive, &mut bay, number, slot, &command),
            Kind::Cdrom => self.begin_atapi(drive, &mut bay, number, slot, &command),
        };
        match begun {
            Ok(()) => {}
            Err(Stop::Outside) => self.shared.fatal(self.port, number),
            Err(Stop::Refused(error, file)) => {
                drive.counters.refused();
                let tag = queued.then_some(number);
                self.note_error(drive, tag, error, file);
                self.shared.fail(self.port, number, &Failure::new(error, file, tag));
            }
        }
    }

    /// Keeps what log 10h tells of a queued command.
    fn note_error(&self, drive: &Drive, tag: Option<u8>, error: u8, file: TaskFile) {
        let tag = tag.map(|tag| QueuedError { tag, status: READY | ERR, error, lba: file.lba });
        if let Some(queued_error) = tag {
            drive.ata().queued_error = Some(queued_error);
        }
    }

    fn begin_ata(
        &mut self,
        drive: &Drive,
        bay: &mut Bay<Pieces>,
        number: u8,
        slot: Slot,
        command: &Command,
    ) -> Result<(), Stop> {
        let file = command.registers;
        let refuse = |error| Stop::Refused(error, file);
        let medium = bay.unit.medium().copied().ok_or(refuse(ABRT))?;
        let act = ata::decode(command, &medium, &mut drive.ata().settings).map_err(refuse)?;
        let mut running = Running {
            slot,
            file,
            success: Success::Registers,
            work: Work::Other,
            bytes: 0,
            moved: 0,
            rest: VecDeque::new(),
            durable: false,
        };
        match act {
            Act::Read { range: Range { offset, len }, protocol } => {
                let to = self.whole(&running.slot, len, file)?;
                (running.work, running.bytes, running.moved) = (Work::Read, len, to.len());
                running.success = self.success(protocol, number, to.len(), file)?;
                self.submit(bay, drive, number, running, Operation::Read { offset, to })
            }
            Act::Write { range: Range { offset, len }, durable, protocol } => {
                let from = self.whole(&running.slot, len, file)?;
                (running.work, running.bytes, running.moved) = (Work::Write, len, from.len());
                running.durable = durable || !bay.unit.write_cache();
                running.success = self.success(protocol, number, from.len(), file)?;
                self.submit(bay, drive, number, running, Operation::Write { offset, from })
            }
            Act::Flush => {
                running.work = Work::Flush;
                self.submit(bay, drive, number, running, Operation::Flush)
            }
            Act::WriteCache(on) => {
                bay.unit.set_write_cache(on);
                running.work = Work::Flush;
                self.submit(bay, drive, number, running, Operation::Flush)
            }
            Act::Trim { bytes } => {
                let len = u64::try_from(bytes).unwrap_or(u64::MAX);
                let list = self.whole(&running.slot, len, file)?.read()?;
                let ranges = ata::trim_ranges(&list, &medium).map_err(refuse)?;
                running.work = Work::Discard;
                running.bytes = ranges.iter().fold(0, |sum, range| sum.saturating_add(range.len));
                running.rest = ranges.into();
                match running.next() {
                    Some(operation) => self.submit(bay, drive, number, running, operation),
                    None => self.end(drive, number, running, Ok(())),
                }
            }
            Act::Identify => {
                let settings = drive.ata().settings.clone();
                let bytes = identify::disk(&drive.serial, &medium, &settings, bay.unit.write_cache());
                self.send(drive, number, running, &bytes, Protocol::Pio)
            }
            Act::ErrorLog { protocol } => {
                let bytes = ata::error_log(drive.ata().queued_error);
                self.send(drive, number, running, &bytes, protocol)
            }
            Act::Data { bytes, protocol } => self.send(drive, number, running, &bytes, protocol),
            Act::Done(file) => {
                running.file = file;
                self.end(drive, number, running, Ok(()))
            }
        }
    }

    fn begin_atapi(
        &mut self,
        drive: &Drive,
        bay: &mut Bay<Pieces>,
        number: u8,
        slot: Slot,
        command: &Command,
    ) -> Result<(), Stop> {
        let mut running = Running {
            slot,
            file: command.registers,
            success: Success::Registers,
            work: Work::Other,
            bytes: 0,
            moved: 0,
            rest: VecDeque::new(),
            durable: false,
        };
        match command.command {
            0xa0 => self.begin_packet(drive, bay, number, running, command.features & 1 != 0),
            0xa1 => self.send(drive, number, running, &identify::cdrom(&drive.serial), Protocol::Pio),
            // IDENTIFY DEVICE tells by the signature that this is no disk (ATA8-ACS §7.12.4).
            0xec => Err(Stop::Refused(ABRT, signature(SIGNATURE_ATAPI))),
            // DEVICE RESET.
            0x08 => {
                running.file = signature(SIGNATURE_ATAPI);
                self.end(drive, number, running, Ok(()))
            }
            0xe5 => {
                running.file.count = 0xff;
                self.end(drive, number, running, Ok(()))
            }
            // Transfer mode, standby, idle: nothing to do.
            0xef if command.features & 0xff == 0x03 => self.end(drive, number, running, Ok(())),
            0xe0..=0xe3 | 0xe6 => self.end(drive, number, running, Ok(())),
            _ => Err(Stop::Refused(ABRT, running.file)),
        }
    }

    /// PACKET: a SCSI command. By PIO its data comes with a setup frame.
    fn begin_packet(
        &mut self,
        drive: &Drive,
        bay: &mut Bay<Pieces>,
        number: u8,
        mut running: Running,
        dma: bool,
    ) -> Result<(), Stop> {
        running.file = TaskFile { count: PACKET_OVER, ..running.file };
        let file = running.file;
        let ram = &self.shared.ram;
        let sent = |len: usize| {
            running.slot.memory(ram, len).ok().and_then(|memory| memory.read().ok()).unwrap_or_default()
        };
        let step = bay.unit.start(&running.slot.packet, &sent);
        let refuse = |bay: &mut Bay<Pieces>, sense: Sense| {
            bay.unit.keep_sense(sense);
            Stop::Refused(sense.atapi_error(), file)
        };
        let step = step.map_err(|sense| refuse(bay, sense))?;
        (running.work, running.bytes) = step.measure();
        let over =
            |len: usize| if dma || len == 0 { Success::Registers } else { Success::PioAndRegisters(len) };
        match step {
            Step::Data(bytes) => {
                let memory = running.slot.memory(ram, bytes.len())?;
                memory.write(bytes.get(..memory.len()).unwrap_or_default())?;
                running.moved = memory.len();
                running.success = over(running.moved);
                self.end(drive, number, running, Ok(()))
            }
            Step::Read(Range { offset, len }) => {
                let to = running.slot.memory(ram, usize::try_from(len).unwrap_or(usize::MAX))?;
                if u64::try_from(to.len()) != Ok(len) {
                    return Err(refuse(bay, Sense::INVALID_FIELD));
                }
                running.moved = to.len();
                running.success = over(running.moved);
                self.submit(bay, drive, number, running, Operation::Read { offset, to })
            }
            // A CD-ROM has nothing to make durable, and no other command leads elsewhere.
            Step::Flush => self.end(drive, number, running, Ok(())),
            Step::Write { .. } | Step::Discard(_) | Step::WriteZeroes { .. } => {
                Err(refuse(bay, Sense::WRITE_PROTECTED))
            }
        }
    }

    /// All `len` bytes of memory that a command needs.
    fn whole(&self, slot: &Slot, len: u64, file: TaskFile) -> Result<Pieces, Stop> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let memory = slot.memory(&self.shared.ram, len)?;
        if memory.len() == len { Ok(memory) } else { Err(Stop::Refused(ABRT, file)) }
    }

    /// How a command of slot `number` that goes well is shown. A tag that is not the slot's is refused.
    fn success(&self, protocol: Protocol, number: u8, len: usize, file: TaskFile) -> Result<Success, Stop> {
        match protocol {
            Protocol::Pio => Ok(Success::Pio(len)),
            Protocol::Dma => Ok(Success::Registers),
            Protocol::Queued(tag) if tag == number => Ok(Success::Queued(tag)),
            Protocol::Queued(_) => Err(Stop::Refused(ABRT, file)),
        }
    }

    /// Sends `bytes` to the driver, and that is all.
    fn send(
        &self,
        drive: &Drive,
        number: u8,
        mut running: Running,
        bytes: &[u8],
        protocol: Protocol,
    ) -> Result<(), Stop> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.whole(&running.slot, len, running.file)?.write(bytes)?;
        running.moved = bytes.len();
        running.success = self.success(protocol, number, bytes.len(), running.file)?;
        self.end(drive, number, running, Ok(()))
    }

    fn submit(
        &mut self,
        bay: &mut Bay<Pieces>,
        drive: &Drive,
        number: u8,
        running: Running,
        operation: Operation<Pieces>,
    ) -> Result<(), Stop> {
        let file = running.file;
        let engine = bay.engine.as_mut().ok_or(Stop::Refused(ABRT, file))?;
        engine.submit(u64::from(number), operation).map_err(|_| Stop::Refused(ABRT, file))?;
        if running.queued() {
            self.shared.accept(self.port, number, file);
        }
        if let Some(place) = self.running.get_mut(usize::from(number)) {
            *place = Some(running);
        }
        // A drive carries its command out at once: its medium must not go away before that is done.
        if drive.kind == Kind::Cdrom {
            self.reap(bay);
        }
        Ok(())
    }

    /// Finishes what the engine has finished.
    fn reap(&mut self, bay: &mut Bay<Pieces>) {
        let shared = Arc::clone(&self.shared);
        let Some(drive) = shared.drives.get(self.port) else { return };
        while let Some(engine) = &mut bay.engine {
            let Some(Completion { token, result, memory }) = engine.complete() else {
                // After the last one, which may have led to more (`Engine::commit`).
                if engine.commit().is_err() {
                    // The host is short of memory for the moment; soon again.
                    let _ = shared.wake.write(1);
                }
                break;
            };
            drop(memory);
            let Ok(number) = u8::try_from(token) else { continue };
            let place = self.running.get_mut(usize::from(number));
            let Some(mut running) = place.and_then(Option::take) else { continue };
            let next = if result.is_ok() { running.next() } else { None };
            let goes_on = next.map(|operation| engine.submit(token, operation).is_ok());
            let ended = match goes_on {
                Some(true) => {
                    if let Some(place) = self.running.get_mut(usize::from(number)) {
                        *place = Some(running);
                    }
                    Ok(())
                }
                Some(false) => {
                    self.end(drive, number, running, Err(io::Error::from_raw_os_error(libc::EBUSY)))
                }
                None => {
                    if let Err(error) = &result
                        && drive.kind == Kind::Cdrom
                    {
                        bay.unit.keep_sense(Sense::of_error(error, false));
                    }
                    self.end(drive, number, running, result)
                }
            };
            if ended.is_err() {
                shared.fatal(self.port, number);
            }
        }
    }

    /// A command is over: counts it and shows it.
    fn end(&self, drive: &Drive, number: u8, running: Running, result: io::Result<()>) -> Result<(), Stop> {
        let Running { slot, file, success, work, bytes, moved, .. } = running;
        match result {
            Ok(()) => {
                if !matches!(success, Success::Queued(_)) {
                    slot.set_count(&self.shared.ram, moved)?;
                }
                drive.counters.done(work, bytes);
                self.shared.succeed(self.port, number, success, file);
            }
            Err(error) => {
                drive.counters.failed(work);
                let error = match drive.kind {
                    Kind::Cdrom => Sense::of_error(&error, false).atapi_error(),
                    Kind::Disk if error.raw_os_error() == Some(libc::EINVAL) => IDNF,
                    Kind::Disk => UNC,
                };
                let tag = matches!(success, Success::Queued(_)).then_some(number);
                self.note_error(drive, tag, error, file);
                self.shared.fail(self.port, number, &Failure::new(error, file, tag));
            }
        }
        Ok(())
    }
}
