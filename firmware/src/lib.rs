//! What the guest finds when it wakes: where its memory is, the kernel and its boot parameters, the ACPI tables.
//!
//! Everything here is a function of plain descriptions. Nothing is read but the images handed in, nothing is written
//! but guest memory through vm-memory's traits, and nothing knows KVM: registers come back as values in
//! [`kernel::EntryPoint`].
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

pub mod acpi;
pub mod handover;
pub mod image;
pub mod kernel;
pub mod layout;
pub mod reset_vector;
pub mod smbios;
pub mod topology;
