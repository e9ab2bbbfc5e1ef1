//! Images for runs: the cache of this machine, and what a run needs from it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use orlop_oci::{
    FetchError, Format, Image, Limits, OpenError, Progress, Puller, Store, StoreError, detect, human_bytes,
    writable_copy,
};

use crate::plan::ImageWant;

/// How often progress is shown on a terminal, and elsewhere.
const SHOW_EVERY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// Where the cache is: `$ORLOP_IMAGE_DIR`, else `/var/lib/orlop/oci` for root, else in the user's cache.
pub fn root() -> PathBuf {
    if let Some(directory) = std::env::var_os("ORLOP_IMAGE_DIR") {
        return directory.into();
    }
    if geteuid().is_root() {
        return "/var/lib/orlop/oci".into();
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("orlop/oci")
}

/// What fetches images into the cache of this machine.
pub fn puller(limits: Limits) -> Result<Puller, StoreError> {
    Ok(Puller { store: Store::open(&root())?, limits, progress: Arc::new(Shown::default()) })
}

/// Why an image's file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no image.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The image has no such file.
    #[error("image {0}: {1}")]
    Open(String, OpenError),
    /// The cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A disk in a format that the VMM does not take.
    #[error("the disk of image {image} is in the {format} format; the formats of disks are raw and qcow2")]
    Format {
        /// The image.
        image: String,
        /// Name of the format.
        format: &'static str,
    },
    /// The copy for the guest.
    #[error("cannot make a copy of the disk of image {0}: {1}")]
    Copy(String, io::Error),
}

/// The images of one run. While it lives, the cache keeps them.
#[derive(Default)]
pub struct Images {
    puller: Option<Puller>,
    held: BTreeMap<String, Image>,
}

impl Images {
    /// The image, fetched where that is needed; once for each name.
    pub async fn get(&mut self, want: &ImageWant) -> Result<&Image, ImageError> {
        if !self.held.contains_key(&want.name) {
            // A run without images leaves no cache behind.
            let puller = match self.puller.take() {
                Some(puller) => puller,
                None => puller(Limits::default())?,
            };
            let image = puller.get(&want.name, Some(want.policy), &want.credentials).await;
            self.puller = Some(puller);
            self.held.insert(want.name.clone(), image?);
        }
        self.held.get(&want.name).ok_or_else(|| StoreError::Absent(want.name.clone()).into())
    }

    /// The disk of a container disk: the cached file, or a copy of its own that the guest may write to.
    pub async fn disk(
        &mut self,
        want: &ImageWant,
        path: Option<&str>,
        writable: bool,
    ) -> Result<File, ImageError> {
        let base =
            self.get(want).await?.disk(path).map_err(|error| ImageError::Open(want.name.clone(), error))?;
        let copy = |error| ImageError::Copy(want.name.clone(), error);
        if let Format::Other(format) = detect(&base).map_err(copy)? {
            return Err(ImageError::Format { image: want.name.clone(), format });
        }
        if writable { writable_copy(&base, &root()).map_err(copy) } else { Ok(base) }
    }

    /// A file of an image, read-only.
    pub async fn file(&mut self, want: &ImageWant, path: &str) -> Result<File, ImageError> {
        self.get(want).await?.file(path).map_err(|error| ImageError::Open(want.name.clone(), error))
    }
}

/// Progress on standard error: a line that changes on a terminal, a line now and then elsewhere.
pub struct Shown {
    is_terminal: bool,
    last: Mutex<Option<Instant>>,
}

impl Default for Shown {
    fn default() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), last: Mutex::new(None) }
    }
}

impl Progress for Shown {
    fn say(&self, what: &str) {
        let end = if self.is_terminal { "\x1b[K" } else { "" };
        // Where nobody listens, the work goes on.
        drop(writeln!(io::stderr(), "{what}{end}"));
        if let Ok(mut last) = self.last.lock() {
            *last = Some(Instant::now());
        }
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        let Ok(mut last) = self.last.lock() else { return };
        let every = SHOW_EVERY[usize::from(!self.is_terminal)];
        if last.is_some_and(|last| last.elapsed() < every) {
            return;
        }
        *last = Some(Instant::now());
        let of = total.map_or_else(String::new, |total| format!(" of {}", human_bytes(total)));
        let end = if self.is_terminal { "\x1b[K\r" } else { "\n" };
        drop(write!(io::stderr(), "  {}{of}{end}", human_bytes(done)));
    }
}
