//! What a request asks for (virtio 1.3 §5.6.6): everything that the guest says is checked here, once.

use orlop_scsi::{SENSE_BYTES, Sense};
use orlop_virtio::{Buffers, Request};

use crate::space::Sizes;

/// `lun`, `id`, `task_attr`, `prio`, `crn`: what a command has before its CDB.
const HEADER_BYTES: usize = 19;
/// `sense_len`, `residual`, `status_qualifier`, `status`, `response`: what a response has before its sense data.
const RESPONSE_BYTES: usize = 12;
/// `type`, `subtype`, `lun`, `id`: a task management function (virtio 1.3 §5.6.6.2).
const TASK_BYTES: usize = 24;

/// The response codes (virtio 1.3 §5.6.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// The command was carried out; its SCSI status tells how.
    Ok = 0,
    /// There was less room for data than the command moves.
    Overrun = 1,
    /// There is no such target.
    BadTarget = 3,
    /// The device failed.
    Failure = 9,
}

/// Where a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) target: usize,
    pub(crate) unit: u16,
}

impl Address {
    /// `[1, target, LUN in flat or peripheral format, 0, 0, 0, 0]` (virtio 1.3 §5.6.6.1); anything else is no target.
    fn of(lun: [u8; 8]) -> Option<Self> {
        let [1, target, high, low, _, _, _, _] = lun else { return None };
        let unit = u16::from_be_bytes([high & 0x3f, low]);
        (high & 0x80 == 0).then_some(Self { target: usize::from(target), unit })
    }
}

/// A command, taken apart.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) address: Option<Address>,
    /// The driver's name for it, for task management.
    pub(crate) id: u64,
    pub(crate) cdb: Vec<u8>,
    /// What the guest sends.
    pub(crate) out: Buffers,
    /// Where the guest wants its data.
    pub(crate) data: Buffers,
    pub(crate) response: Response,
}

/// Where a response goes.
#[derive(Debug)]
pub(crate) struct Response {
    place: Buffers,
}

/// A request that has no room for what it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Takes a request of a request queue apart.
pub(crate) fn command(request: Request, sizes: &Sizes) -> Result<Command, Malformed> {
    let Request { head: _, mut readable, mut writable } = request;
    let place = writable.split_to(RESPONSE_BYTES.saturating_add(sizes.sense())).map_err(|_| Malformed)?;
    let first = readable.split_to(HEADER_BYTES.saturating_add(sizes.cdb())).map_err(|_| Malformed)?;
    let mut header = vec![0; first.len()];
    first.copy_to(&mut header).map_err(|_| Malformed)?;
    let (fixed, cdb) = header.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed)?;
    let [l0, l1, l2, l3, l4, l5, l6, l7, i0, i1, i2, i3, i4, i5, i6, i7, _, _, _] = *fixed;
    Ok(Command {
        address: Address::of([l0, l1, l2, l3, l4, l5, l6, l7]),
        id: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
        cdb: cdb.to_vec(),
        out: readable,
        data: writable,
        response: Response { place },
    })
}

impl Response {
    /// Length in bytes: what the driver may count on being written.
    pub(crate) fn len(&self) -> usize {
        self.place.len()
    }

    /// Writes the response. False when guest memory does not take it.
    pub(crate) fn write(&self, code: Code, status: u8, sense: Option<Sense>, residual: usize) -> bool {
        let fixed = sense.map(Sense::fixed);
        let sense = fixed.as_ref().map_or(&[][..], |fixed| &fixed[..]);
        let room = self.place.len().saturating_sub(RESPONSE_BYTES);
        let len = u32::try_from(sense.len().min(room)).unwrap_or(0);
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend(u32::try_from(residual).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend([0, 0, status, code as u8]);
        bytes.extend(sense);
        bytes.resize(self.place.len(), 0);
        self.place.copy_from(&bytes).is_ok()
    }
}

const _: () = assert!(SENSE_BYTES <= u8::MAX as usize);

/// A request of the control queue.
#[derive(Debug)]
pub(crate) enum Control {
    /// A task management function on `address`; `id` names one command.
    Task { function: u32, address: Option<Address>, id: u64, answer: Buffers },
    /// A query about or subscription to asynchronous events, of which there are none.
    Notification { answer: Buffers },
    /// Neither.
    Unknown { answer: Buffers },
}

/// Takes a request of the control queue apart.
pub(crate) fn control(request: Request) -> Result<Control, Malformed> {
    let Request { head: _, readable, writable: answer } = request;
    let mut bytes = [0; TASK_BYTES];
    let there = readable.len().min(TASK_BYTES);
    let (present, _) = bytes.split_at_mut_checked(there).ok_or(Malformed)?;
    readable.copy_to(present).map_err(|_| Malformed)?;
    let [t0, t1, t2, t3, f0, f1, f2, f3, l0, l1, l2, l3, l4, l5, l6, l7, id @ ..] = bytes;
    let (need, room) = match u32::from_le_bytes([t0, t1, t2, t3]) {
        0 => (TASK_BYTES, 1),
        // `type`, `lun`, `event_requested`; `event_actual`, `response` (virtio 1.3 §5.6.6.2).
        1 | 2 => (16, 5),
        _ => (4, 1),
    };
    if there < need || answer.len() < room {
        return Err(Malformed);
    }
    Ok(match u32::from_le_bytes([t0, t1, t2, t3]) {
        0 => Control::Task {
            function: u32::from_le_bytes([f0, f1, f2, f3]),
            address: Address::of([l0, l1, l2, l3, l4, l5, l6, l7]),
            id: u64::from_le_bytes(id),
            answer,
        },
        1 | 2 => Control::Notification { answer },
        _ => Control::Unknown { answer },
    })
}
