//! A real Kubernetes cluster on one machine: etcd, API server, controller manager, scheduler and DNS as processes in a network
//! namespace of their own, and virtual nodes with containerd, kubelet and kube-proxy.
//!
//! ```no_run
//! use orlop_cluster::{Cluster, NodeSize};
//!
//! let cluster = Cluster::of_checkout();
//! cluster.up(2, NodeSize::default())?;
//! assert!(cluster.kubectl().args(["get", "nodes"]).status()?.success());
//! cluster.down()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod addresses;
mod control_plane;
mod image;
mod network;
mod node;
mod pki;
mod programs;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use orlop_nested::cache::{self, Recipe, step};
use orlop_nested::{BuildError, Standing, UpError, host, run};

use control_plane::{ControlPlane, PROGRAMS};
use network::Namespace;

pub use image::{Entry, Image};
pub use node::NodeSize;
pub use pki::PkiError;

/// How long nodes may take from their kubelet's start to Ready; 10 s are usual.
const READY: Duration = Duration::from_secs(180);

/// Why a cluster could not be brought up or down.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// What it is made of could not be built, or the machine refused something.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its keys could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Its files could not be made.
    #[error("failed to set up {}: {source}", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program did not start.
    #[error("failed to start {program}: {source}")]
    Start {
        /// Which.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// Something started and is of no use.
    #[error("{what} did not become ready: {why} (its log: {})", log.display())]
    NotReady {
        /// What.
        what: String,
        /// Why not, in its own words.
        why: String,
        /// Where more is said.
        log: PathBuf,
    },
    /// A virtual node did not start or end.
    #[error("node n{index}: {source}")]
    Node {
        /// Which.
        index: u8,
        /// Why not.
        source: UpError,
    },
    /// It is not up.
    #[error("no cluster is up: cargo xtask cluster up")]
    Down,
    /// No more nodes fit.
    #[error("a cluster has at most {} nodes", addresses::NODES_MAX)]
    Full,
}

impl ClusterError {
    fn files(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Files { path, source }
    }

    fn node(index: u8) -> impl FnOnce(UpError) -> Self {
        move |source| Self::Node { index, source }
    }
}

/// The cluster of a checkout, up or not. It outlives the process that brings it up.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    namespace: Namespace,
}

impl Cluster {
    /// The one cluster of this checkout: two checkouts have two, which never meet.
    #[must_use]
    pub fn of_checkout() -> Self {
        let key = Recipe::new().with(host::checkout().as_os_str().as_encoded_bytes()).key();
        let directory = cache::directory().join("run").join(format!("cluster-{key}"));
        Self { directory, namespace: Namespace(format!("orlop-{key}")) }
    }

    /// Brings it up with `nodes` nodes, and returns when all of them are Ready. If it is up already, nodes that it lacks are added.
    ///
    /// # Errors
    /// See [`ClusterError`]. What is up by then stays up, to be looked at.
    pub fn up(&self, nodes: u8, size: NodeSize) -> Result<(), ClusterError> {
        if nodes > addresses::NODES_MAX {
            return Err(ClusterError::Full);
        }
        let programs = programs::build()?;
        if !self.is_up() {
            self.remove()?;
            fs::create_dir_all(&self.directory).map_err(ClusterError::files(&self.directory))?;
            self.namespace.make()?;
            let link = self.directory.join(PROGRAMS);
            std::os::unix::fs::symlink(&programs, &link).map_err(ClusterError::files(&link))?;
            self.control_plane().start()?;
        }
        let there = self.nodes();
        let wanted: Vec<u8> = (1..=nodes).filter(|index| !there.contains(index)).collect();
        self.start_nodes(&wanted, size)
    }

