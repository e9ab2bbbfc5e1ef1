//! What fw_cfg shows: items by number, files by name.

use std::collections::BTreeMap;
use std::sync::Arc;

/// "QEMU": by this firmware recognises the interface.
const SIGNATURE: u16 = 0x00;
/// Which ways of access there are.
const ID: u16 = 0x01;
const ID_TRADITIONAL: u32 = 1 << 0;
const ID_DMA: u32 = 1 << 1;
/// The directory of files, and the first number of a file.
const DIRECTORY: u16 = 0x19;
const FIRST_FILE: u16 = 0x20;
/// A file's name in the directory, in bytes with its NUL.
const NAME_BYTES: usize = 56;

/// An item's bytes.
pub enum Content {
    /// Known from the start.
    Fixed(Arc<[u8]>),
    /// Made anew each time that it is selected, for what firmware changes before it reads: always `len` bytes, what is
    /// missing being zero.
    Made {
        /// Its length in bytes.
        len: usize,
        /// Makes it.
        make: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
    },
    /// Firmware may write it.
    Held {
        /// Its length in bytes.
        len: usize,
        /// What has it.
        held: Arc<dyn Held>,
    },
}

/// An item that firmware may write, by descriptors only.
pub trait Held: Send + Sync {
    /// Its bytes; called when it is selected.
    fn read(&self) -> Vec<u8>;
    /// Puts `data` at `offset`, all inside the item; false when that may not be.
    fn write(&self, offset: usize, data: &[u8]) -> bool;
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Fixed(bytes) => bytes.len(),
            Self::Made { len, .. } | Self::Held { len, .. } => *len,
        }
    }

    fn bytes(&self) -> Arc<[u8]> {
        match self {
            Self::Fixed(bytes) => Arc::clone(bytes),
            Self::Made { len, make } => padded(make(), *len),
            Self::Held { len, held } => padded(held.read(), *len),
        }
    }
}

fn padded(mut bytes: Vec<u8>, len: usize) -> Arc<[u8]> {
    bytes.resize(len, 0);
    bytes.into()
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Fixed(bytes.into())
    }
}

/// A file's name: at most 55 bytes without a NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName(String);

/// A file's name that has no room in the directory: an error of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTooLong(pub String);

impl std::fmt::Display for NameTooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "'{}' is not 1 to {} bytes without a NUL", self.0, NAME_BYTES.saturating_sub(1))
    }
}

impl std::error::Error for NameTooLong {}

impl FileName {
    /// The name `name`.
    pub fn new(name: &str) -> Result<Self, NameTooLong> {
        if (1..NAME_BYTES).contains(&name.len()) && !name.contains('\0') {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameTooLong(name.to_owned()))
        }
    }
}

/// All items of a device.
pub struct Items {
    numbered: BTreeMap<u16, Content>,
}

impl Items {
    /// The items of `numbered`, which lie below the files, and `files`, in the order of their names.
    pub fn new(numbered: BTreeMap<u16, Vec<u8>>, files: BTreeMap<FileName, Content>) -> Self {
        let mut all: BTreeMap<u16, Content> =
            numbered.into_iter().map(|(key, bytes)| (key, bytes.into())).collect();
        all.insert(SIGNATURE, b"QEMU".to_vec().into());
        all.insert(ID, (ID_TRADITIONAL | ID_DMA).to_le_bytes().to_vec().into());
        let directory = directory(&files);
        all.extend((FIRST_FILE..).zip(files.into_values()));
        all.insert(DIRECTORY, directory.into());
        Self { numbered: all }
    }

    /// The bytes of item `key`.
    pub(super) fn get(&self, key: u16) -> Option<Arc<[u8]>> {
        self.numbered.get(&key).map(Content::bytes)
    }

    /// Item `key` with its length in bytes, where firmware may write it.
    pub(super) fn held(&self, key: u16) -> Option<(usize, Arc<dyn Held>)> {
        match self.numbered.get(&key)? {
            Content::Held { len, held } => Some((*len, Arc::clone(held))),
            _ => None,
        }
    }
}

/// How many files there are, then each with length, number and name; big-endian.
fn directory(files: &BTreeMap<FileName, Content>) -> Vec<u8> {
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes();
    let mut directory = word(files.len()).to_vec();
    for ((FileName(name), content), key) in files.iter().zip(FIRST_FILE..) {
        directory.extend(word(content.len()));
        directory.extend(key.to_be_bytes());
        directory.extend([0, 0]);
        directory.extend(name.bytes().chain(std::iter::repeat(0)).take(NAME_BYTES));
    }
    directory
}
