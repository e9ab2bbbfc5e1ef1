//! Files of the host: by path, or as descriptors that the process was started with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use orlop_api::config::{FileSource, ImageFormat, VmConfig};
use orlop_disk::{ErrorHandling, ErrorPolicy, Stopped};

/// Is told of a disk, by its name, that is to stop the machine, and why.
pub type TellDiskError = Arc<dyn Fn(&str, &Stopped<'_>) + Send + Sync>;

/// The descriptors that the process was started with (`--fd NAME=N`), each to be used once: what was handed out is kept
/// until [`Files::settle`], so that a machine that could not be built can be tried again.
#[derive(Default)]
pub struct Files {
    descriptors: BTreeMap<String, OwnedFd>,
    /// Names of those that were handed out since the last [`Files::settle`].
    used: BTreeSet<String>,
    /// In whose name images are locked.
    machine: String,
    /// What the images of each disk were found to be.
    formats: BTreeMap<String, Vec<ImageFormat>>,
    on_disk_error: Option<TellDiskError>,
}

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it; it exists.
    Update,
    /// Append to it; it is made if it does not exist.
    Append,
}

/// A file that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("cannot open {path} for {what}: {source}")]
    Open {
        /// The path.
        path: String,
        /// `reading` or `writing`.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// No descriptor has that name.
    #[error("no descriptor by the name '{0}' was given; start the process with --fd {0}=N")]
    NoSuchDescriptor(String),
    /// Two fields name the same one.
    #[error("the descriptor '{0}' is used already")]
    Used(String),
    /// The process has too many descriptors.
    #[error("cannot duplicate the descriptor '{0}': {1}")]
    Duplicate(String, io::Error),
}

impl Files {
    /// Holds `descriptors` by name.
    pub fn new(descriptors: BTreeMap<String, OwnedFd>) -> Self {
        Self { descriptors, ..Self::default() }
    }

    /// Opens for the machine `name` from now on; `on_disk_error` hears of disks that are to stop it.
    pub fn open_for(&mut self, name: &str, on_disk_error: TellDiskError) {
        self.machine = name.to_owned();
        self.on_disk_error = Some(on_disk_error);
        self.used.clear();
    }

    /// What was handed out is in use: nobody gets it again.
    pub fn settle(&mut self) {
        for name in std::mem::take(&mut self.used) {
            self.descriptors.remove(&name);
        }
    }

    /// What becomes of errors of disk `id`.
    pub fn error_handling(&self, id: &str, policy: ErrorPolicy) -> ErrorHandling {
        let (id, tell) = (id.to_owned(), self.on_disk_error.clone());
        let tell = Arc::new(move |stopped: &Stopped<'_>| {
            if let Some(tell) = &tell {
                tell(&id, stopped);
            }
        });
        ErrorHandling::new(policy, tell)
    }

    /// The machine that opens.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Notes what the images of disk `id` were found to be, the configuration's `source` first.
    pub fn note_formats(&mut self, id: &str, formats: Vec<ImageFormat>) {
        self.formats.insert(id.to_owned(), formats);
    }

    /// Writes into the configuration which formats were found.
    pub fn tell_formats(&self, config: &mut VmConfig) {
        for disk in &mut config.disks {
            let behind = disk.backing.iter_mut().map(|image| &mut image.format);
            let said = std::iter::once(&mut disk.format).chain(behind);
            let found = self.formats.get(&disk.id).into_iter().flatten();
            said.zip(found).for_each(|(said, found)| *said = *found);
        }
    }

    /// Takes the descriptor `name`.
    pub fn descriptor(&mut self, name: &str) -> Result<OwnedFd, FileError> {
        let descriptor =
            self.descriptors.get(name).ok_or_else(|| FileError::NoSuchDescriptor(name.to_owned()))?;
        if !self.used.insert(name.to_owned()) {
            return Err(FileError::Used(name.to_owned()));
        }
        descriptor.try_clone().map_err(|error| FileError::Duplicate(name.to_owned(), error))
    }

    /// Takes the descriptor `name` for good, if there is one. A confined thread can do that, but duplicate none.
    pub fn optional(&mut self, name: &str) -> Option<OwnedFd> {
        self.descriptors.remove(name)
    }

    /// Opens a file.
    pub fn open(&mut self, source: &FileSource, access: Access) -> Result<File, FileError> {
        let path = match source {
            FileSource::Fd(name) => return self.descriptor(name).map(File::from),
            FileSource::Path(path) => path,
        };
        let (options, what) = match access {
            Access::Read => (OpenOptions::new().read(true).clone(), "reading"),
            Access::Update => (OpenOptions::new().read(true).write(true).clone(), "writing"),
            Access::Append => (OpenOptions::new().append(true).create(true).mode(0o640).clone(), "writing"),
        };
        // Without O_NONBLOCK opening a pipe would wait for its other end.
        let opened = options.clone().custom_flags(libc::O_NONBLOCK).open(path);
        opened.map_err(|source| FileError::Open { path: path.clone(), what, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_given_once() {
        let null = OwnedFd::from(File::open("/dev/null").unwrap());
        let mut files = Files::new([("disk".to_owned(), null)].into());
        let source = FileSource::Fd("disk".into());
        assert!(files.open(&source, Access::Read).is_ok());
        let again = files.open(&source, Access::Read).unwrap_err();
        assert!(matches!(again, FileError::Used(_)), "{again}");
        files.settle();
        let again = files.open(&source, Access::Read).unwrap_err();
        assert!(matches!(again, FileError::NoSuchDescriptor(_)), "{again}");
    }

    #[test]
    fn a_machine_that_could_not_be_built_leaves_its_descriptors_for_the_next() {
        let null = OwnedFd::from(File::open("/dev/null").unwrap());
        let mut files = Files::new([("disk".to_owned(), null)].into());
        let source = FileSource::Fd("disk".into());
        for _ in 0..2 {
            files.open_for("a", Arc::new(|_, _| ()));
            assert!(files.open(&source, Access::Read).is_ok());
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let source = FileSource::Path("/nonexistent/kernel".into());
        let error = Files::default().open(&source, Access::Read).unwrap_err();
        assert!(error.to_string().starts_with("cannot open /nonexistent/kernel for reading: No such file"));
    }
}
