//! What a machine starts, and starts anew after a reset: a kernel, or stock firmware.

mod firmware;
mod kernel;

use orlop_firmware::acpi::{self, PciSpace};
use orlop_firmware::image::BadSize;
use orlop_firmware::kernel::{LoadError, Part};
use orlop_firmware::smbios::{self, Chassis, Description, System};
use orlop_virtio::Ram;

pub use self::firmware::{FirmwareSource, RomFile, VariableStore};
use self::kernel::KernelSource;
use super::files::{FileError, Files};
use super::memory::MemoryError;
use super::plan::{BootPlan, Plan};
use super::platform;
use super::vcpu::Start;
use crate::kvm::MemoryTypes;

/// The files of what is started, open.
pub enum BootSource {
    /// A kernel.
    Kernel(KernelSource),
    /// Firmware.
    Firmware(FirmwareSource),
}

/// Why something cannot be started.
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
    /// A file of the firmware cannot be opened.
    #[error("{source}")]
    Rom {
        /// Which.
        file: RomFile,
        /// What is wrong.
        source: FileError,
    },
    /// A file of the firmware cannot be read, or does not stay as it is.
    #[error("{file} cannot be used: {source}")]
    RomRead {
        /// Which.
        file: RomFile,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of the firmware has a size that it cannot have.
    #[error(transparent)]
    RomSize(#[from] BadSize),
    /// The firmware has no use for a system management mode.
    #[error("a BIOS has no use for a system management mode")]
    BiosWithSmm,
    /// There is no memory for the firmware.
    #[error(transparent)]
    RomMemory(#[from] MemoryError),
    /// The machine has no memory where a BIOS belongs.
    #[error("the machine has no memory for its BIOS: {0}")]
    Shadow(String),
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
            Self::Load(LoadError::DoesNotFit { .. }) | Self::Shadow(_) => "memory.size_bytes",
            Self::Rom { file, .. } | Self::RomRead { file, .. } => file.field(),
            Self::RomSize(BadSize { part, .. }) => RomFile(*part).field(),
            Self::RomMemory(_) => "boot.firmware.code",
            Self::BiosWithSmm => "boot.firmware.smm",
            Self::Kernel(_) | Self::Load(_) | Self::Tables(_) => "boot.kernel.kernel",
        }
    }

    /// Whether it is the host that does not give what is asked for.
    pub fn is_of_the_host(&self) -> bool {
        matches!(self, Self::Kernel(_) | Self::Initramfs(_) | Self::Rom { .. } | Self::RomMemory(_))
    }
}

impl BootSource {
    /// Opens what `boot` names.
    pub fn open(boot: &BootPlan, files: &mut Files) -> Result<Self, BootError> {
        Ok(match boot {
            BootPlan::Kernel(kernel) => Self::Kernel(KernelSource::open(kernel, files)?),
            BootPlan::Firmware(firmware) => Self::Firmware(FirmwareSource::open(&firmware.config, files)?),
        })
    }

    /// Puts what is started, and everything that it finds, into `ram`, which is zero; says where the first vCPU starts.
    pub fn load(&mut self, ram: &Ram, plan: &Plan) -> Result<Start, BootError> {
        match (self, &plan.boot) {
            (Self::Kernel(source), BootPlan::Kernel(kernel)) => {
                source.load(ram, plan, kernel).map(Start::Entry)
            }
            (Self::Firmware(source), _) => source.load(ram).map(|()| Start::Vector),
            (Self::Kernel(_), BootPlan::Firmware(_)) => {
                unreachable!("a source is opened from the plan that it is loaded by")
            }
        }
    }

    /// The memory types that processors start with.
    pub fn memory_types(&self) -> MemoryTypes {
        match self {
            Self::Kernel(_) => MemoryTypes::WriteBack,
            Self::Firmware(_) => MemoryTypes::PowerOn,
        }
    }
}

/// The board as the ACPI tables tell it, with PCI at `pci`.
pub fn described(plan: &Plan, pci: PciSpace) -> acpi::Platform {
    acpi::Platform {
        pci,
        apic_ids: plan.topology.apic_ids(),
        power: platform::acpi_power(),
        fixed: matches!(plan.boot, BootPlan::Firmware(_)).then(platform::acpi_fixed),
        pm_timer_port: platform::port(orlop_chipset::ports::PM_TIMER.start),
        rtc_port: platform::port(orlop_chipset::ports::RTC.start),
        serial: plan.config.serial.enabled.then(platform::acpi_serial),
        pvpanic_port: plan.config.panic.then(|| platform::port(orlop_chipset::ports::PVPANIC.start)),
    }
}

/// The machine as SMBIOS shows it.
pub fn smbios(plan: &Plan) -> Description {
    let config = &plan.config.smbios;
    let (system, chassis) = (config.system.clone(), config.chassis.clone());
    Description {
        uuid: plan.uuid(),
        system: System {
            manufacturer: system.manufacturer,
            product: system.product,
            version: system.version,
            serial: system.serial,
            sku: system.sku,
            family: system.family,
        },
        chassis: Chassis {
            manufacturer: chassis.manufacturer,
            version: chassis.version,
            serial: chassis.serial,
            asset: chassis.asset,
            sku: chassis.sku,
        },
        sockets: plan.topology.sockets(),
        cores: plan.topology.cores(),
        threads: plan.topology.threads(),
        layout: plan.layout.clone(),
    }
}

fn tables_error(error: impl std::fmt::Display) -> BootError {
    BootError::Tables(error.to_string())
}

/// SMBIOS for a kernel that is started without firmware.
fn write_smbios(ram: &Ram, plan: &Plan) -> Result<(), BootError> {
    smbios::Tables::of(&smbios(plan), smbios::BiosInformation::Ours).write(ram).map_err(tables_error)
}
