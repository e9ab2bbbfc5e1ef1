//! The kernel that a machine starts, and starts anew after a reset.

use std::fs::File;

use orlop_api::config::{BootProtocol, KernelConfig};
use orlop_chipset::{PowerManagement, ports};
use orlop_firmware::acpi::{self, Tables};
use orlop_firmware::kernel::{self, Boot, Choice, EntryPoint, LoadError, Part};
use orlop_firmware::reset_vector;
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
        let tables = Tables::of(&described(plan)).map_err(|e| BootError::Tables(e.to_string()))?;
        tables.write(ram).map_err(|e| BootError::Tables(e.to_string()))?;
        let reset = reset_vector::write(ram, port(ports::RESET_CONTROL), RESET_VALUE);
        reset.map_err(|e| BootError::Tables(e.to_string()))?;
        let boot = Boot {
            kernel: &mut self.kernel,
            initramfs: self.initramfs.as_mut(),
            cmdline: &plan.kernel.cmdline,
            protocol: match plan.kernel.protocol {
                BootProtocol::Auto => Choice::Auto,
                BootProtocol::Linux64 => Choice::Linux64,
                BootProtocol::Pvh => Choice::Pvh,
            },
            rsdp: Some(tables.rsdp),
        };
        Ok(kernel::load(ram, &plan.layout, boot)?.entry)
    }
}

/// The value of the reset control register that resets everything (ICH9 datasheet §13.7.5).
const RESET_VALUE: u8 = 0x06;

/// The board as the firmware tables tell it.
fn described(plan: &Plan) -> acpi::Platform {
    let start = port(ports::POWER_MANAGEMENT.start);
    let power = acpi::Power {
        sleep_control_port: start + port(PowerManagement::SLEEP_CONTROL),
        sleep_status_port: start + port(PowerManagement::SLEEP_STATUS),
        s5: PowerManagement::S5,
        event_status_port: start + port(PowerManagement::EVENT_STATUS),
        event_gsi: ports::GED_GSI,
        reset_port: port(ports::RESET_CONTROL),
        reset_value: RESET_VALUE,
    };
    let uart = acpi::Uart { port: port(ports::SERIAL.start), gsi: ports::SERIAL_GSI };
    acpi::Platform {
        layout: plan.layout.clone(),
        apic_ids: plan.topology.apic_ids(),
        power,
        pm_timer_port: port(ports::PM_TIMER.start),
        rtc_port: port(ports::RTC.start),
        serial: plan.config.serial.enabled.then_some(uart),
        pvpanic_port: plan.config.panic.then_some(port(ports::PVPANIC.start)),
    }
}

/// An address of the port space, which has 2^16.
const fn port(address: u64) -> u16 {
    (address & 0xffff) as u16
}
