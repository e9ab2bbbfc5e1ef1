//! OCI images as the source of disks and kernels: fetched, verified, unpacked once, kept in a cache.
//!
//! ```text
//!  Source ── registry, layout, archive ── manifest ── layers ── tree (in memory) ── Store ── Image ── File
//!            every digest verified                    tar, streamed   names only      files by digest
//! ```
//!
//! Nothing that an image says becomes a path of this machine: its names, links and whiteouts live in a [`tree`] in
//! memory, and only the content of its regular files reaches the disk, under the digest of that content.

mod credentials;
mod fetch;
mod format;
#[cfg(any(test, feature = "kit"))]
pub mod kit;
mod layer;
mod limits;
mod local;
mod manifest;
mod overlay;
mod progress;
mod registry;
mod source;
mod staging;
mod store;
mod tree;
mod zstd;

pub use credentials::Credentials;
pub use fetch::{FetchError, FetchProblem, PullPolicy, Puller};
pub use format::{Format, detect};
pub use limits::Limits;
pub use overlay::writable_copy;
pub use progress::{Progress, Quiet, human_bytes};
pub use source::{Source, SourceError};
pub use store::{Image, Listed, OpenError, Removed, Store, StoreError};
pub use tree::PathError;
