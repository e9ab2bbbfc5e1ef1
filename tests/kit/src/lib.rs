//! The fixture of tests that boot guests: a VMM process, its API, and the guest's serial console.
//!
//! Everything here panics with a sentence and the end of the console when something is not as it should be: it is only
//! ever called from tests.

mod console;
mod echo;
mod guest;
mod host;
mod places;
mod shared;
mod tap;
mod tools;
mod vm;

pub use console::Transcript;
pub use echo::{echo, questions};
pub use guest::{FirmwareKind, Guest, KernelKind, path};
pub use host::{eventually, finished, host, host_job, try_host};
pub use places::{agent, copy_of, image, probe, scratch, vmm};
pub use shared::{Shared, Start};
pub use tap::Tap;
pub use tools::tools_disk;
pub use vm::{Exit, Vm, ended};

use std::time::Duration;

/// How long a guest may take for anything that it is asked: an emulated processor on a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(300);
