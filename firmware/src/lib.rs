//! What the guest finds when it wakes: kernels, boot parameters, ACPI.
