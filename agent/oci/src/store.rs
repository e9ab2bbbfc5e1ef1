//! The cache: every file once, under the digest of its content; images as lists of names for them.
//!
//! ```text
//!  lock              held (shared or exclusive) while the three below are looked at or changed
//!  names.json        name → image
//!  images/SHA256     an image's tree; its lock is held shared by whoever uses it
//!  files/SHA256      a file's content, read-only
//!  staging/SHA256/   an import under way; its lock is held by the importer, and what nobody holds is cleared away
//! ```
//!
//! A file or an image appears by a rename when it is complete, so that a process that is killed leaves nothing half.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::syncfs;
use serde::{Deserialize, Serialize};

use crate::staging::Staging;
use crate::tree::{Content, Node, PathError, Tree};

/// An image is found by this many digits of its digest, at least.
const SHORT_ID_DIGITS: usize = 6;

/// Why the cache does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of it refuses.
    #[error("the image cache: {path}: {reason}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// A file of it holds something else than it should.
    #[error("the image cache is damaged ({path}: {reason}): remove the image and import it again")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No such image.
    #[error("there is no image '{0}' in the cache: see orlop-agent image list")]
    Absent(String),
    /// Digits that several images share.
    #[error("'{0}' could be any of several images: give more of its digits")]
    Ambiguous(String),
    /// A VM runs from it.
    #[error("the image '{0}' is in use by a running VM")]
    InUse(String),
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    move |reason| StoreError::Io { path: path.to_owned(), reason }
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Named {
    image: String,
    /// Seconds since 1970.
    imported: u64,
}

type Names = BTreeMap<String, Named>;

/// One image as [`Store::list`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its names; none where they moved on to newer images.
    pub names: Vec<String>,
    /// Its digest, without `sha256:`.
    pub id: String,
    /// What its files take on the disk, in bytes.
    pub size_bytes: u64,
    /// When it was imported, in seconds since 1970; unset without a name.
    pub imported: Option<u64>,
    /// Whether a VM runs from it.
    pub in_use: bool,
}

/// What a removal freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Digests of the images that are gone, without `sha256:`.
    pub images: Vec<String>,
    /// What became free on the disk, in bytes.
    pub freed_bytes: u64,
}

