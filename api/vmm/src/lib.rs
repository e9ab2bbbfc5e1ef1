//! The types of the VMM's REST API.

pub mod config;
