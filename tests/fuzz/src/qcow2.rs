//! Any bytes as a qcow2 image that a guest reads and writes.

use orlop_disk::kit::fuzz;

/// Every operation ends, and nothing outside the image is touched.
pub fn run(bytes: &[u8]) {
    // The host's errors say nothing about the image.
    let _ = fuzz::qcow2(bytes);
}

/// Small images of every shape, and what is typically wrong with one.
pub fn corpus() -> crate::Corpus {
    fuzz::corpus()
}
