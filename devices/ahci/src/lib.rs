//! An AHCI controller (AHCI 1.3.1) with ATA disks and ATAPI CD-ROM drives.
//!
//! ```text
//!   guest ── vCPU thread ── registers (Hba) ── wake ─▶ thread ── fetch ─▶ frame, PRDT ─▶ Engine (orlop-disk)
//!                               ▲                        │
//!                               └── frames, interrupts ──┴── completions
//! ```
//!
//! The registers are behind one small lock, which is never held while a disk works. The guest's lists and tables are read
//! once and bounded; nothing of them can make the host touch memory outside the guest's, or a byte outside a disk.
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

mod ata;
mod drive;
mod fis;
mod function;
mod identify;
mod pieces;
mod registers;
mod serve;
mod show;
mod state;
mod table;
mod thread;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use orlop_disk::GrowError;
use orlop_pci::{LayoutError, Msi};
use orlop_scsi::{DriveConfig, Tray};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use drive::Drive;
use registers::{Hba, Present};

pub use ata::{QueuedError, Settings};
pub use drive::DriveError;
pub use function::{Ahci, Platform};
pub use identify::SERIAL_MAX_BYTES;
pub use pieces::Ram;
pub use registers::PORTS_MAX;
pub use state::{AhciState, DriveState, PortState};

/// The BAR that holds the registers (§2.1.11).
pub const ABAR: u8 = 5;
/// Its length in bytes.
pub const ABAR_BYTES: u64 = 0x1000;

/// Runs first on the controller's thread, with the kind of thread (`ahci`), so that the host can confine it.
pub type ThreadHook = Arc<dyn Fn(&str) + Send + Sync>;

/// Is told of a guest fault, on the thread that finds it.
pub type TellFault = Box<dyn Fn(&str) + Send + Sync>;

/// What a controller is made of.
#[derive(Debug)]
pub struct Config {
    /// Its name on the host, for example `sata`: names its thread, at most 15 bytes.
    pub name: String,
    /// Its drives, on ports from 0 on: at most [`PORTS_MAX`].
    pub drives: Vec<DriveConfig>,
}

/// Why a controller cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Too many drives.
    #[error("an AHCI controller has at most {PORTS_MAX} drives, not {0}")]
    Drives(usize),
    /// A drive cannot be had.
    #[error("port {port}: {source}")]
    Drive {
        /// Which port.
        port: usize,
        /// What is wrong.
        source: DriveError,
    },
    /// The configuration space cannot be laid out: the BAR's address is not aligned.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The host has no more descriptors.
    #[error("cannot create an event file for the AHCI controller: {0}")]
    Event(#[source] std::io::Error),
    /// The host has no more threads.
    #[error("cannot start the thread of the AHCI controller: {0}")]
    Thread(#[source] std::io::Error),
}

/// A controller without its thread, on its way into a machine.
pub struct Controller {
    name: String,
    drives: Vec<Arc<Drive>>,
    hba: Hba,
    wake: EventFd,
}

/// The host's view of a drive.
#[derive(Clone)]
pub struct DriveHandle(Option<Arc<Drive>>);

impl DriveHandle {
    /// What it counted since power-on.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.0.as_ref().map(|drive| drive.counters.list()).unwrap_or_default()
    }

    /// Makes a disk longer, to `size_bytes`; the guest sees it after the next reset of the machine.
    pub fn grow(&self, size_bytes: u64) -> Result<(), GrowError> {
        self.0.as_ref().map_or(Err(GrowError::ReadOnly), |drive| drive.grow(size_bytes))
    }
}

impl Controller {
    /// The drive of `port`.
    pub fn drive(&self, port: usize) -> DriveHandle {
        DriveHandle(self.drives.get(port).cloned())
    }

    /// The tray of `port`, if there is a CD-ROM drive.
    pub fn tray(&self, port: usize) -> Option<Box<dyn Tray>> {
        self.drives.get(port)?.tray()
    }
}

#[derive(Debug, Default)]
struct Counters {
    commands: AtomicU64,
    interrupts: AtomicU64,
    task_file_errors: AtomicU64,
    faults: AtomicU64,
}

/// What the thread and the function have in common. Where both locks are needed a drive's comes before the registers'.
struct Shared {
    hba: Mutex<Hba>,
    ram: Arc<Ram>,
    drives: Vec<Arc<Drive>>,
    msi: Msi,
    counters: Counters,
    /// The thread has something to look at.
    wake: EventFd,
    on_fault: OnceLock<TellFault>,
}

/// Builds a controller. Every descriptor that it ever needs, but those of media to come, is opened here and in
/// [`Ahci::new`].
pub fn build(config: Config) -> Result<Controller, BuildError> {
    let Config { name, drives } = config;
    if drives.len() > PORTS_MAX {
        return Err(BuildError::Drives(drives.len()));
    }
    let drives = drives.into_iter().enumerate();
    let drives =
        drives.map(|(port, drive)| Drive::new(drive).map_err(|source| BuildError::Drive { port, source }));
    let drives = drives.map(|drive| drive.map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let present: Vec<Present> = drives.iter().map(|drive| drive.present()).collect();
    let wake = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(BuildError::Event)?;
    Ok(Controller { name, hba: Hba::new(&present), drives, wake })
}
