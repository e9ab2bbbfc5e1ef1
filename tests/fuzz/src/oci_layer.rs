//! Any bytes as the layer of an image.

use orlop_oci::kit::fuzz;

/// It is taken or refused within its limits; nothing is written.
pub fn run(bytes: &[u8]) {
    fuzz::layer(bytes);
}

/// Good ones, and what is typically wrong with one.
pub fn corpus() -> crate::Corpus {
    fuzz::layer_corpus()
}
