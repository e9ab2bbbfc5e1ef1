//! Benchmarks against QEMU and bare KVM.
