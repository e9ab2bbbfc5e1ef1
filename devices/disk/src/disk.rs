//! A guest's disk: an image, or a chain of them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::{Format, FormatError, detect};
use crate::host::{HostFile, Options};
use crate::open_error::OpenError;
use crate::qcow2::{Qcow2, create};

/// The most images in a chain.
pub const CHAIN_MAX: usize = 16;

/// Where an image is.
#[derive(Debug)]
pub enum Source {
    /// By path.
    Path(PathBuf),
    /// As a descriptor that somebody else opened, and how errors call it.
    Fd(OwnedFd, String),
}

/// An image of a chain.
#[derive(Debug)]
pub struct Image {
    /// Where it is.
    pub source: Source,
    /// Its format; `None` to look, once, before a guest can have written to it.
    pub format: Option<Format>,
}

/// What a disk is made of.
#[derive(Debug)]
pub struct Chain {
    /// The image that the guest sees, and behind it, in order, those that it is an overlay over. Those are only read.
    pub images: Vec<Image>,
    /// Where the guest's writes go, if not to the first image, which is then only read as well: a qcow2 image over it.
    /// A file that is empty, or a path where there is none, is made one.
    pub overlay: Option<Source>,
    /// How the topmost image is opened; `direct` holds for all.
    pub options: Options,
    /// Who opens it: others who want it are told.
    pub holder: String,
}

/// The block sizes that a guest sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Blocks {
    /// The smallest that the image takes, and the unit of its storage.
    #[default]
    Own,
    /// The unit of its storage for both, where that is a file; both of its own, where that is a device.
    Storage,
    /// These, in bytes.
    Custom {
        /// The unit of addresses: a power of two, from the image's own to [`BLOCK_MAX_BYTES`].
        logical: u32,
        /// The unit in which the storage works best: a power of two, not less.
        physical: u32,
        /// The unit in which space is given back: a multiple of `logical`; the image's own where it is absent.
        discard: Option<u32>,
    },
}

/// The largest block that a guest can see, in bytes: Linux wants a block to fit a page.
pub const BLOCK_MAX_BYTES: u32 = 4096;
/// The largest physical block and unit of discards, in bytes.
const PHYSICAL_MAX_BYTES: u32 = 2 << 20;

/// Block sizes that the image cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlocksError {
    /// The unit of addresses.
    #[error(
        "logical blocks of {wanted} bytes are no power of two from {own}, the image's own, to {BLOCK_MAX_BYTES}"
    )]
    Logical {
        /// What the guest was to see, in bytes.
        wanted: u32,
        /// What the image has, in bytes.
        own: u32,
    },
    /// The unit of the storage.
    #[error("physical blocks of {0} bytes are no power of two from the logical ones to {PHYSICAL_MAX_BYTES}")]
    Physical(u32),
    /// The unit of discards.
    #[error(
        "a discard granularity of {0} bytes is no multiple of the logical block up to {PHYSICAL_MAX_BYTES}"
    )]
    Discard(u32),
    /// Nothing would be left.
    #[error("the image is smaller than one block of {0} bytes")]
    Small(u32),
}

/// An opened disk, locked for as long as this value (or an engine on it) lives.
///
/// The format of an image is what the caller says, or what it was when it was opened; nothing that a guest wrote is
/// looked at for it, and no name that an image contains is ever opened.
#[derive(Debug)]
pub struct Disk {
    layer: Layer,
    backing: Option<Arc<Disk>>,
    blocks: Blocks,
}

#[derive(Debug)]
enum Layer {
    Raw(Arc<HostFile>),
    Qcow2(Arc<Qcow2>),
}

