//! The kinds of devices that a machine can have: a row each, from configuration to boxed device.
//!
//! To add one, write its crate under `devices/`, its row below, and its dependency in `Cargo.toml`. The order of the
//! rows is the order on the bus.

mod row;

use super::plan::PlanError;
use orlop_api::config::VmConfig;

pub use row::{Built, Controls, DeviceError, Spec, Wanted};

/// What one kind of device makes of a configuration: the devices that it asks for, checked.
type Row = fn(&VmConfig) -> Result<Vec<Wanted>, PlanError>;

/// All kinds.
pub const ROWS: &[Row] = &[];
