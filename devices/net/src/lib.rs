//! Network back ends: where a virtual network card sends its frames.
//!
//! A [`Tap`] is one end of a Linux tap interface (<https://docs.kernel.org/networking/tuntap.html>): the host's kernel
//! is on the other one. It has one [`TapQueue`] per pair of virtqueues, each used by one device thread. Frames pass with
//! a [`HEADER_BYTES`] long virtio header in front, so that checksums and segmentation are left to whoever does them best.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

mod error;
mod interface;
#[cfg(feature = "kit")]
pub mod kit;
mod queue;
mod tap;

pub use error::{DescriptorProblem, TapError};
pub use queue::{Offloads, TapQueue};
pub use tap::Tap;

/// Length in bytes of the header before each frame: `struct virtio_net_hdr_v1` (virtio 1.3 §5.1.6).
pub const HEADER_BYTES: usize = 12;

/// The longest frame that a tap hands over, without header: an Ethernet header with a VLAN tag and the longest IP packet.
pub const FRAME_MAX_BYTES: usize = 18 + 65535;
