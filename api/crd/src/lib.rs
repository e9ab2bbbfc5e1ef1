//! The `kubevirt.io/v1` types, ours: what a user may say about a virtual machine, and what the system answers.
//!
//! The JSON shape is KubeVirt's, field for field; `fields.tsv` holds it as a table and a test compares the
//! two in both directions. Unset fields stay unset and an explicit empty object (`masquerade: {}`) stays, so
//! that reading and writing an object changes nothing. Defaults are described, not filled in.
//!
//! [`manifest::parse`] reads what a user wrote and names every mistake at once; serde alone reads what an API
//! server stored, and passes over fields that it does not know.

pub mod access;
pub mod admission;
pub mod cdi;
pub mod choice;
pub mod clock;
pub mod condition;
pub mod cpu;
pub mod definition;
pub mod devices;
pub mod disks;
pub mod domain;
pub mod features;
pub mod firmware;
pub mod instancetype;
pub mod kubevirt;
pub mod manifest;
pub mod migration;
pub mod network;
pub mod preset;
pub mod probes;
pub mod quantity;
pub mod replica_set;
pub mod resource;
pub mod status;
pub mod storage_status;
pub mod topology;
pub mod vm;
pub mod vm_status;
pub mod vmi;
pub mod vmim;
pub mod volumes;

pub use domain::DomainSpec;
pub use k8s_openapi;
pub use vm::{VirtualMachine, VirtualMachineSpec};
pub use vmi::{VirtualMachineInstance, VirtualMachineInstanceSpec};
