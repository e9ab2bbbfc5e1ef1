//! Images behind disks, whichever bus those are on.

use orlop_api::config::{DiskBus, DiskConfig, FileSource, ImageConfig, ImageFormat, VmConfig};
use orlop_disk::{CHAIN_MAX, Chain, Disk, Format, Options, Source};

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
}

impl Image {
    /// The images of `disk`, which is at `field` of the configuration.
    pub fn of(disk: &DiskConfig, field: &str) -> Result<Self, PlanError> {
        let at = |name: &str| format!("{field}.{name}");
        check::source(&disk.source, &at("source"))?;
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
        let first = ImageConfig { source: disk.source.clone(), format: disk.format };
        let images: Vec<_> = std::iter::once(first).chain(disk.backing.iter().cloned()).collect();
        // The one behind all others is the only one that can be raw.
        for (index, image) in images.iter().enumerate().take(disk.backing.len()) {
            let above = index.checked_sub(1);
            let place =
                above.map_or_else(|| at("format"), |above| format!("{field}.backing[{above}].format"));
            check::ensure(image.format == ImageFormat::Qcow2, &place, || {
                "an image that is an overlay over another must be said to be qcow2".to_owned()
            })?;
        }
        let options = Options { read_only, direct: disk.direct };
        Ok(Self { id: disk.id.clone(), images, overlay: disk.overlay.clone(), options })
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
        Ok(disk)
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
