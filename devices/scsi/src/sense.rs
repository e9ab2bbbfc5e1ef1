//! Why a command failed (SPC-4 §4.5).

use std::io;

/// Length of fixed-format sense data in bytes.
pub const SENSE_BYTES: usize = 18;

/// Sense key, additional sense code and its qualifier (SPC-4 §4.5.6, annex D).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub code: u8,
    /// Additional sense code qualifier.
    pub qualifier: u8,
}

impl Sense {
    /// Nothing to tell.
    pub const NONE: Self = Self::new(0, 0, 0);
    /// The tray is closed on nothing.
    pub const NO_MEDIUM: Self = Self::new(2, 0x3a, 0x01);
    /// The tray is open.
    pub const TRAY_OPEN: Self = Self::new(2, 0x3a, 0x02);
    /// The medium cannot be read there.
    pub const READ_ERROR: Self = Self::new(3, 0x11, 0x00);
    /// The medium cannot be written there.
    pub const WRITE_ERROR: Self = Self::new(3, 0x0c, 0x00);
    /// The unit does not know the command.
    pub const INVALID_COMMAND: Self = Self::new(5, 0x20, 0x00);
    /// A block beyond the end.
    pub const OUT_OF_RANGE: Self = Self::new(5, 0x21, 0x00);
    /// A field of the command cannot be.
    pub const INVALID_FIELD: Self = Self::new(5, 0x24, 0x00);
    /// There is no such logical unit.
    pub const NO_UNIT: Self = Self::new(5, 0x25, 0x00);
    /// A field of the data sent with the command cannot be.
    pub const INVALID_PARAMETER: Self = Self::new(5, 0x26, 0x00);
    /// Less data was sent than the command needs.
    pub const PARAMETER_LENGTH: Self = Self::new(5, 0x1a, 0x00);
    /// The guest itself has locked the tray.
    pub const LOCKED: Self = Self::new(5, 0x53, 0x02);
    /// Another medium may have been put in.
    pub const MEDIUM_CHANGED: Self = Self::new(6, 0x28, 0x00);
    /// The disk has another size (SBC-3 §4.7).
    pub const CAPACITY_CHANGED: Self = Self::new(6, 0x2a, 0x09);
    /// Power on, reset.
    pub const RESET: Self = Self::new(6, 0x29, 0x00);
    /// The host wants the medium back (MMC-6 §F, operator medium removal request).
    pub const REMOVAL_REQUEST: Self = Self::new(6, 0x5a, 0x01);
    /// The medium cannot be written to.
    pub const WRITE_PROTECTED: Self = Self::new(7, 0x27, 0x00);
    /// The host has no room left.
    pub const NO_SPACE: Self = Self::new(7, 0x27, 0x07);

    pub(crate) const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self { key, code, qualifier }
    }

    /// What the guest is told of an `error` of the host.
    pub fn of_error(error: &io::Error, write: bool) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NO_SPACE,
            Some(libc::EROFS) => Self::WRITE_PROTECTED,
            _ if write => Self::WRITE_ERROR,
            _ => Self::READ_ERROR,
        }
    }

    /// In fixed format, as current (SPC-4 §4.5.3).
    pub fn fixed(self) -> [u8; SENSE_BYTES] {
        let Self { key, code, qualifier } = self;
        [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0]
    }
}
