//! The fixture of tests that boot guests: a VMM process, its API, and the guest's serial console.
//!
//! Everything here panics with a sentence and the end of the console when something is not as it should be: it is only
//! ever called from tests.

mod console;
mod guest;
mod places;
mod vm;

pub use console::Transcript;
pub use guest::{Guest, KernelKind, path};
pub use places::{agent, copy_of, image, scratch, vmm};
pub use vm::{Exit, Vm};

use std::time::Duration;

/// How long a guest may take for anything that it is asked: an emulated processor on a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(120);
