//! Images behind disks, whichever bus those are on.

use orlop_api::config::{
    BlockSize, DiskBus, DiskConfig, DiskIo, ErrorPolicy, FileSource, ImageConfig, ImageFormat, VmConfig,
};
use orlop_disk::{
    BLOCK_MAX_BYTES, Blocks, CHAIN_MAX, Chain, Disk, EngineKind, ErrorHandling, Format, Options, Source,
};

use super::DeviceError;
use crate::machine::files::{FileError, Files};
use crate::machine::plan::{PlanError, check};

/// The disks of the configuration that are on `bus`, with their numbers.
pub fn on(config: &VmConfig, bus: DiskBus) -> impl Iterator<Item = (usize, &DiskConfig)> {
    config.disks.iter().enumerate().filter(move |(_, disk)| disk.bus == bus)
}

/// The images of a disk, to open.
#[derive(Debug)]
pub struct Image {
    /// Whose they are.
    id: String,
    /// The configuration's `source` first, then what is behind it.
    images: Vec<ImageConfig>,
    overlay: Option<FileSource>,
    options: Options,
    blocks: Blocks,
    errors: orlop_disk::ErrorPolicy,
    engine: EngineKind,
    write_through: bool,
}

impl Image {
    /// The images of `disk`, which is at `field` of the configuration.
    pub fn of(disk: &DiskConfig, field: &str) -> Result<Self, PlanError> {
        let at = |name: &str| format!("{field}.{name}");
        check::ensure(disk.source.is_some() || disk.cdrom.is_some(), &at("source"), || {
            "only a CD-ROM drive can be empty".to_owned()
        })?;
        disk.source.iter().try_for_each(|source| check::source(source, &at("source")))?;
        options(disk, field)?;
        check::ensure(disk.backing.len() < CHAIN_MAX, &at("backing"), || {
            format!("{} images are too many; at most {} are possible", disk.backing.len(), CHAIN_MAX - 1)
        })?;
        for (index, image) in disk.backing.iter().enumerate() {
            check::source(&image.source, &format!("{field}.backing[{index}].source"))?;
        }
        disk.overlay.iter().try_for_each(|overlay| check::source(overlay, &at("overlay")))?;
        let read_only = disk.read_only || disk.cdrom.is_some();
        check::ensure(disk.overlay.is_none() || !read_only, &at("overlay"), || {
            "a read-only disk has no writes that could go there".to_owned()
        })?;
        let first = disk.source.clone().map(|source| ImageConfig { source, format: disk.format });
        check::ensure(first.is_some() || disk.backing.is_empty(), &at("backing"), || {
            "there is no image that could be an overlay over it".to_owned()
        })?;
        let images: Vec<_> = first.into_iter().chain(disk.backing.iter().cloned()).collect();
        // The one behind all others is the only one that can be raw.
        for (index, image) in images.iter().enumerate().take(disk.backing.len()) {
            let above = index.checked_sub(1);
            let place =
                above.map_or_else(|| at("format"), |above| format!("{field}.backing[{above}].format"));
            check::ensure(image.format == ImageFormat::Qcow2, &place, || {
                "an image that is an overlay over another must be said to be qcow2".to_owned()
            })?;
        }
        let options = Options { read_only, direct: disk.direct, shared: disk.shared };
        Ok(Self {
            id: disk.id.clone(),
            images,
            overlay: disk.overlay.clone(),
            options,
            blocks: blocks(disk.block_size),
            errors: policy(disk.error_policy),
            engine: match disk.io {
                DiskIo::Auto => EngineKind::Auto,
                DiskIo::Synchronous => EngineKind::Synchronous,
            },
            write_through: disk.write_through,
        })
    }

    /// How the disk is reached.
    pub fn engine(&self) -> EngineKind {
        self.engine
    }

    /// Whether its write cache is off at first.
    pub fn write_through(&self) -> bool {
        self.write_through
    }

    /// What becomes of the host's errors.
    pub fn errors(&self, files: &Files) -> ErrorHandling {
        files.error_handling(&self.id, self.errors)
    }

    /// The medium of a drive, if there is one.
    pub fn medium(&self, files: &mut Files) -> Result<Option<Disk>, DeviceError> {
        if self.images.is_empty() { Ok(None) } else { self.open(files).map(Some) }
    }

