//! Keeps KVM from patching its own code while guests come and go.
//!
//! KVM flips static keys (code patched in place through an `int3`) with the first and the last VM, vCPU without an
//! interrupt controller, and disabled APIC. Under multi-threaded emulation another processor may run the stale `int3`
//! after the patch is done, and the node panics. One VM of each kind, held for as long as the node lives, keeps every
//! such key where it is.

use kvm_ioctls::{Kvm, VcpuFd, VmFd};

/// Bit 11 of IA32_APIC_BASE: APIC global enable (SDM vol 3 §11.4.3).
const APIC_GLOBAL_ENABLE: u64 = 1 << 11;

/// The VMs and vCPUs that hold the keys while they exist.
pub(crate) struct Held {
    _vms: [VmFd; 2],
    _vcpus: [VcpuFd; 3],
}

/// Takes hold of `kvm_usage_count`, `preempt_notifier_key`, `kvm_has_noapic_vcpu`, `apic_hw_disabled` and
/// `apic_sw_disabled`.
pub(crate) fn static_keys() -> Result<Held, kvm_ioctls::Error> {
    let kvm = Kvm::new()?;
    let bare = kvm.create_vm()?;
    let without_apic = bare.create_vcpu(0)?;

    let full = kvm.create_vm()?;
    full.create_irq_chip()?;
    let software_disabled = full.create_vcpu(0)?;
    let hardware_disabled = full.create_vcpu(1)?;
    let mut registers = hardware_disabled.get_sregs()?;
    registers.apic_base &= !APIC_GLOBAL_ENABLE;
    hardware_disabled.set_sregs(&registers)?;
    Ok(Held { _vms: [bare, full], _vcpus: [without_apic, software_disabled, hardware_disabled] })
}
