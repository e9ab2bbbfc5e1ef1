//! Any bytes as an archive of images.

use orlop_oci::kit::fuzz;

/// It is taken or refused within its limits; nothing is written.
pub fn run(bytes: &[u8]) {
    fuzz::archive(bytes);
}

/// Good ones, and what is typically wrong with one.
pub fn corpus() -> crate::Corpus {
    fuzz::archive_corpus()
}
