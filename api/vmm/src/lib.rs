//! The words of the VMM's REST API: what a client sends and what it gets back, as plain data.
//!
//! Every type is on the wire as JSON and described in the OpenAPI document that the VMM serves; field names carry
//! their units. There is no I/O in this crate. Paths are below [`BASE`].

pub mod config;
pub mod control;
pub mod device;
pub mod event;
pub mod problem;
pub mod state;
pub mod vcpu;

/// Every path of the API starts with it.
pub const BASE: &str = "/api/v1";

/// What `Upgrade` says for the raw byte stream of `GET /vm/console`.
pub const CONSOLE_PROTOCOL: &str = "orlop-console";

/// The most bytes that a request body may have: 1 MiB.
pub const BODY_MAX_BYTES: usize = 1 << 20;
