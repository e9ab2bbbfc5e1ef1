//! Where a virtual disk keeps its bytes: raw files, block devices and qcow2 images.
//!
//! A [`Disk`] is an opened, locked and measured image. Each queue of a device has an [`Engine`] of its own on it, which
//! takes [`Operation`]s and gives [`Completion`]s back in any order:
//!
//! ```text
//!   submit(Operation) ─▶ Flight ─▶ Step ─▶ kernel ─▶ result ─▶ Flight ─▶ complete() = Completion
//!                          ▲                                     │
//!                          └──── short, interrupted, bounced ◀───┘
//! ```
//!
//! What an operation needs next is decided by its flight, which knows no engine; an engine (io_uring, or plain system
//! calls where io_uring is not permitted) only carries steps out. The memory of an operation belongs to its flight
//! until the kernel is done with it.
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

mod disk;
mod engine;
mod flight;
mod format;
mod guard;
mod host;
mod host_io;
#[cfg(feature = "kit")]
pub mod kit;
mod lock;
mod memory;
mod open_error;
mod qcow2;
mod refusing;
mod sync;
mod sys;
mod uring;

pub use disk::{BLOCK_MAX_BYTES, Blocks, BlocksError, CHAIN_MAX, Chain, Disk, GrowError, Image, Source};
pub use engine::{Completion, Engine, EngineKind, Operation, open_engine};
pub use format::{Format, FormatError};
pub use guard::{ErrorHandling, ErrorPolicy, Guard, Stopped, TellStop};
pub use host::{Options, SECTOR_BYTES};
pub use memory::Memory;
pub use open_error::OpenError;
