//! What a row of the registry is made of.

use std::fmt::Debug;
use std::sync::Arc;

use orlop_api::device::DeviceKind;
use orlop_disk::GrowError;
use orlop_pci::{Bdf, Function, MsiSink};
use orlop_scsi::Tray;
use orlop_virtio::{Fault, Inspection, Parts, Platform, Ram, ThreadHook, VirtioPci};

use crate::machine::files::{FileError, Files};

/// A device that a configuration asks for.
#[derive(Debug)]
pub struct Wanted {
    /// Its name in the machine.
    pub id: String,
    /// Where the configuration asks for it: `disks[0]`.
    pub field: String,
    /// What it is.
    pub kind: DeviceKind,
    /// How it is built.
    pub spec: Box<dyn Spec>,
}

/// Everything that a device needs to be built, decided.
pub trait Spec: Debug + Send {
    /// Opens what it names and builds it.
    fn build(self: Box<Self>, files: &mut Files) -> Result<Built, DeviceError>;

    /// Where it goes on the bus.
    fn seat(&self) -> Seat {
        Seat::Next
    }

    /// The devices behind it that have names of their own, as `(name, field)`.
    fn members(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Where a device goes on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// The next free place, with a 64-bit BAR of [`orlop_virtio::layout::BAR_BYTES`].
    Next,
    /// Where software expects it, with a 32-bit BAR.
    At {
        /// The place.
        bdf: Bdf,
        /// Length of the BAR in bytes.
        bar_bytes: u64,
    },
}

/// A device that has been built, without its threads.
pub struct Built {
    /// What becomes a function on the bus.
    pub card: Box<dyn Card>,
    /// What the host can change while it runs.
    pub controls: Controls,
    /// The devices behind it that have names of their own.
    pub members: Vec<Member>,
}

impl Built {
    /// A virtio device.
    pub fn virtio(parts: Parts, controls: Controls) -> Self {
        Self { card: Box::new(parts), controls, members: Vec::new() }
    }
}

/// What a device needs from the machine around it.
pub struct Around {
    /// Guest memory.
    pub ram: Arc<Ram>,
    /// Delivers its interrupts.
    pub msi: Arc<dyn MsiSink>,
    /// Runs first on each of its threads.
    pub hook: ThreadHook,
    /// Where its BAR is after power-on.
    pub bar_address: u64,
}

/// A device without threads, on its way into the machine.
pub trait Card {
    /// Starts its threads and makes it a function.
    fn plug_in(self: Box<Self>, around: Around) -> Result<Arc<dyn Live>, DeviceError>;
}

/// Is told of a guest fault, on the thread that finds it.
pub type TellFault = Box<dyn Fn(&str) + Send + Sync>;

/// A device as it is now.
pub struct Inspected {
    /// What the frame says, where it is virtio.
    pub virtio: Option<Inspection>,
    /// What it counted.
    pub counters: Vec<(&'static str, u64)>,
}

/// A device in its place.
pub trait Live: Function {
    /// How it is now.
    fn inspect(&self) -> Inspected;
    /// Calls `tell` for every guest fault; `tell` must not call the device.
    fn on_fault(&self, tell: TellFault);
}

impl Card for Parts {
    fn plug_in(self: Box<Self>, around: Around) -> Result<Arc<dyn Live>, DeviceError> {
        let Around { ram, msi, hook, bar_address } = around;
        let function = VirtioPci::new(*self, Platform { ram, msi, hook, bar_address });
        Ok(function.map_err(DeviceError::of)?)
    }
}

impl Live for VirtioPci {
    fn inspect(&self) -> Inspected {
        let found = self.inspect();
        Inspected { counters: found.counters.clone(), virtio: Some(found) }
    }

    fn on_fault(&self, tell: TellFault) {
        self.on_fault(Box::new(move |Fault(detail)| tell(detail)));
    }
}

/// A device behind another one: a disk behind its controller.
pub struct Member {
    /// Its name in the machine.
    pub id: String,
    /// What it is.
    pub kind: DeviceKind,
    /// What it counted.
    pub counters: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send>,
    /// Its tray, where it has one.
    pub tray: Option<Box<dyn Tray>>,
    /// Makes it longer, where it is a disk.
    pub grow: Option<Grow>,
}

/// Sets a network card's cable.
pub type SetLink = Box<dyn Fn(bool) + Send>;
/// Sets a balloon's target in bytes.
pub type SetTarget = Box<dyn Fn(u64) + Send>;

/// Makes a disk longer, to so many bytes, and tells the guest.
pub type Grow = Box<dyn Fn(u64) -> Result<(), GrowError> + Send>;

/// What the host can change of a device while it runs.
#[derive(Default)]
pub struct Controls {
    /// The cable of a network card.
    pub link: Option<SetLink>,
    /// The target of a balloon.
    pub balloon: Option<SetTarget>,
    /// The length of a disk.
    pub grow: Option<Grow>,
}

/// Why a device cannot be built: the host's fault.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A file that it names.
    #[error(transparent)]
    File(#[from] FileError),
    /// What its room says.
    #[error("{0}")]
    Room(String),
    /// A device behind it cannot be had.
    #[error("{source}")]
    Member {
        /// The part of the configuration that asks for that one.
        field: String,
        /// What is wrong with it.
        source: Box<DeviceError>,
    },
}

impl DeviceError {
    /// The same, blamed on `field`.
    pub fn at(self, field: &str) -> Self {
        Self::Member { field: field.to_owned(), source: Box::new(self) }
    }

    /// The part of the configuration that is to blame, where it is not the device itself.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Member { field, .. } => Some(field),
            Self::File(_) | Self::Room(_) => None,
        }
    }

    /// What a device's room says, with its causes.
    pub fn of(error: impl std::error::Error) -> Self {
        Self::Room(super::super::chain(&error))
    }
}
