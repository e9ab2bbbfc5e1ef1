//! SCSI logical units: disks and CD-ROM drives, as far as commands go.
//!
//! ```text
//!   CDB ─▶ Unit::start ─▶ Step::Data(bytes)             answered here
//!                    ├──▶ Step::Read / Write / …       the transport moves the data with the unit's engine
//!                    └──▶ Sense                        CHECK CONDITION
//! ```
//!
//! Nothing is passed through: a command reaches the bytes of its medium, or it is refused.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

mod bay;
mod block;
mod cdb;
mod counters;
mod inquiry;
mod mmc;
mod mode;
mod sense;
mod state;
mod unit;

pub use bay::{Bay, DiskConfig, DriveConfig, DriveKind, MediumError, SharedBay, Tray, TrayState};
pub use counters::{DriveCounters, Work};
pub use sense::{SENSE_BYTES, Sense};
pub use state::{MediumState, UnitState};
pub use unit::{CDROM_BLOCK_BYTES, Kind, Medium, Parameters, Range, Step, Unit};

/// Status of a command that is done (SAM-5 §5.3).
pub const GOOD: u8 = 0x00;
/// Status of a command that failed; there is sense data.
pub const CHECK_CONDITION: u8 = 0x02;
/// Status of a command that found no room in the device.
pub const TASK_SET_FULL: u8 = 0x28;

/// Longest serial number in bytes, as the unit serial number page shows it.
pub const SERIAL_MAX_BYTES: usize = 36;
