//! Starts a kernel directly: bzImage, 64-bit ELF, or ELF with a PVH note.
//!
//! [`load`] reads the image (hostile until checked), puts kernel, initial RAM file system, command line and boot
//! parameters into guest memory, and says how the first processor stands at the first instruction.
//!
//! Guest memory is zero when it is called, as at power-on: a machine that is reset discards its memory first.

mod bzimage;
mod elf;
mod entry;
mod image;
mod linux;
mod place;
mod pvh;
#[cfg(test)]
mod tests;

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

use self::bzimage::BzImage;
use self::elf::Elf;
pub use self::entry::{EntryPoint, Protocol, Segment, TableRegister};
use self::image::Image;
pub use self::image::Source;
use self::linux::ZeroPage;
use self::pvh::StartInfo;
use crate::layout::{CMDLINE_MAX_BYTES, CMDLINE_START, MemoryLayout};

/// What to start.
#[derive(Debug)]
pub struct Boot<'a, F> {
    /// The kernel image.
    pub kernel: &'a mut F,
    /// An initial RAM file system.
    pub initramfs: Option<&'a mut F>,
    /// The command line.
    pub cmdline: &'a str,
    /// How an ELF image is entered; a bzImage is always entered by the Linux protocol.
    pub protocol: Choice,
    /// Where the ACPI root pointer lies.
    pub rsdp: Option<u64>,
}

/// How an ELF image is to be entered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// By PVH where the image has its note, by the Linux protocol otherwise.
    #[default]
    Auto,
    /// By the 64-bit Linux boot protocol.
    Linux64,
    /// By PVH; without the note it is an error.
    Pvh,
}

/// A kernel in guest memory, ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootState {
    /// The first processor's registers.
    pub entry: EntryPoint,
    /// The memory that the kernel takes at first.
    pub kernel: Range<u64>,
    /// The memory that holds the initial RAM file system.
    pub initramfs: Option<Range<u64>>,
}

/// One of the files that are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The kernel image.
    Kernel,
    /// The initial RAM file system.
    Initramfs,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
        })
    }
}

/// Why a kernel cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{part} cannot be read")]
    Read {
        /// Which file.
        part: Part,
        /// What the system says.
        source: std::io::Error,
    },
    /// The kernel's first bytes are those of no known format.
    #[error("kernel is neither a bzImage (vmlinuz) nor an ELF file (vmlinux)")]
    UnknownFormat,
    /// The format is known, but not this kind of it.
    #[error("kernel is {0}")]
    Unsupported(String),
    /// The file contradicts itself.
    #[error("{part} is malformed: {reason}")]
    Malformed {
        /// Which file.
        part: Part,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine has too little memory below 2 GiB for the kernel.
    #[error("kernel needs {}, the machine has {} for it", Size(*needs_bytes), Size(*has_bytes))]
    DoesNotFit {
        /// How much memory the machine would need, in bytes.
        needs_bytes: u64,
        /// How much of it the machine has where a kernel may lie, in bytes.
        has_bytes: u64,
    },
    /// The kernel wants to lie on something else.
    #[error("kernel wants to be loaded at {:#x}..{:#x}, on {what}", range.start, range.end)]
    Overlap {
        /// Where it wants to be.
        range: Range<u64>,
        /// What lies there.
        what: &'static str,
    },
    /// The entry is not in what was loaded.
    #[error("kernel's entry {0:#x} is not in any part of it that is loaded")]
    EntryOutside(u64),
    /// PVH was asked for.
    #[error("kernel has no PVH note (XEN_ELFNOTE_PHYS32_ENTRY), so it cannot be entered by PVH")]
    NoPvhEntry,
    /// The initial RAM file system does not fit beside the kernel.
    #[error(
        "initramfs of {} does not fit beside the kernel in {} of memory",
        Size(*needs_bytes),
        Size(*has_bytes)
    )]
    InitramfsTooLarge {
        /// Its length in bytes.
        needs_bytes: u64,
        /// Memory below 2 GiB, in bytes.
        has_bytes: u64,
    },
    /// The command line is too long for the kernel.
    #[error("command line of {len} bytes is too long: this kernel takes {max}")]
    CmdlineTooLong {
        /// Its length in bytes.
        len: usize,
        /// What the kernel takes.
        max: usize,
    },
    /// The command line has a NUL, which would end it early.
    #[error("command line has a NUL byte at position {0}")]
    CmdlineNul(usize),
    /// Guest memory does not cover the layout.
    #[error("guest memory cannot be written")]
    Memory(#[source] GuestMemoryError),
}

/// Bytes for people, rounded up.
struct Size(u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MIB: u64 = 1 << 20;
        if self.0 < MIB {
            write!(f, "{} KiB", self.0.div_ceil(1 << 10))
        } else {
            write!(f, "{} MiB", self.0.div_ceil(MIB))
        }
    }
}

/// A kernel image of either format, checked but not loaded.
enum Kernel {
    BzImage(BzImage),
    Elf(Elf),
}

