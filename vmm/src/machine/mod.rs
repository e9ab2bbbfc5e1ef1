//! The machine: planned, built, driven.
//!
//! ```text
//!   VmConfig ── plan (pure) ──▶ Plan ── build ──▶ Machine ◀── hands (thread) ◀── driver (task) ◀── Handle ◀── API
//!                                                   │                            policy (pure)
//!                                                   ├── vCPU threads ── buses ── board, PCI functions
//!                                                   └── device threads
//! ```
//!
//! Who owns what: the driver the state, the machine's thread the machine, a vCPU thread its registers, a device's
//! thread its queues. They talk by messages and event files. [`start`] is the way in.

mod boot;
mod build;
mod console;
mod driver;
mod events;
mod files;
mod firmware_log;
mod handle;
mod hands;
mod inspect;
#[expect(clippy::module_inception, reason = "the room is named after what it holds")]
mod machine;
mod memory;
mod outcome;
pub(crate) mod plan;
mod platform;
mod policy;
mod registry;
mod ring;
mod serial_log;
mod vcpu;
mod windows;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use orlop_api::state::VmState;
use tokio::sync::mpsc;

use crate::jail::{Jail, JailError, JailPolicy};
use crate::kvm::KvmSource;
use files::Files;
use firmware_log::FirmwareLog;
use vcpu::Alarm;

pub use console::{Chunk, Console, ConsoleReader};
pub use driver::Driver;
pub use events::{EventLog, EventReader};
pub use handle::{Handle, Refusal};
pub use outcome::Outcome;

/// What a process gives its machine, before any configuration.
#[derive(Debug)]
pub struct Setup {
    /// Descriptors that the process was started with, by name. The one named `kvm` is `/dev/kvm`.
    pub descriptors: BTreeMap<String, OwnedFd>,
    /// Whether a guest that asks for a reset gets one; otherwise the machine ends.
    pub reboot: bool,
    /// Whether a KVM without hardware virtualization will do.
    pub allow_software_kvm: bool,
    /// How the process is confined before the guest runs.
    pub jail: JailPolicy,
}

/// Why a process cannot hold a machine.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot be confined.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The host has no more threads.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// How much of firmware's messages waits to be logged, in bytes.
const FIRMWARE_BACKLOG_BYTES: usize = 64 << 10;

/// Starts the machine's thread. The [`Driver`] must then be driven on the runtime that serves the [`Handle`]s.
pub fn start(setup: Setup) -> Result<(Handle, Driver), StartError> {
    let (events, console) = (EventLog::default(), Console::new(64 << 10));
    let firmware_log = Console::new(FIRMWARE_BACKLOG_BYTES);
    let (handle, mailbox) = handle::channel(events.clone(), console.clone());
    let (report, acts) = mpsc::unbounded_channel();
    let alarm = Alarm::new(Box::new(move |act| {
        // The driver is gone only when the process is about to be.
        let _ = report.send(act);
    }));
    let mut files = Files::new(setup.descriptors);
    let jail = Arc::new(Jail::new(setup.jail)?);
    let hands = hands::Hands {
        kvm: files.optional("kvm").map(KvmSource::Descriptor),
        allow_software_kvm: setup.allow_software_kvm,
        files,
        console,
        firmware_log: firmware_log.clone(),
        events,
        alarm: Arc::new(alarm),
        jail: Arc::clone(&jail),
    };
    let driver = Driver {
        mailbox,
        acts,
        jobs: hands.spawn()?,
        jail,
        reboot: setup.reboot,
        state: VmState::NotCreated,
        config: None,
        serial: None,
        log: None,
        firmware_log: FirmwareLog::new(firmware_log.subscribe()),
        booted_at_unix_ms: None,
        resets: 0,
        waiting: VecDeque::new(),
    };
    Ok((handle, driver))
}

/// An error with its causes, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Many errors repeat their cause in their own text.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
