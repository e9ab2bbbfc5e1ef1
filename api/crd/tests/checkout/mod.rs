//! Where the checkout is, and what lies beside it.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// KubeVirt's own data, which is kept beside a checkout and never in it.
pub fn beside(name: &str) -> Option<PathBuf> {
    let path = root().join("../shared/kubevirt").join(name);
    if !path.exists() {
        // Not by `println!`, which a test that passes does not show.
        let _ = writeln!(std::io::stderr(), "not compared: {} is not there", path.display());
        return None;
    }
    Some(path)
}