impl Kernel {
    fn parse<F: Source>(image: &mut Image<'_, F>, layout: &MemoryLayout) -> Result<Self, LoadError> {
        if image.array(0, "magic").is_ok_and(|magic: [u8; 4]| magic == elf::MAGIC) {
            Elf::parse(image, layout).map(Self::Elf)
        } else if BzImage::detect(image) {
            BzImage::parse(image, layout).map(Self::BzImage)
        } else {
            Err(LoadError::UnknownFormat)
        }
    }

    fn range(&self) -> &Range<u64> {
        match self {
            Self::BzImage(kernel) => &kernel.range,
            Self::Elf(kernel) => &kernel.range,
        }
    }

    /// Longest command line in bytes, without its NUL.
    fn cmdline_max(&self) -> usize {
        match self {
            Self::BzImage(kernel) => {
                usize::try_from(kernel.header.cmdline_size).unwrap_or(usize::MAX).min(CMDLINE_MAX_BYTES)
            }
            Self::Elf(_) => CMDLINE_MAX_BYTES,
        }
    }

    /// The initial RAM file system must end at or below this address.
    fn initramfs_limit(&self) -> u64 {
        match self {
            Self::BzImage(kernel) => u64::from(kernel.header.initrd_addr_max) + 1,
            Self::Elf(_) => u64::MAX,
        }
    }

    fn entry(&self, choice: Choice) -> Result<(u64, Protocol), LoadError> {
        let (address, protocol, inside) = match (self, choice) {
            (Self::BzImage(kernel), _) => return Ok((kernel.entry(), Protocol::Linux64)),
            (Self::Elf(kernel), Choice::Auto | Choice::Pvh) if kernel.pvh_entry.is_some() => {
                let address = kernel.pvh_entry.unwrap_or_default();
                (address, Protocol::Pvh, kernel.holds(address))
            }
            (Self::Elf(_), Choice::Pvh) => return Err(LoadError::NoPvhEntry),
            (Self::Elf(kernel), _) => (kernel.entry, Protocol::Linux64, kernel.holds(kernel.entry)),
        };
        if inside { Ok((address, protocol)) } else { Err(LoadError::EntryOutside(address)) }
    }
}

/// Loads a kernel and what it is told into guest memory.
pub fn load<F: Source, M: GuestMemoryBackend>(
    memory: &M,
    layout: &MemoryLayout,
    boot: Boot<'_, F>,
) -> Result<BootState, LoadError> {
    let mut image = Image::new(boot.kernel, Part::Kernel)?;
    let kernel = Kernel::parse(&mut image, layout)?;
    let (rip, protocol) = kernel.entry(boot.protocol)?;
    check_cmdline(boot.cmdline, kernel.cmdline_max())?;
    match &kernel {
        Kernel::BzImage(kernel) => kernel.load(&mut image, memory)?,
        Kernel::Elf(kernel) => kernel.load(&mut image, memory)?,
    }
    let initramfs = match boot.initramfs {
        Some(source) => Some(load_initramfs(memory, layout, &kernel, source)?),
        None => None,
    };
    write_cmdline(memory, boot.cmdline)?;
    let entry = EntryPoint::at(rip, protocol);
    match protocol {
        Protocol::Linux64 => ZeroPage {
            header: if let Kernel::BzImage(kernel) = &kernel { Some(kernel.header) } else { None },
            cmdline_len: u32::try_from(boot.cmdline.len()).unwrap_or(u32::MAX),
            initramfs: initramfs.clone(),
            rsdp: boot.rsdp,
            layout,
        }
        .write(memory)?,
        Protocol::Pvh => {
            StartInfo { initramfs: initramfs.clone(), rsdp: boot.rsdp, layout }.write(memory)?;
        }
    }
    entry.write_tables(memory)?;
    Ok(BootState { entry, kernel: kernel.range().clone(), initramfs })
}

fn check_cmdline(cmdline: &str, max: usize) -> Result<(), LoadError> {
    if let Some(position) = cmdline.bytes().position(|b| b == 0) {
        return Err(LoadError::CmdlineNul(position));
    }
    if cmdline.len() > max {
        return Err(LoadError::CmdlineTooLong { len: cmdline.len(), max });
    }
    Ok(())
}

fn write_cmdline<M: GuestMemoryBackend>(memory: &M, cmdline: &str) -> Result<(), LoadError> {
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    memory.write_slice(&bytes, GuestAddress(CMDLINE_START)).map_err(LoadError::Memory)
}

fn load_initramfs<F: Source, M: GuestMemoryBackend>(
    memory: &M,
    layout: &MemoryLayout,
    kernel: &Kernel,
    source: &mut F,
) -> Result<Range<u64>, LoadError> {
    let mut image = Image::new(source, Part::Initramfs)?;
    let len = image.len_bytes();
    let range = place::highest(len, kernel.initramfs_limit(), kernel.range(), layout)
        .ok_or(LoadError::InitramfsTooLarge { needs_bytes: len, has_bytes: layout.low.end })?;
    image.copy_to(0, len, memory, range.start, "content")?;
    Ok(range)
}
