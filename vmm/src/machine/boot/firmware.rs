//! Stock firmware: its code, and the flash chip with its variables, in memory.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orlop_api::config::{FirmwareConfig, VariableStoreConfig};
use orlop_firmware::image::{BadSize, RomLayout, RomPart};
use orlop_virtio::Ram;
use vm_memory::{Bytes, GuestAddress, MmapRegion, VolatileMemory};

use super::BootError;
use crate::machine::files::{Access, Files};
use crate::machine::memory;

/// A file of the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RomFile(pub RomPart);

impl RomFile {
    /// The field of the configuration that names it.
    pub fn field(self) -> &'static str {
        match self.0 {
            RomPart::Code => "boot.firmware.code",
            RomPart::Variables => "boot.firmware.variables.source",
        }
    }
}

impl std::fmt::Display for RomFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Firmware in memory, and where it goes.
pub struct FirmwareSource {
    /// Where its parts answer.
    pub layout: RomLayout,
    /// The code.
    pub code: Arc<MmapRegion<()>>,
    /// The variable store, where there is one.
    pub variables: Option<Arc<VariableStore>>,
}

impl FirmwareSource {
    /// Opens and reads what `config` names.
    pub fn open(config: &FirmwareConfig, files: &mut Files) -> Result<Self, BootError> {
        let opened = |file, source, access, files: &mut Files| {
            files.open(source, access).map_err(|source| BootError::Rom { file, source })
        };
        let (code, store) = (RomFile(RomPart::Code), RomFile(RomPart::Variables));
        let code_file = opened(code, &config.code, Access::Read, files)?;
        let store_file = config.variables.as_ref().map(|VariableStoreConfig { source, persistent }| {
            let access = if *persistent { Access::Update } else { Access::Read };
            opened(store, source, access, files).map(|file| (file, *persistent))
        });
        let store_file = store_file.transpose()?;
        let store_bytes = store_file.as_ref().map(|(file, _)| len(store, file)).transpose()?;
        let layout = RomLayout::of(len(code, &code_file)?, store_bytes)?;
        if config.smm && layout.shadow().is_some() {
            return Err(BootError::BiosWithSmm);
        }
        let code = read(code, code_file, layout.code.end - layout.code.start)?;
        let variables = store_file.zip(store_bytes).map(|((file, persistent), len)| {
            let kept = persistent.then(|| file.try_clone()).transpose();
            let kept = kept.map_err(|source| BootError::RomRead { file: store, source })?;
            let memory = Arc::new(read(store, file, len)?);
            Ok::<_, BootError>(Arc::new(VariableStore {
                memory,
                file: kept,
                unsynced: AtomicBool::new(false),
            }))
        });
        Ok(Self { layout, code: Arc::new(code), variables: variables.transpose()? })
    }

    /// Puts a BIOS where it is found below 1 MiB.
    pub fn load(&self, ram: &Ram) -> Result<(), BootError> {
        let Some(shadow) = self.layout.shadow() else { return Ok(()) };
        let mut bios = vec![0; self.code.size()];
        let shadowed = self.code.as_volatile_slice().read_slice(&mut bios, 0);
        shadowed.map_err(|e| BootError::Shadow(e.to_string()))?;
        ram.write_slice(&bios, GuestAddress(shadow.start)).map_err(|e| BootError::Shadow(e.to_string()))
    }
}

fn len(file: RomFile, opened: &File) -> Result<u64, BootError> {
    let metadata = opened.metadata().map_err(|source| BootError::RomRead { file, source })?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    Err(BootError::RomSize(BadSize {
        part: file.0,
        len_bytes: 0,
        max_bytes: orlop_firmware::image::ROM_MAX_BYTES,
    }))
}

/// Reads all `len` bytes of a file into memory of their own.
fn read(file: RomFile, opened: File, len: u64) -> Result<MmapRegion<()>, BootError> {
    let refuse = |source| BootError::RomRead { file, source };
    let mut bytes = Vec::new();
    opened.take(len.saturating_add(1)).read_to_end(&mut bytes).map_err(refuse)?;
    if bytes.len() as u64 != len {
        return Err(refuse(io::Error::other("its size changes while it is read")));
    }
    let memory = memory::rom(len)?;
    let copied = memory.as_volatile_slice().write_slice(&bytes, 0);
    copied.map_err(|e| refuse(io::Error::other(e.to_string())))?;
    Ok(memory)
}

/// The variable store: memory that the guest reads, and the file that keeps what it writes.
pub struct VariableStore {
    /// What the guest sees.
    pub memory: Arc<MmapRegion<()>>,
    file: Option<File>,
    /// The file has been written since it was last synchronised.
    unsynced: AtomicBool,
}

impl VariableStore {
    /// Fills `data` from `offset`.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if self.memory.as_volatile_slice().read_slice(data, at).is_err() {
            data.fill(0xff);
        }
    }

    /// Puts `data` at `offset`, in memory and in the file.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let inside = self.memory.as_volatile_slice().write_slice(data, at);
        inside.map_err(|e| io::Error::other(e.to_string()))?;
        let Some(file) = &self.file else { return Ok(()) };
        self.unsynced.store(true, Ordering::Relaxed);
        file.write_all_at(data, offset)
    }

    /// Has what was written survive the host's end as well. What fails here was still written.
    pub fn sync(&self) {
        if let Some(file) = &self.file
            && self.unsynced.swap(false, Ordering::Relaxed)
        {
            let _ = file.sync_data();
        }
    }
}