/// The cache in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The cache in `root`, made where it is not there.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        for directory in ["images", "files", "staging"] {
            let directory = root.join(directory);
            DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(at(&directory))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image called `name`, if it is there.
    pub fn find(&self, name: &str) -> Result<Option<Image>, StoreError> {
        let _held = self.hold(false)?;
        match self.names()?.get(name) {
            Some(named) => self.image(&named.image),
            None => Ok(None),
        }
    }

    /// The image with the digest `id`, if it is there; from now on it is also called `name`.
    pub(crate) fn find_by_id(&self, id: &str, name: &str) -> Result<Option<Image>, StoreError> {
        let _held = self.hold(true)?;
        let Some(image) = self.image(id)? else { return Ok(None) };
        self.set_name(name, id)?;
        Ok(Some(image))
    }

    /// A place to put the image `id` together in. While another process does that, `None`.
    pub(crate) fn stage(&self, id: &str) -> Result<Option<Staging>, StoreError> {
        let _held = self.hold(true)?;
        self.sweep()?;
        Staging::claim(&self.root.join("staging").join(id))
    }

    /// Waits until nobody puts `id` together any more.
    pub(crate) fn wait_for_stage(&self, id: &str) -> Result<(), StoreError> {
        let path = self.root.join("staging").join(id).join(Staging::LOCK);
        match File::open(&path) {
            Ok(file) => file.lock_shared().map_err(at(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Makes what was put together in `staging` the image `id`, called `name`.
    pub(crate) fn commit(
        &self,
        staging: Staging,
        id: &str,
        name: &str,
        tree: &Tree,
    ) -> Result<Image, StoreError> {
        let _held = self.hold(true)?;
        let nodes: BTreeMap<&str, &Node> = tree.nodes().collect();
        for content in contents(nodes.values().copied()) {
            let to = self.file_path(&content.sha256);
            if !to.exists() {
                staging.move_file(&content.sha256, &to)?;
            }
        }
        // What the image names is on the disk before the image is.
        File::open(&self.root).and_then(|root| Ok(syncfs(root)?)).map_err(at(&self.root))?;
        self.write_json(&self.image_path(id), &nodes)?;
        self.set_name(name, id)?;
        drop(staging);
        self.image(id)?.ok_or_else(|| StoreError::Absent(name.to_owned()))
    }

    /// Every image, those with names first.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        // Exclusively: two that ask who is in use would see each other.
        let _held = self.hold(true)?;
        let names = self.names()?;
        let mut all = Vec::new();
        for id in self.ids()? {
            let mine = || names.iter().filter(|(_, named)| named.image == id);
            all.push(Listed {
                names: mine().map(|(name, _)| name.clone()).collect(),
                size_bytes: self.files_of(&id)?.iter().map(|sha256| self.disk_bytes(sha256)).sum(),
                imported: mine().map(|(_, named)| named.imported).max(),
                in_use: self.is_in_use(&id)?,
                id,
            });
        }
        all.sort_by(|a, b| (a.names.is_empty(), &a.names, &a.id).cmp(&(b.names.is_empty(), &b.names, &b.id)));
        Ok(all)
    }

    /// Removes a name, or by the first digits of its digest an image with all its names. An image goes with its last
    /// name.
    pub fn remove(&self, name_or_id: &str, full_name: &str) -> Result<Removed, StoreError> {
        let _held = self.hold(true)?;
        let mut names = self.names()?;
        let (id, keep) = match names.get(full_name) {
            Some(named) => {
                (named.image.clone(), names.values().filter(|n| n.image == named.image).count() > 1)
            }
            None => (self.by_digits(name_or_id)?, false),
        };
        if keep {
            names.remove(full_name);
            self.write_names(&names)?;
            return Ok(Removed::default());
        }
        if self.is_in_use(&id)? {
            return Err(StoreError::InUse(name_or_id.to_owned()));
        }
        self.remove_images(&[id])
    }

    /// Removes images that no name stands for any more, with `all` also those with names; never one that is in use.
    pub fn prune(&self, all: bool) -> Result<Removed, StoreError> {
        let _held = self.hold(true)?;
        let named: BTreeSet<String> = self.names()?.into_values().map(|named| named.image).collect();
        let mut gone = Vec::new();
        for id in self.ids()? {
            if (all || !named.contains(&id)) && !self.is_in_use(&id)? {
                gone.push(id);
            }
        }
        self.remove_images(&gone)
    }

    fn remove_images(&self, ids: &[String]) -> Result<Removed, StoreError> {
        let mut names = self.names()?;
        names.retain(|_, named| !ids.contains(&named.image));
        self.write_names(&names)?;
        for id in ids {
            let path = self.image_path(id);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        let freed_bytes = self.sweep()? + self.remove_orphans()?;
        Ok(Removed { images: ids.to_vec(), freed_bytes })
    }

    /// Clears away what killed imports left; what it took, in bytes.
    fn sweep(&self) -> Result<u64, StoreError> {
        let mut freed_bytes = 0;
        let mut found = false;
        for path in entries(&self.root.join("staging"))? {
            if let Some(staging) = Staging::claim(&path)? {
                freed_bytes += staging.disk_bytes();
                found = true;
            }
        }
        // One that was killed between its files and its image has left files that no image names.
        Ok(freed_bytes + if found { self.remove_orphans()? } else { 0 })
    }

    fn remove_orphans(&self) -> Result<u64, StoreError> {
        let mut used = BTreeSet::new();
        for id in self.ids()? {
            used.extend(self.files_of(&id)?);
        }
        let mut freed_bytes = 0;
        for path in entries(&self.root.join("files"))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !used.contains(name) {
                freed_bytes += self.disk_bytes(name);
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(freed_bytes)
    }

    fn hold(&self, exclusive: bool) -> Result<File, StoreError> {
        let path = self.root.join("lock");
        let file = open_lock(&path)?;
        let held = if exclusive { file.lock() } else { file.lock_shared() };
        held.map_err(at(&path))?;
        Ok(file)
    }

    fn image_path(&self, id: &str) -> PathBuf {
        self.root.join("images").join(id)
    }

    fn file_path(&self, sha256: &str) -> PathBuf {
        self.root.join("files").join(sha256)
    }

    fn disk_bytes(&self, sha256: &str) -> u64 {
        fs::metadata(self.file_path(sha256)).map_or(0, |metadata| metadata.blocks() * 512)
    }

    fn ids(&self) -> Result<Vec<String>, StoreError> {
        let directory = self.root.join("images");
        let name = |path: PathBuf| path.file_name().and_then(|n| n.to_str()).map(str::to_owned);
        let mut ids: Vec<_> =
            entries(&directory)?.into_iter().filter_map(name).filter(|id| is_id(id)).collect();
        ids.sort();
        Ok(ids)
    }

    fn by_digits(&self, text: &str) -> Result<String, StoreError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut found = self.ids()?;
        found.retain(|id| digits.len() >= SHORT_ID_DIGITS && id.starts_with(digits));
        match <[_; 1]>::try_from(found) {
            Ok([id]) => Ok(id),
            Err(found) if found.is_empty() => Err(StoreError::Absent(text.to_owned())),
            Err(_) => Err(StoreError::Ambiguous(text.to_owned())),
        }
    }

    /// The image `id` with its lock held, if it is there. The cache must be held.
    fn image(&self, id: &str) -> Result<Option<Image>, StoreError> {
        let path = self.image_path(id);
        let lock = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        lock.lock_shared().map_err(at(&path))?;
        let tree = Tree::of(read_json(&path)?);
        Ok(Some(Image { id: id.to_owned(), tree, files: self.root.join("files"), _lock: lock }))
    }

    fn is_in_use(&self, id: &str) -> Result<bool, StoreError> {
        let path = self.image_path(id);
        match File::open(&path).map_err(at(&path))?.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(at(&path)(error)),
        }
    }

    fn files_of(&self, id: &str) -> Result<BTreeSet<String>, StoreError> {
        let nodes: BTreeMap<String, Node> = read_json(&self.image_path(id))?;
        Ok(contents(nodes.values()).map(|content| content.sha256.clone()).collect())
    }

    fn names(&self) -> Result<Names, StoreError> {
        let path = self.root.join("names.json");
        if path.exists() { read_json(&path) } else { Ok(Names::new()) }
    }

    fn set_name(&self, name: &str, id: &str) -> Result<(), StoreError> {
        let mut names = self.names()?;
        let imported = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if names.get(name).is_some_and(|named| named.image == id) {
            return Ok(());
        }
        names.insert(name.to_owned(), Named { image: id.to_owned(), imported });
        self.write_names(&names)
    }

    fn write_names(&self, names: &Names) -> Result<(), StoreError> {
        self.write_json(&self.root.join("names.json"), names)
    }

    /// Replaces a file at once. The cache must be held exclusively.
    fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
        let new = self.root.join("new");
        let write = || {
            let bytes = serde_json::to_vec(value)?;
            let mut file =
                OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(at(path))?;
        let directory = path.parent().unwrap_or(&self.root);
        File::open(directory).and_then(|file| file.sync_all()).map_err(at(directory))
    }
}

/// An image of the cache. While it lives, nobody removes it.
#[derive(Debug)]
pub struct Image {
    id: String,
    tree: Tree,
    files: PathBuf,
    _lock: File,
}

/// Why a file of an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The image does not have it.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The cache does not have it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Image {
    /// Its digest, without `sha256:`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The disk of a container disk, read-only: the file at `path`, else the only one in `/disk`.
    pub fn disk(&self, path: Option<&str>) -> Result<File, OpenError> {
        let (_, content) = self.tree.disk(path)?;
        Ok(self.open(content)?)
    }

    /// The file at `path`, read-only.
    pub fn file(&self, path: &str) -> Result<File, OpenError> {
        Ok(self.open(self.tree.file(path)?)?)
    }

    fn open(&self, content: &Content) -> Result<File, StoreError> {
        let path = self.files.join(&content.sha256);
        let file = File::open(&path).map_err(at(&path))?;
        let len = file.metadata().map_err(at(&path))?.len();
        if len != content.len_bytes {
            let reason = format!("{len} bytes instead of {}", content.len_bytes);
            return Err(StoreError::Damaged { path, reason });
        }
        Ok(file)
    }
}

fn contents<'a>(nodes: impl Iterator<Item = &'a Node>) -> impl Iterator<Item = &'a Content> {
    nodes.filter_map(|node| if let Node::File(content) = node { Some(content) } else { None })
}

/// Whether `text` is a SHA-256 in lower-case hexadecimal.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn open_lock(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .read(true)
        .mode(0o600)
        .open(path)
        .map_err(at(path))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let bytes = fs::read(path).map_err(at(path))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| StoreError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let list = fs::read_dir(directory).map_err(at(directory))?;
    list.map(|entry| entry.map(|entry| entry.path()).map_err(at(directory))).collect()
}
