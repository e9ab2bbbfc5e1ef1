//! The state of processors and interrupt controllers at power-on, kept so that a reset can bring it back.
//!
//! KVM has no ioctl that resets a machine. What it can do is to take every register out and put it in again, in the
//! order that the registers depend on each other (the local APIC after its base, model-specific registers after the
//! local APIC, pending events last).

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, Msrs, kvm_debugregs, kvm_fpu,
    kvm_irqchip, kvm_lapic_state, kvm_msr_entry, kvm_pit_state2, kvm_regs, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs,
};
use kvm_ioctls::{VcpuFd, VmFd};

use super::KvmError;

/// Model-specific registers that hold state of a guest (SDM vol 4 §2.1; the paravirtual ones: Linux
/// `Documentation/virt/kvm/x86/msr.rst`), with the value at power-on. Time stamp counter first: writing it to every
/// vCPU within a second keeps them in step.
const MSRS: [(u32, u64); 28] = [
    (0x10, 0),        // IA32_TIME_STAMP_COUNTER
    (0x174, 0),       // IA32_SYSENTER_CS
    (0x175, 0),       // IA32_SYSENTER_ESP
    (0x176, 0),       // IA32_SYSENTER_EIP
    (0x1a0, 1),       // IA32_MISC_ENABLE: fast strings
    (0x9e, 0x3_0000), // IA32_SMBASE (SDM vol 3 §32.11)
    (0x34, 0),        // MSR_SMI_COUNT
    (0x277, PAT),     // IA32_PAT
    (0x3b, 0),        // IA32_TSC_ADJUST
    (0x48, 0),        // IA32_SPEC_CTRL
    (0x6a0, 0),       // IA32_U_CET
    (0x6a2, 0),       // IA32_S_CET
    (0x6e0, 0),       // IA32_TSC_DEADLINE
    (0xda0, 0),       // IA32_XSS
    (0xc000_0081, 0), // IA32_STAR
    (0xc000_0082, 0), // IA32_LSTAR
    (0xc000_0083, 0), // IA32_CSTAR
    (0xc000_0084, 0), // IA32_FMASK
    (0xc000_0102, 0), // IA32_KERNEL_GS_BASE
    (0xc000_0103, 0), // IA32_TSC_AUX
    (0x11, 0),        // MSR_KVM_WALL_CLOCK
    (0x12, 0),        // MSR_KVM_SYSTEM_TIME
    (0x4b56_4d00, 0), // MSR_KVM_WALL_CLOCK_NEW
    (0x4b56_4d01, 0), // MSR_KVM_SYSTEM_TIME_NEW
    (0x4b56_4d02, 0), // MSR_KVM_ASYNC_PF_EN
    (0x4b56_4d03, 0), // MSR_KVM_STEAL_TIME
    (0x4b56_4d04, 0), // MSR_KVM_PV_EOI_EN
    (0x4b56_4d06, 0), // MSR_KVM_ASYNC_PF_INT
];

/// IA32_MTRR_DEF_TYPE (SDM vol 3 §12.11.2.1).
const MTRR_DEF_TYPE: u32 = 0x2ff;

/// The memory types that a processor starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryTypes {
    /// As after power-on: the type ranges are off and everything is uncacheable. Firmware sets them up.
    PowerOn,
    /// As firmware leaves them for a kernel: everything is write-back.
    WriteBack,
}

impl MemoryTypes {
    fn default_type(self) -> u64 {
        match self {
            Self::PowerOn => 0,
            Self::WriteBack => 0x806,
        }
    }
}

/// Bases and masks of the variable memory type ranges (SDM vol 3 §12.11.2.3): none is valid at power-on.
const MTRR_VARIABLE: std::ops::Range<u32> = 0x200..0x210;

/// Page attribute table at power-on (SDM vol 3 §12.12.4).
const PAT: u64 = 0x0007_0406_0007_0406;

/// Local vector table entries of LINT0 and LINT1 in the local APIC's registers (SDM vol 3 §11.5.1).
const LINT0: usize = 0x350;
const LINT1: usize = 0x360;
/// Delivery modes: the 8259's interrupts, and NMI.
const EXT_INT: i32 = 0x700;
const NMI: i32 = 0x400;

/// One vCPU at power-on.
pub struct VcpuAtPowerOn {
    regs: kvm_regs,
    sregs: kvm_sregs,
    fpu: kvm_fpu,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    memory_types: MemoryTypes,
}

