//! The virtual node: real KVM on a machine that may have none.
//!
//! Where the machine has hardware virtualisation a [`Node`] is the machine itself. Elsewhere it is a QEMU machine with an
//! emulated AMD processor whose SVM works (nested paging included), running a stock Debian kernel with `kvm_amd`. Both
//! take the same jobs and hand back the same outcomes, so a test or a benchmark never asks which of the two it got.
//!
//! ```no_run
//! use orlop_nested::{Job, Node, NodeOptions};
//!
//! let node = Node::start(&NodeOptions::default())?;
//! let outcome = node.run(&Job::new(["uname", "-r"]))?;
//! assert_eq!(outcome.code, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Everything a node is made of is built once from Debian packages and kept in the [`cache`], keyed by its recipe.

pub mod cache;
mod console;
mod cpio;
mod debian;
mod direct;
mod firmware;
pub mod host;
pub mod images;
mod job;
mod kmod;
mod link;
mod node;
mod qemu;
mod root;
mod terminal;
mod up;
mod virtual_node;
pub mod wire;

pub use console::ConsoleLog;
pub use debian::{BuildError, MKFS_EROFS, RootTree, Tool, require, run};
pub use job::{Job, JobError, Outcome, Stream};
pub use node::{Cable, Node, NodeDisk, NodeOptions, Share, StartError, retried};
pub use up::{Standing, UpError, UpNode};

/// Environment variables that every job finds, in the virtual node and on a machine with KVM of its own alike.
pub mod env {
    /// Directory with the guest images: `vmlinux`, `bzImage`, `initramfs.cpio`, `debian.raw`, `debian.vmlinuz`,
    /// `debian.initrd`. Read-only: copy a disk to [`SCRATCH`] before a guest writes to it.
    pub const IMAGES: &str = "ORLOP_IMAGES";
    /// A fast writable directory that is private to the node and gone with it.
    pub const SCRATCH: &str = "ORLOP_SCRATCH";
    /// Path of the `orlop-vmm` binary under test.
    pub const VMM: &str = "ORLOP_VMM";
    /// Path of the `orlop-agent` binary under test.
    pub const AGENT: &str = "ORLOP_AGENT";
    /// Path of the probe guest (`firmware/probe`).
    pub const PROBE: &str = "ORLOP_PROBE";
    /// Set to `1` inside the virtual node, absent on a machine with KVM of its own.
    pub const VIRTUAL: &str = "ORLOP_VIRTUAL_NODE";
}
