//! A node: where guests run.

use std::io;
use std::path::{Path, PathBuf};

use crate::cache;
use crate::debian::BuildError;
use crate::direct::Direct;
use crate::host;
use crate::job::{Job, JobError, Outcome, Stream};
use crate::link::RunDir;
use crate::terminal;
use crate::virtual_node::{Virtual, stream_in};

/// A directory of the machine that the node sees, over 9p.
///
/// Good for programs, logs and results. Not for kernels and disk images: reads are not cached, and loading 50 MB
/// takes seconds. Those are in [`crate::env::IMAGES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The directory outside.
    pub host: PathBuf,
    /// Where the node mounts it.
    pub guest: PathBuf,
    /// Whether the node may write to it.
    pub writable: bool,
}

/// What a virtual node is like. Size and shares have no effect where the machine itself is the node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Processors. More than 2 make everything slower on 2 cores, and more than 1 risk a rare panic of the node's
    /// kernel (a race of multi-threaded emulation with code patching, rare because the job agent keeps KVM's own
    /// static keys from flipping).
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Whether the guest images are wanted (they are built if they are not there yet).
    pub images: bool,
    /// A virtual node even where the machine has KVM of its own.
    pub always_virtual: bool,
    /// Directories to share beside the checkout (read-only) and the job directory (`/job`, writable).
    pub shares: Vec<Share>,
    /// Disks that the node reads and does not write. It finds them by their serial numbers (`/sys/block/*/serial`).
    pub disks: Vec<NodeDisk>,
    /// A network card, if it is to have one.
    pub cable: Option<Cable>,
}

/// A read-only disk of a virtual node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDisk {
    /// At most 20 characters (virtio 1.3 §5.2.6.1).
    pub serial: String,
    /// The image. It must not change while the node is up.
    pub file: PathBuf,
}

/// What a virtual node's network card is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable {
    /// The network namespace (`ip-netns(8)`) in which the node's QEMU runs.
    pub namespace: String,
    /// A tap device in it.
    pub tap: String,
    /// The card's address.
    pub mac: String,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            cpus: 2,
            memory_mib: 3072,
            images: true,
            always_virtual: false,
            shares: Vec::new(),
            disks: Vec::new(),
            cable: None,
        }
    }
}

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What it is made of could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its job agent could not be built.
    #[error("failed to build the job agent of the node: {0}")]
    Agent(String),
    /// Its files could not be made.
    #[error("failed to set up {}: {source}", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// QEMU did not start.
    #[error("failed to start QEMU: {0}")]
    Qemu(String),
    /// It started and took no job.
    #[error("the virtual node started but did not come up: {0}")]
    Boot(JobError),
}

impl StartError {
    pub(crate) fn files(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Files { path, source }
    }
}

/// A running node. Dropping it ends it and everything that runs in it.
pub struct Node(Kind);

enum Kind {
    Virtual(Virtual),
    Attached(RunDir),
    Direct(Direct),
}

impl Node {
    /// Starts a node and waits until it takes jobs. A node that panics while it boots is started once more.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(options: &NodeOptions) -> Result<Self, StartError> {
        if host::has_hardware_kvm() && !options.always_virtual {
            return Ok(Self(Kind::Direct(Direct::start(options)?)));
        }
        match Virtual::start(options) {
            Err(StartError::Boot(e)) if e.is_the_nodes_fault() => {
                cache::say(format_args!("{e}\norlop: the node is started once more"));
                Virtual::start(options)
            }
            result => result,
        }
        .map(|node| Self(Kind::Virtual(node)))
    }

    /// Runs a job to its end and hands back all of its output. Several threads may do so at the same time.
    ///
    /// # Errors
    /// See [`JobError`]. A job that ends with another code than 0 is an [`Outcome`], not an error.
    pub fn run(&self, job: &Job) -> Result<Outcome, JobError> {
        let mut outcome = Outcome::default();
        let code = self.stream(job, &mut |stream, bytes| {
            match stream {
                Stream::Stdout => outcome.stdout.extend_from_slice(bytes),
                Stream::Stderr => outcome.stderr.extend_from_slice(bytes),
            }
            Ok(())
        })?;
        Ok(Outcome { code, ..outcome })
    }

    /// Runs a job to its end, handing its output over piece by piece as it comes, and hands back its exit code.
    ///
    /// # Errors
    /// As [`Self::run`], and those of `output`.
    pub fn stream(
        &self,
        job: &Job,
        output: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> Result<i32, JobError> {
        match self.place() {
            Ok(run_dir) => stream_in(run_dir, job, output),
            Err(direct) => direct.stream(job, output),
        }
    }

    /// Runs a job on this process's own standard streams; `with_terminal`, on a terminal of its own that this
    /// process's terminal becomes the window of.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn attach(&self, job: &Job, with_terminal: bool) -> Result<i32, JobError> {
        match self.place() {
            Ok(run_dir) => terminal::attach(run_dir, job, with_terminal),
            Err(direct) => direct.attach(job),
        }
    }

    /// The directory outside that jobs see, writable, as `/job`.
    #[must_use]
    pub fn job_dir(&self) -> PathBuf {
        match self.place() {
            Ok(run_dir) => run_dir.job_path(),
            Err(direct) => direct.job_dir(),
        }
    }

    /// The node of this directory, which is up. Dropping this value leaves it up.
    pub(crate) fn attached(run_dir: RunDir) -> Self {
        Self(Kind::Attached(run_dir))
    }

    /// The directory of the virtual node, or the machine itself.
    fn place(&self) -> Result<&RunDir, &Direct> {
        match &self.0 {
            Kind::Virtual(node) => Ok(node.run_dir()),
            Kind::Attached(run_dir) => Ok(run_dir),
            Kind::Direct(node) => Err(node),
        }
    }

    /// Ends the node. The same as dropping it, in words.
    pub fn stop(self) {}
}

/// Gives `work` a node, and a second one if the first breaks under it.
///
/// # Errors
/// Those of the start, and those of `work`.
pub fn retried<T, E: From<StartError> + std::fmt::Display>(
    options: &NodeOptions,
    is_the_nodes_fault: impl Fn(&E) -> bool,
    mut work: impl FnMut(&Node) -> Result<T, E>,
) -> Result<T, E> {
    let node = Node::start(options)?;
    match work(&node) {
        Err(e) if is_the_nodes_fault(&e) => {
            cache::say(format_args!("{e}\norlop: once more, in a fresh node"));
            drop(node);
            work(&Node::start(options)?)
        }
        result => result,
    }
}