impl VcpuAtPowerOn {
    pub(super) fn take(fd: &VcpuFd, memory_types: MemoryTypes) -> Result<Self, KvmError> {
        let mut lapic = fd.get_lapic().map_err(KvmError::of("KVM_GET_LAPIC"))?;
        set_lapic_register(&mut lapic, LINT0, EXT_INT);
        set_lapic_register(&mut lapic, LINT1, NMI);
        let mut fpu = fd.get_fpu().map_err(KvmError::of("KVM_GET_FPU"))?;
        // What FNINIT and power-on leave (SDM vol 1 §8.1.5, §11.6.4).
        (fpu.fcw, fpu.mxcsr) = (0x37f, 0x1f80);
        Ok(Self {
            regs: fd.get_regs().map_err(KvmError::of("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(KvmError::of("KVM_GET_SREGS"))?,
            fpu,
            xcrs: fd.get_xcrs().map_err(KvmError::of("KVM_GET_XCRS"))?,
            debug: fd.get_debug_regs().map_err(KvmError::of("KVM_GET_DEBUGREGS"))?,
            lapic,
            events: fd.get_vcpu_events().map_err(KvmError::of("KVM_GET_VCPU_EVENTS"))?,
            memory_types,
        })
    }

    pub(super) fn put(&self, fd: &VcpuFd) -> Result<(), KvmError> {
        fd.set_regs(&self.regs).map_err(KvmError::of("KVM_SET_REGS"))?;
        fd.set_sregs(&self.sregs).map_err(KvmError::of("KVM_SET_SREGS"))?;
        fd.set_fpu(&self.fpu).map_err(KvmError::of("KVM_SET_FPU"))?;
        fd.set_xcrs(&self.xcrs).map_err(KvmError::of("KVM_SET_XCRS"))?;
        fd.set_debug_regs(&self.debug).map_err(KvmError::of("KVM_SET_DEBUGREGS"))?;
        fd.set_lapic(&self.lapic).map_err(KvmError::of("KVM_SET_LAPIC"))?;
        let types = [(MTRR_DEF_TYPE, self.memory_types.default_type())];
        for (index, data) in MSRS.into_iter().chain(types).chain(MTRR_VARIABLE.map(|index| (index, 0))) {
            set_msr(fd, index, data)?;
        }
        // A system management interrupt that is on its way is pending only once somebody looks; putting the events back
        // then takes it away, and the processor out of that mode.
        fd.get_vcpu_events().map_err(KvmError::of("KVM_GET_VCPU_EVENTS"))?;
        fd.set_vcpu_events(&self.events).map_err(KvmError::of("KVM_SET_VCPU_EVENTS"))
    }
}

/// Sets one register; one that this processor does not have is left out, as the guest cannot have changed it.
fn set_msr(fd: &VcpuFd, index: u32, data: u64) -> Result<(), KvmError> {
    let entry = kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
    let msrs = Msrs::from_entries(&[entry]).map_err(|_| KvmError::Call {
        call: "KVM_SET_MSRS",
        source: std::io::ErrorKind::OutOfMemory.into(),
    })?;
    fd.set_msrs(&msrs).map(|_| ()).map_err(KvmError::of("KVM_SET_MSRS"))
}

fn set_lapic_register(lapic: &mut kvm_lapic_state, offset: usize, value: i32) {
    for (register, byte) in lapic.regs.iter_mut().skip(offset).zip(value.to_le_bytes()) {
        *register = byte.cast_signed();
    }
}

/// The interrupt controllers and the timer at power-on.
pub struct ChipsAtPowerOn {
    irqchips: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
}

impl ChipsAtPowerOn {
    pub(super) fn take(fd: &VmFd) -> Result<Self, KvmError> {
        let mut irqchips = Vec::new();
        for chip_id in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC] {
            let mut chip = kvm_irqchip { chip_id, ..kvm_irqchip::default() };
            fd.get_irqchip(&mut chip).map_err(KvmError::of("KVM_GET_IRQCHIP"))?;
            irqchips.push(chip);
        }
        Ok(Self { irqchips, pit: fd.get_pit2().map_err(KvmError::of("KVM_GET_PIT2"))? })
    }

    pub(super) fn put(&self, fd: &VmFd) -> Result<(), KvmError> {
        for chip in &self.irqchips {
            fd.set_irqchip(chip).map_err(KvmError::of("KVM_SET_IRQCHIP"))?;
        }
        fd.set_pit2(&self.pit).map_err(KvmError::of("KVM_SET_PIT2"))
    }
}
