//! One file per command.

pub mod console;
pub mod image;
pub mod list;
pub mod run;
pub mod stop;
mod supervise;