    /// Opens them, and with them every descriptor that they need; notes what formats were found.
    pub fn open(&self, files: &mut Files) -> Result<Disk, DeviceError> {
        let mut images = Vec::new();
        for ImageConfig { source, format } in &self.images {
            let format = match format {
                ImageFormat::Raw => Some(Format::Raw),
                ImageFormat::Qcow2 => Some(Format::Qcow2),
                ImageFormat::Detect => None,
            };
            images.push(orlop_disk::Image { source: locate(source, files)?, format });
        }
        let overlay = self.overlay.as_ref().map(|overlay| locate(overlay, files)).transpose()?;
        let chain = Chain { images, overlay, options: self.options, holder: files.machine().to_owned() };
        let disk = Disk::open_chain(chain).map_err(DeviceError::of)?;
        let found =
            std::iter::successors(Some(&disk), |disk| disk.backing()).map(|disk| match disk.format() {
                Format::Raw => ImageFormat::Raw,
                Format::Qcow2 => ImageFormat::Qcow2,
            });
        files.note_formats(&self.id, found.skip(usize::from(self.overlay.is_some())).collect());
        disk.with_blocks(self.blocks).map_err(DeviceError::of)
    }
}

/// The options of a disk that do not fit each other.
fn options(disk: &DiskConfig, field: &str) -> Result<(), PlanError> {
    let at = |name: &str| format!("{field}.{name}");
    let cdrom = disk.cdrom.is_some();
    check::ensure(!disk.shared || disk.format == ImageFormat::Raw, &at("shared"), || {
        "only an image that is said to be raw can be shared: qcow2 has one writer".to_owned()
    })?;
    check::ensure(!disk.shared || disk.overlay.is_none(), &at("shared"), || {
        "a disk whose writes go to an overlay has nothing to share".to_owned()
    })?;
    check::ensure(!cdrom || disk.block_size.is_none(), &at("block_size"), || {
        "a CD-ROM has blocks of 2048 bytes".to_owned()
    })?;
    check::ensure(!cdrom || disk.error_policy == ErrorPolicy::Report, &at("error_policy"), || {
        "a CD-ROM drive reports its errors to the guest".to_owned()
    })?;
    let Some(BlockSize::Custom { logical_bytes, physical_bytes, discard_bytes }) = disk.block_size else {
        return Ok(());
    };
    let size = |name: &str, value: u32, least: u32, most: u32| {
        check::ensure(
            value.is_power_of_two() && (least..=most).contains(&value),
            &at(&format!("block_size.custom.{name}")),
            || format!("{value} is no power of two from {least} to {most}"),
        )
    };
    size("logical_bytes", logical_bytes, orlop_disk::SECTOR_BYTES, BLOCK_MAX_BYTES)?;
    size("physical_bytes", physical_bytes, logical_bytes, PHYSICAL_MAX_BYTES)?;
    let discard = discard_bytes.unwrap_or(logical_bytes);
    let fits = discard > 0 && discard.is_multiple_of(logical_bytes) && discard <= PHYSICAL_MAX_BYTES;
    check::ensure(fits, &at("block_size.custom.discard_bytes"), || {
        format!("{discard} is no multiple of {logical_bytes} up to {PHYSICAL_MAX_BYTES}")
    })
}

/// The largest physical block, in bytes (KubeVirt's limit).
const PHYSICAL_MAX_BYTES: u32 = 2 << 20;

fn blocks(size: Option<BlockSize>) -> Blocks {
    match size {
        None => Blocks::Own,
        Some(BlockSize::Storage {}) => Blocks::Storage,
        Some(BlockSize::Custom {
            logical_bytes: logical,
            physical_bytes: physical,
            discard_bytes: discard,
        }) => Blocks::Custom { logical, physical, discard },
    }
}

fn policy(policy: ErrorPolicy) -> orlop_disk::ErrorPolicy {
    match policy {
        ErrorPolicy::Report => orlop_disk::ErrorPolicy::Report,
        ErrorPolicy::Ignore => orlop_disk::ErrorPolicy::Ignore,
        ErrorPolicy::Stop => orlop_disk::ErrorPolicy::Stop,
        ErrorPolicy::StopWhenFull => orlop_disk::ErrorPolicy::StopWhenFull,
    }
}

fn locate(source: &FileSource, files: &mut Files) -> Result<Source, FileError> {
    Ok(match source {
        FileSource::Path(path) => Source::Path(path.into()),
        FileSource::Fd(name) => Source::Fd(files.descriptor(name)?, name.clone()),
    })
}

/// The serial number of a disk.
pub fn serial(serial: &str, most: usize, field: &str) -> Result<(), PlanError> {
    let printable = serial.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    check::ensure(printable && serial.len() <= most, field, || {
        format!("'{serial}' is not at most {most} printable ASCII characters")
    })
}

/// What only the virtio bus has, refused elsewhere.
pub fn only_virtio(disk: &DiskConfig, field: &str) -> Result<(), PlanError> {
    let refused = [("bandwidth_limit", disk.bandwidth_limit), ("operations_limit", disk.operations_limit)];
    refused.into_iter().try_for_each(|(name, limit)| {
        check::ensure(limit.is_none(), &format!("{field}.{name}"), || {
            "only disks on the virtio bus have limits".to_owned()
        })
    })
}
