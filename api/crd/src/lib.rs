//! The `kubevirt.io` API types, ours.
