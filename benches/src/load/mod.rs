//! The load itself: the same code in every guest, and on the host's end of the wire.

pub mod block;
pub mod net;

use std::time::Duration;

/// How a result stands on the guest's serial port: `bench: NAME VALUE`.
pub const RESULT: &str = "bench: ";

/// What the guest says when it has measured everything.
pub const DONE: &str = "bench: done";

/// How long one measurement takes.
pub const DURATION: Duration = Duration::from_secs(2);
