//! Every parser that hostile bytes reach, as a function of bytes, with inputs to begin with.
//!
//! `run` of a target takes any bytes; a panic, a hang or a broken promise (named where it is checked) is a finding. The
//! same functions are driven by libFuzzer (`fuzz_targets/`) and by ordinary tests (`tests/short.rs`).

pub mod ahci;
mod chains;
pub mod dhcp;
pub mod fw_cfg;
mod input;
pub mod kernel;
pub mod manifest;
mod media;
pub mod mutation;
pub mod oci_archive;
pub mod oci_documents;
pub mod oci_layer;
pub mod qcow2;
pub mod virtio_blk;
pub mod virtio_scsi;
pub mod vm_config;

/// Inputs with their names, which are file names.
pub type Corpus = Vec<(String, Vec<u8>)>;

/// A parser under test.
pub struct Target {
    /// Its name: that of its module and of its program.
    pub name: &'static str,
    /// Treats bytes as input.
    pub run: fn(&[u8]),
    /// Inputs to begin with, good ones and what is typically wrong with one.
    pub corpus: fn() -> Corpus,
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// All of them.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: $name::run, corpus: $name::corpus }),*];
    };
}

targets! {
    ahci dhcp fw_cfg kernel manifest oci_archive oci_documents oci_layer qcow2 virtio_blk virtio_scsi vm_config
}
