//! A kernel that is started directly.

use std::fs::File;

use orlop_api::config::{BootProtocol, KernelConfig};
use orlop_firmware::acpi::{PciSpace, Tables};
use orlop_firmware::kernel::{self, Boot, Choice, EntryPoint};
use orlop_firmware::reset_vector;
use orlop_virtio::Ram;

use super::{BootError, described, tables_error, write_smbios};
use crate::machine::files::{Access, Files};
use crate::machine::plan::Plan;
use crate::machine::platform::acpi_power;

/// The open files of a kernel.
pub struct KernelSource {
    kernel: File,
    initramfs: Option<File>,
}

impl KernelSource {
    /// Opens what `kernel` names.
    pub fn open(kernel: &KernelConfig, files: &mut Files) -> Result<Self, BootError> {
        let initramfs = kernel.initramfs.as_ref().map(|source| files.open(source, Access::Read));
        Ok(Self {
            kernel: files.open(&kernel.kernel, Access::Read).map_err(BootError::Kernel)?,
            initramfs: initramfs.transpose().map_err(BootError::Initramfs)?,
        })
    }

    /// Puts the kernel and everything that it finds into `ram`, which is zero.
    pub fn load(&mut self, ram: &Ram, plan: &Plan, config: &KernelConfig) -> Result<EntryPoint, BootError> {
        let tables = Tables::of(&described(plan, PciSpace::of(&plan.layout))).map_err(tables_error)?;
        tables.write(ram).map_err(tables_error)?;
        write_smbios(ram, plan)?;
        let power = acpi_power();
        reset_vector::write(ram, power.reset_port, power.reset_value).map_err(tables_error)?;
        let boot = Boot {
            kernel: &mut self.kernel,
            initramfs: self.initramfs.as_mut(),
            cmdline: &config.cmdline,
            protocol: match config.protocol {
                BootProtocol::Auto => Choice::Auto,
                BootProtocol::Linux64 => Choice::Linux64,
                BootProtocol::Pvh => Choice::Pvh,
            },
            rsdp: Some(tables.rsdp),
        };
        Ok(kernel::load(ram, &plan.layout, boot)?.entry)
    }
}
