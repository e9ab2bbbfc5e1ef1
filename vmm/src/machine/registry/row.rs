//! What a row of the registry is made of.

use std::fmt::Debug;

use orlop_api::device::DeviceKind;
use orlop_virtio::Parts;

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
}

/// A device that has been built, without its threads.
pub struct Built {
    /// What the frame takes.
    pub parts: Parts,
    /// What the host can change while it runs.
    pub controls: Controls,
}

/// Sets a network card's cable.
pub type SetLink = Box<dyn Fn(bool) + Send>;
/// Sets a balloon's target in bytes.
pub type SetTarget = Box<dyn Fn(u64) + Send>;

/// What the host can change of a device while it runs.
#[derive(Default)]
pub struct Controls {
    /// The cable of a network card.
    pub link: Option<SetLink>,
    /// The target of a balloon.
    pub balloon: Option<SetTarget>,
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
}

impl DeviceError {
    /// What a device's room says, with its causes.
    pub fn of(error: impl std::error::Error) -> Self {
        Self::Room(super::super::chain(&error))
    }
}
