//! For tests: trouble with a disk, for real; images of every shape; random operations, and a check of what they left.

mod check;
mod exercise;
pub mod fuzz;
mod image;

pub use check::{Findings, check};
pub use exercise::{Exercise, run};
pub use image::{Content, Shape};

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PLACE: &str = "SMALL_TMPFS";

/// The tmpfs of 1 MiB that this process was started on by [`on_a_small_tmpfs`].
pub fn small_tmpfs() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

/// Runs this very test binary's test `name` again in a mount namespace of its own, where `dir` is a tmpfs of 1 MiB, as
/// root or with user namespaces. An error when the test failed there, or could not be run; what it wrote is on standard
/// output.
pub fn on_a_small_tmpfs(name: &str, dir: &Path) -> io::Result<()> {
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        unshare.args(["--user", "--map-root-user"]);
    }
    let script = format!(
        "mount -t tmpfs -o size=1m tmpfs \"$1\" && {PLACE}=\"$1\" exec \"$2\" --exact \"$3\" --nocapture"
    );
    let arguments: [OsString; 3] = [dir.into(), std::env::current_exe()?.into(), name.into()];
    let output = unshare.args(["sh", "-c", &script, "sh"]).args(arguments).output()?;
    io::stdout().write_all(&[output.stdout, output.stderr].concat())?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other("the test failed on its small tmpfs"))
}
