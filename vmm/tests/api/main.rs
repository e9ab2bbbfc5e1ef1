//! The REST API of the real process, held against the OpenAPI document that the process itself serves.
//!
//! `not_created` and `hostile` need no machine. `running` boots a guest of a few instructions and needs a working
//! `/dev/kvm`, real or not.

mod document;
mod guest;
mod hostile;
mod not_created;
mod process;
mod running;
