//! The machine: planned, built, driven.
//!
//! ```text
//!   VmConfig ── plan (pure) ──▶ Plan ── build ──▶ Machine ◀── driver task ── Handle ── API, command line
//!                                                   │  policy (pure): which request in which state
//!                                                   └── vCPU threads, device threads
//! ```

mod console;
mod events;
mod handle;
mod outcome;
mod policy;
mod ring;

pub use console::{Chunk, Console, ConsoleReader};
pub use events::{EventLog, EventReader};
pub use handle::{Handle, Refusal};
pub use outcome::Outcome;