    /// Adds a node and returns its name when it is Ready.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn add_node(&self, size: NodeSize) -> Result<String, ClusterError> {
        if !self.is_up() {
            return Err(ClusterError::Down);
        }
        let there = self.nodes();
        let index = (1..=addresses::NODES_MAX).find(|index| !there.contains(index));
        let index = index.ok_or(ClusterError::Full)?;
        self.start_nodes(&[index], size)?;
        Ok(node::name(index))
    }

    /// Ends every process of the cluster and removes everything of it; tells whether there was one.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn down(&self) -> Result<bool, ClusterError> {
        let there = self.namespace.exists() || self.directory.exists();
        self.remove()?;
        Ok(there)
    }

    /// Whether its API server is there.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.namespace.exists()
            && self
                .kubectl()
                .args(["get", "--raw", "/readyz"])
                .output()
                .is_ok_and(|output| output.status.success())
    }

    /// `kubectl` as its administrator.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut command = self.command(self.control_plane().program("kube"));
        command.arg("kubectl");
        command
    }

    /// A program in the cluster's network namespace, with `KUBECONFIG` set for its administrator.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.namespace.command(program);
        command.env("KUBECONFIG", self.control_plane().kubeconfig("admin"));
        command
    }

    /// The logs of everything that runs: of the control plane by its programs' names, of nodes as `n1/kubelet`.
    #[must_use]
    pub fn logs(&self) -> Vec<(String, PathBuf)> {
        let mut logs = log_files(&self.control_plane().logs(), "");
        for index in 1..=addresses::NODES_MAX {
            if let Some(node) = node::standing(index).status() {
                logs.extend(log_files(&node.job_dir, &format!("{}/", node::name(index))));
                logs.push((format!("{}/console", node::name(index)), node.console));
            }
        }
        logs
    }

    /// Node `name` (`n1`) as a virtual node that takes jobs, if it is up.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Standing> {
        let index: u8 = name.strip_prefix('n')?.parse().ok()?;
        let standing = node::standing(index);
        standing.status().map(|_| standing)
    }

    fn control_plane(&self) -> ControlPlane<'_> {
        ControlPlane { namespace: &self.namespace, directory: &self.directory }
    }

    /// The nodes that are up.
    fn nodes(&self) -> Vec<u8> {
        (1..=addresses::NODES_MAX).filter(|index| node::standing(*index).status().is_some()).collect()
    }

    fn start_nodes(&self, wanted: &[u8], size: NodeSize) -> Result<(), ClusterError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let programs = self.directory.join(PROGRAMS);
        let programs = programs.canonicalize().map_err(ClusterError::files(&programs))?;
        let disk = node::disk(&programs)?;
        let there = self.nodes();
        let all: Vec<u8> = there.iter().chain(wanted).copied().collect();
        let names: Vec<String> = wanted.iter().map(|index| node::name(*index)).collect();
        let keys = self.directory.join("pki");
        step(&format!("start the nodes {}", names.join(", ")), || {
            std::thread::scope(|scope| {
                let start = |index: u8| node::start(index, &all, size, &disk, &self.namespace, &keys);
                let starts: Vec<_> = wanted.iter().map(|index| scope.spawn(move || start(*index))).collect();
                let ended = starts
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                ended.collect::<Result<Vec<()>, ClusterError>>()
            })?;
            for old in &there {
                wanted.iter().try_for_each(|new| node::introduce(*old, *new))?;
            }
            for awaited in ["create", "condition=Ready"] {
                let mut wait = self.kubectl();
                wait.arg("wait")
                    .arg(format!("--for={awaited}"))
                    .arg(format!("--timeout={}s", READY.as_secs()));
                wait.args(names.iter().map(|name| format!("node/{name}")));
                run("wait until the nodes are Ready", &mut wait)?;
            }
            Ok(())
        })
    }

    fn remove(&self) -> Result<(), ClusterError> {
        for index in 1..=addresses::NODES_MAX {
            node::standing(index).down().map_err(ClusterError::node(index))?;
        }
        if self.namespace.exists() {
            self.namespace.remove()?;
        }
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory).map_err(ClusterError::files(&self.directory))?;
        }
        Ok(())
    }
}

/// The files `*.log` of a directory with their names.
fn log_files(directory: &Path, prefix: &str) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut logs: Vec<(String, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter_map(|path| Some((format!("{prefix}{}", path.file_stem()?.to_str()?), path)))
        .collect();
    logs.sort();
    logs
}
