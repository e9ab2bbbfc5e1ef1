//! The kernel that a machine starts, and starts anew after a reset.

use std::fs::File;

use orlop_api::config::{BootProtocol, KernelConfig};
use orlop_firmware::kernel::{self, Boot, Choice, EntryPoint, LoadError, Part};
use orlop_virtio::Ram;

use super::files::{Access, FileError, Files};
use super::plan::Plan;

/// The open files of a kernel.
pub struct BootSource {
    kernel: File,
    initramfs: Option<File>,
}

/// Why a kernel cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel cannot be opened.
    #[error(transparent)]
    Kernel(FileError),
    /// The initial RAM file system cannot be opened.
    #[error(transparent)]
    Initramfs(FileError),
    /// One of them is not what it should be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The firmware tables cannot be written.
    #[error("{0}")]
    Tables(String),
}

impl BootError {
    /// The field of the configuration that is to blame.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Initramfs(_)
            | Self::Load(
                LoadError::InitramfsTooLarge { .. }
                | LoadError::Read { part: Part::Initramfs, .. }
                | LoadError::Malformed { part: Part::Initramfs, .. },
            ) => "boot.kernel.initramfs",
            Self::Load(LoadError::CmdlineTooLong { .. } | LoadError::CmdlineNul(_)) => "boot.kernel.cmdline",
            Self::Load(LoadError::NoPvhEntry) => "boot.kernel.protocol",
            Self::Load(LoadError::DoesNotFit { .. }) => "memory.size_bytes",
            _ => "boot.kernel.kernel",
        }
    }
}

impl BootSource {
    /// Opens what `kernel` names.
    pub fn open(kernel: &KernelConfig, files: &mut Files) -> Result<Self, BootError> {
        let initramfs = kernel.initramfs.as_ref().map(|source| files.open(source, Access::Read));
        Ok(Self {
            kernel: files.open(&kernel.kernel, Access::Read).map_err(BootError::Kernel)?,
            initramfs: initramfs.transpose().map_err(BootError::Initramfs)?,
        })
    }

    /// Puts the kernel and everything that it finds into `ram`, which is zero.
    pub fn load(&mut self, ram: &Ram, plan: &Plan) -> Result<EntryPoint, BootError> {
        let boot = Boot {
            kernel: &mut self.kernel,
            initramfs: self.initramfs.as_mut(),
            cmdline: &plan.kernel.cmdline,
            protocol: match plan.kernel.protocol {
                BootProtocol::Auto => Choice::Auto,
                BootProtocol::Linux64 => Choice::Linux64,
                BootProtocol::Pvh => Choice::Pvh,
            },
            rsdp: None,
        };
        Ok(kernel::load(ram, &plan.layout, boot)?.entry)
    }
}
