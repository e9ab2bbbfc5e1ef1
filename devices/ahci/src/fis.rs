//! Frame information structures (Serial ATA 3.2 §10.5).

/// Status: the device is ready, the seek is complete.
pub(crate) const READY: u8 = 0x50;
/// Status: there was an error.
pub(crate) const ERR: u8 = 0x01;
/// Status: data is to be moved.
pub(crate) const DRQ: u8 = 0x08;
/// Error: the command was aborted.
pub(crate) const ABRT: u8 = 0x04;
/// Error: there is no such sector.
pub(crate) const IDNF: u8 = 0x10;
/// Error: the medium failed.
pub(crate) const UNC: u8 = 0x40;

/// Signature of an ATA device, in the order of PxSIG: sector count, LBA low, mid, high.
pub(crate) const SIGNATURE_ATA: u32 = 0x0000_0101;
/// Signature of an ATAPI device.
pub(crate) const SIGNATURE_ATAPI: u32 = 0xeb14_0101;

const TYPE_TO_DEVICE: u8 = 0x27;
const TYPE_TO_HOST: u8 = 0x34;
const TYPE_PIO_SETUP: u8 = 0x5f;
const TYPE_SET_BITS: u8 = 0xa1;
const INTERRUPT: u8 = 1 << 6;
const TO_HOST: u8 = 1 << 5;

/// The registers of a device that a command sets and a completion shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TaskFile {
    pub(crate) lba: u64,
    pub(crate) device: u8,
    pub(crate) count: u16,
}

/// A register frame from the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The command register was written.
    Command(Command),
    /// The device control register was written; `reset` is its SRST bit.
    Control { reset: bool },
}

/// A command with its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) command: u8,
    pub(crate) features: u16,
    pub(crate) registers: TaskFile,
}

impl Frame {
    /// Reads a frame; none where it is of another type.
    pub(crate) fn of(frame: &[u8; 64]) -> Option<Self> {
        let [
            kind,
            flags,
            command,
            features,
            l0,
            l1,
            l2,
            device,
            l3,
            l4,
            l5,
            features_high,
            c0,
            c1,
            _,
            control,
            ..,
        ] = *frame;
        if kind != TYPE_TO_DEVICE {
            return None;
        }
        if flags & 0x80 == 0 {
            return Some(Self::Control { reset: control & 4 != 0 });
        }
        Some(Self::Command(Command {
            command,
            features: u16::from_le_bytes([features, features_high]),
            registers: TaskFile {
                lba: u64::from_le_bytes([l0, l1, l2, l3, l4, l5, 0, 0]),
                device,
                count: u16::from_le_bytes([c0, c1]),
            },
        }))
    }
}

fn registers(kind: u8, flags: u8, status: u8, error: u8, file: TaskFile) -> [u8; 20] {
    let [l0, l1, l2, l3, l4, l5, _, _] = file.lba.to_le_bytes();
    let [c0, c1] = file.count.to_le_bytes();
    [kind, flags, status, error, l0, l1, l2, file.device, l3, l4, l5, 0, c0, c1, 0, 0, 0, 0, 0, 0]
}

/// The frame by which a device says how a command ended.
pub(crate) fn to_host(interrupt: bool, status: u8, error: u8, file: TaskFile) -> [u8; 20] {
    registers(TYPE_TO_HOST, if interrupt { INTERRUPT } else { 0 }, status, error, file)
}

/// The frame before `bytes` of data that the device sends by PIO; `end` is the status after them.
pub(crate) fn pio_setup(end: u8, file: TaskFile, bytes: usize) -> [u8; 20] {
    let mut frame = registers(TYPE_PIO_SETUP, INTERRUPT | TO_HOST, READY | DRQ, 0, file);
    let count = u16::try_from(bytes).unwrap_or(u16::MAX).to_le_bytes();
    let [.., place, low, high, _, _] = &mut frame;
    (*place, *low, *high) = (end, count[0], count[1]);
    frame
}

/// The frame by which a device says which queued commands are done.
pub(crate) fn set_bits(status: u8, error: u8, done: u32) -> [u8; 8] {
    let [a, b, c, d] = done.to_le_bytes();
    // Only bits 0 to 2 and 4 to 6 of the status are in it.
    [TYPE_SET_BITS, INTERRUPT, status & 0x77, error, a, b, c, d]
}

/// The registers that show `signature`.
pub(crate) fn signature(signature: u32) -> TaskFile {
    let [count, low, mid, high] = signature.to_le_bytes();
    TaskFile { lba: u64::from_le_bytes([low, mid, high, 0, 0, 0, 0, 0]), device: 0, count: u16::from(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_where_the_specification_puts_them() {
        let mut frame = [0; 64];
        frame[..16].copy_from_slice(&[0x27, 0x80, 0x60, 1, 2, 3, 4, 0x40, 5, 6, 7, 8, 9, 10, 0, 0]);
        let registers = TaskFile { lba: 0x0706_0504_0302, device: 0x40, count: 0x0a09 };
        let command = Command { command: 0x60, features: 0x0801, registers };
        assert_eq!(Frame::of(&frame), Some(Frame::Command(command)));
        frame[1] = 0;
        frame[15] = 4;
        assert_eq!(Frame::of(&frame), Some(Frame::Control { reset: true }));
        frame[0] = 0x46;
        assert_eq!(Frame::of(&frame), None);
        let answer = to_host(true, READY, 0, registers);
        assert_eq!(answer[..14], [0x34, 0x40, 0x50, 0, 2, 3, 4, 0x40, 5, 6, 7, 0, 9, 10]);
        let setup = pio_setup(READY, registers, 512);
        assert_eq!(
            (setup[0], setup[1], setup[2], setup[15], setup[16], setup[17]),
            (0x5f, 0x60, 0x58, 0x50, 0, 2)
        );
    }

    #[test]
    fn a_signature_is_read_as_the_registers_in_order() {
        let file = signature(SIGNATURE_ATAPI);
        assert_eq!((file.count, file.lba), (1, 0xeb_1401));
    }
}
