//! The virtual node: real KVM on a machine that may have none.
