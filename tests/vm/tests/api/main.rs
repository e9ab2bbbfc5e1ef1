//! The REST API of the real process, held against the OpenAPI document that the process itself serves.
//!
//! `not_created` and `hostile` need no machine; `running` boots a guest of a few instructions.

mod document;
mod guest;
mod hostile;
mod not_created;
mod process;
mod running;