/// How an engine reaches a disk.
pub(crate) enum Reach<'a> {
    Raw(&'a Arc<HostFile>),
    Qcow2(&'a Arc<Qcow2>),
}

impl Disk {
    /// Opens the raw image at `path`.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        Self::raw(HostFile::open(path, options, "")?)
    }

    /// Takes a raw image that somebody else opened; `name` is how errors call it. The file status flags of the
    /// descriptor are set as `options` want them.
    pub fn from_fd(fd: OwnedFd, name: &str, options: Options) -> Result<Self, OpenError> {
        Self::raw(HostFile::from_fd(fd, name, options, "")?)
    }

    /// Opens a chain, the deepest image first.
    pub fn open_chain(chain: Chain) -> Result<Self, OpenError> {
        let Chain { images, overlay, options, holder } = chain;
        if images.is_empty() || images.len() > CHAIN_MAX {
            let what = format!("is a chain of {} images, not of 1 to {CHAIN_MAX}", images.len());
            return Err(OpenError::Layers { path: PathBuf::new(), what });
        }
        let last = images.len().saturating_sub(1);
        let mut below: Option<Arc<Self>> = None;
        for (place, image) in images.into_iter().enumerate().rev() {
            let read_only = options.read_only || place > 0 || overlay.is_some();
            // Only what is written to is shared; what is behind it is read by many as it is.
            let shared = options.shared && place == 0 && overlay.is_none();
            let options = Options { read_only, shared, ..options };
            let backing = if place == last { None } else { below.take() };
            below = Some(Arc::new(Self::layer(image, options, &holder, backing)?));
        }
        let top = match (overlay, below) {
            (Some(overlay), Some(base)) => Self::over(base, overlay, options, &holder)?,
            (_, Some(top)) => return Arc::into_inner(top).ok_or_else(shared),
            (_, None) => return Err(shared()),
        };
        Ok(top)
    }

    fn raw(host: HostFile) -> Result<Self, OpenError> {
        host.whole()?;
        Ok(Self { layer: Layer::Raw(Arc::new(host)), backing: None, blocks: Blocks::Own })
    }

    fn layer(
        image: Image,
        options: Options,
        holder: &str,
        backing: Option<Arc<Self>>,
    ) -> Result<Self, OpenError> {
        let Image { source, format } = image;
        let host = match source {
            Source::Path(path) => HostFile::open(&path, options, holder)?,
            Source::Fd(fd, name) => HostFile::from_fd(fd, &name, options, holder)?,
        };
        let fails = wrong(host.path());
        let format = match format {
            Some(format) => format,
            None => detect(host.file(), options.direct).map_err(&fails)?,
        };
        match (format, backing) {
            (Format::Raw, None) => Self::raw(host),
            (Format::Raw, Some(_)) => Err(fails(FormatError::NeedsNoBacking)),
            (Format::Qcow2, _) if options.shared => Err(fails(FormatError::Shared)),
            (Format::Qcow2, backing) => Self::qcow2(host, backing),
        }
    }

    fn qcow2(host: HostFile, backing: Option<Arc<Self>>) -> Result<Self, OpenError> {
        let fails = wrong(host.path());
        let image = Qcow2::open(Arc::new(host), backing.clone()).map_err(fails)?;
        Ok(Self { layer: Layer::Qcow2(Arc::new(image)), backing, blocks: Blocks::Own })
    }

    /// Opens the overlay over `base`, or makes it.
    fn over(base: Arc<Self>, overlay: Source, options: Options, holder: &str) -> Result<Self, OpenError> {
        if options.read_only || options.shared {
            let what = "cannot be read-only or shared and have an overlay for writes".to_owned();
            return Err(OpenError::Layers { path: base.path().into(), what });
        }
        let host = match overlay {
            Source::Path(path) => {
                make_missing(&path)?;
                HostFile::open(&path, options, holder)?
            }
            Source::Fd(fd, name) => HostFile::from_fd(fd, &name, options, holder)?,
        };
        if host.stored_bytes() == 0 {
            let (name, format) = (base.real_name(), base.format().to_string());
            create(&host, base.size_bytes(), Some((&name, &format))).map_err(wrong(host.path()))?;
        }
        Self::qcow2(host, Some(base))
    }

    /// By what name another program would find the image.
    fn real_name(&self) -> String {
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(self.host().as_ref()));
        let path = std::fs::read_link(link).unwrap_or_else(|_| self.path().into());
        let mut name = path.to_string_lossy().into_owned();
        // The name must fit the header (1023 bytes).
        if name.len() > 1023 {
            name = "base".to_owned();
        }
        name
    }

    /// Shows other block sizes to the guest from now on; of a size that is not whole blocks the rest is not shown.
    pub fn with_blocks(mut self, blocks: Blocks) -> Result<Self, BlocksError> {
        let own = self.own_block_bytes();
        if let Blocks::Custom { logical, physical, discard } = blocks {
            if !logical.is_power_of_two() || !(own..=BLOCK_MAX_BYTES).contains(&logical) {
                return Err(BlocksError::Logical { wanted: logical, own });
            }
            if !physical.is_power_of_two() || !(logical..=PHYSICAL_MAX_BYTES).contains(&physical) {
                return Err(BlocksError::Physical(physical));
            }
            let discard = discard.unwrap_or(logical);
            if discard == 0 || !discard.is_multiple_of(logical) || discard > PHYSICAL_MAX_BYTES {
                return Err(BlocksError::Discard(discard));
            }
        }
        self.blocks = blocks;
        if self.size_bytes() == 0 {
            return Err(BlocksError::Small(self.block_bytes()));
        }
        Ok(self)
    }

    fn own_block_bytes(&self) -> u32 {
        match &self.layer {
            Layer::Raw(host) => host.block_bytes(),
            Layer::Qcow2(image) => image.block_bytes(),
        }
    }

    fn host(&self) -> &Arc<HostFile> {
        match &self.layer {
            Layer::Raw(host) => host,
            Layer::Qcow2(image) => image.host(),
        }
    }

    pub(crate) fn reach(&self) -> Reach<'_> {
        match &self.layer {
            Layer::Raw(host) => Reach::Raw(host),
            Layer::Qcow2(image) => Reach::Qcow2(image),
        }
    }

    /// The path or name that it was opened by.
    pub fn path(&self) -> &Path {
        self.host().path()
    }

    /// The format of the topmost image.
    pub fn format(&self) -> Format {
        match &self.layer {
            Layer::Raw(_) => Format::Raw,
            Layer::Qcow2(_) => Format::Qcow2,
        }
    }

    /// The image that this one is an overlay over.
    pub fn backing(&self) -> Option<&Disk> {
        self.backing.as_deref()
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.host().is_read_only()
    }

    /// The size in bytes, a multiple of [`Self::block_bytes`]. It may grow.
    pub fn size_bytes(&self) -> u64 {
        let all = match &self.layer {
            Layer::Raw(host) => host.size_bytes(),
            Layer::Qcow2(image) => image.size_bytes(),
        };
        all & !u64::from(self.block_bytes().saturating_sub(1))
    }

    /// The smallest unit that can be read or written, in bytes: a power of two of at least 512.
    pub fn block_bytes(&self) -> u32 {
        let own = self.own_block_bytes();
        match self.blocks {
            Blocks::Custom { logical, .. } => logical,
            Blocks::Storage if !self.host().is_device() => {
                self.host().physical_block_bytes().clamp(own, BLOCK_MAX_BYTES.max(own))
            }
            Blocks::Own | Blocks::Storage => own,
        }
    }

    /// The unit in which the storage works best, in bytes: a power of two, at least [`Self::block_bytes`].
    pub fn physical_block_bytes(&self) -> u32 {
        match self.blocks {
            Blocks::Custom { physical, .. } => physical,
            Blocks::Own | Blocks::Storage => self.host().physical_block_bytes().max(self.block_bytes()),
        }
    }

    /// The unit in which space can be given back, in bytes: a power of two, at least [`Self::block_bytes`].
    pub fn discard_bytes(&self) -> u32 {
        let own = match &self.layer {
            Layer::Raw(host) => host.physical_block_bytes(),
            Layer::Qcow2(image) => u32::try_from(image.cluster_bytes()).unwrap_or(u32::MAX),
        };
        match self.blocks {
            Blocks::Custom { discard: Some(discard), .. } => discard,
            _ => own.max(self.block_bytes()),
        }
    }

    /// How often an image of the chain contradicted itself since it was opened; each time was an operation's error.
    pub fn corruptions(&self) -> u64 {
        let own = match &self.layer {
            Layer::Raw(_) => 0,
            Layer::Qcow2(image) => image.faults(),
        };
        own + self.backing().map_or(0, Disk::corruptions)
    }

    /// Makes the disk longer, to `size_bytes`, a multiple of [`Self::block_bytes`]; what is new reads as zeroes. A block
    /// device must have grown already. Operations may go on meanwhile.
    pub fn grow(&self, size_bytes: u64) -> Result<(), GrowError> {
        let now = self.size_bytes();
        if self.is_read_only() {
            return Err(GrowError::ReadOnly);
        }
        if size_bytes < now {
            return Err(GrowError::Smaller { now, wanted: size_bytes });
        }
        if !size_bytes.is_multiple_of(u64::from(self.block_bytes()))
            || size_bytes > i64::MAX.unsigned_abs() >> 1
        {
            return Err(GrowError::Size { wanted: size_bytes, block_bytes: self.block_bytes() });
        }
        if size_bytes == now {
            return Ok(());
        }
        match &self.layer {
            Layer::Raw(host) => host.grow(size_bytes)?,
            Layer::Qcow2(image) => image.grow(size_bytes)?,
        }
        Ok(())
    }
}

/// Why a disk cannot be made longer.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// Nothing is ever written to it.
    #[error("the disk is read-only")]
    ReadOnly,
    /// What would be cut off is lost.
    #[error("the disk has {now} bytes and cannot shrink to {wanted}")]
    Smaller {
        /// Its size in bytes.
        now: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// A size that cannot be.
    #[error("{wanted} is not a multiple of the block size, {block_bytes} bytes, or too large")]
    Size {
        /// What was asked for.
        wanted: u64,
        /// Size of a block.
        block_bytes: u32,
    },
    /// The host.
    #[error("the image cannot be made longer: {0}")]
    Host(#[from] std::io::Error),
}

/// What a wrong image at `path` is refused with.
fn wrong(path: &Path) -> impl Fn(FormatError) -> OpenError + use<> {
    let path = path.to_path_buf();
    move |source| OpenError::Format { path: path.clone(), source }
}

/// An empty file at `path`, if there is none.
fn make_missing(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(OpenError::System { path: path.into(), what: "create", source }),
    }
}

fn shared() -> OpenError {
    OpenError::Layers { path: PathBuf::new(), what: "has no images".to_owned() }
}
