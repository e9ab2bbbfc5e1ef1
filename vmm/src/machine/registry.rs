//! The kinds of devices that a machine can have: a row each, from configuration to boxed device.
//!
//! To add one, write its crate under `devices/`, its row in a file here, its name in the list below, and its dependency
//! in `Cargo.toml`. The order of the list is the order on the bus.

mod drive;
mod image;
mod row;

use super::plan::PlanError;
use orlop_api::config::VmConfig;

pub use row::{
    Around, Built, Card, Controls, DeviceError, Grow, Inspected, Live, Member, Seat, Spec, TellFault, Wanted,
};

/// What one kind of device makes of a configuration: the devices that it asks for, checked.
pub type Row = fn(&VmConfig) -> Result<Vec<Wanted>, PlanError>;

macro_rules! rows {
    ($($kind:ident),* $(,)?) => {
        $(mod $kind;)*

        /// All kinds, in the order of the bus.
        pub const ROWS: &[Row] = &[$($kind::row),*];
    };
}

rows! {
    blk,
    scsi,
    ahci,
    net,
    console,
    rng,
    vsock,
    balloon,
}
