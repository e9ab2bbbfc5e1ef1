//! The virtio socket device (virtio 1.3 §5.10): stream sockets between a guest and unix sockets of the host, without
//! the host kernel's vsock.
//!
//! ```text
//!   guest connects to (2, P)        →  unix socket  <path>_P
//!   host connects to <path>,
//!     sends "CONNECT P\n"           →  guest's port P; the answer is "OK <port>\n", with the port on the host's side
//! ```
//!
//! Everything is bounded: connections, what each may buffer, handshakes and their time, answers that wait for the
//! guest, and the work of one wake-up. A connection's flow is governed by credit in both directions
//! (virtio 1.3 §5.10.6.3). Connections do not survive a snapshot: after a restore the guest is told so by a
//! transport-reset event (virtio 1.3 §5.10.6.7).
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

mod backend;
mod build;
mod connection;
mod counters;
mod credit;
mod device;
mod handshake;
mod host;
mod muxer;
mod packet;
mod waker;

pub use build::{BuildError, VsockConfig, build};
pub use host::ListenError;
