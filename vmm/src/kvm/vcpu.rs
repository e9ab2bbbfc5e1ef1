//! One vCPU: its registers before the first instruction, and what it does until it needs the VMM.

use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO, KVM_EXIT_IO_IN,
    KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, KVM_EXIT_SYSTEM_EVENT, KVM_INTERNAL_ERROR_EMULATION,
    KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, KVM_RUN_X86_SMM, KVM_SYSTEM_EVENT_CRASH,
    KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, kvm_mp_state, kvm_regs, kvm_segment,
};
use kvm_ioctls::VcpuFd;
use orlop_firmware::kernel::{EntryPoint, Segment, TableRegister};

use super::exits::{ExitCounters, ExitReason};
use super::{Kicker, KvmError, MemoryTypes, VcpuAtPowerOn};

/// What a vCPU needs the VMM for.
pub enum Exit<'a> {
    /// Reads from `port`, as many times as `data` has pieces of `width` bytes.
    PortRead {
        /// The port.
        port: u16,
        /// 1, 2 or 4 bytes at a time.
        width: usize,
        /// To be filled.
        data: &'a mut [u8],
    },
    /// Writes to `port`, as many times as `data` has pieces of `width` bytes.
    PortWrite {
        /// The port.
        port: u16,
        /// 1, 2 or 4 bytes at a time.
        width: usize,
        /// What is written.
        data: &'a [u8],
    },
    /// Reads from memory that is not RAM.
    MemoryRead {
        /// The guest-physical address.
        address: u64,
        /// To be filled; 1 to 8 bytes.
        data: &'a mut [u8],
        /// The processor is in system management mode.
        in_smm: bool,
    },
    /// Writes to memory that is not RAM.
    MemoryWrite {
        /// The guest-physical address.
        address: u64,
        /// What is written; 1 to 8 bytes.
        data: &'a [u8],
        /// The processor is in system management mode.
        in_smm: bool,
    },
    /// Somebody kicked it.
    Interrupted,
    /// Nothing to do but to go on.
    Continue,
    /// It met a triple fault.
    TripleFault,
    /// The guest asked for a reset by a hypercall.
    Reset,
    /// The guest asked for power-off by a hypercall.
    PowerOff,
    /// KVM cannot run it on: why.
    Fault(String),
}

/// One vCPU. Belongs to the thread that runs it.
pub struct Vcpu {
    fd: VcpuFd,
    apic_id: u32,
    kicker: Arc<Kicker>,
    exits: Arc<ExitCounters>,
}

impl Vcpu {
    pub(super) fn new(fd: VcpuFd, apic_id: u32) -> Result<Self, KvmError> {
        let kicker = Arc::new(Kicker::new(&fd)?);
        Ok(Self { fd, apic_id, kicker, exits: Arc::default() })
    }

    /// The identifier of its local APIC.
    pub fn apic_id(&self) -> u32 {
        self.apic_id
    }

    /// What gets it out of [`Self::run`].
    pub fn kicker(&self) -> Arc<Kicker> {
        Arc::clone(&self.kicker)
    }

    /// What it counts.
    pub fn exits(&self) -> Arc<ExitCounters> {
        Arc::clone(&self.exits)
    }

    /// Says what the processor can do (KVM api §4.36). Once, before anything else.
    pub fn set_cpuid(&self, cpuid: &CpuId) -> Result<(), KvmError> {
        self.fd.set_cpuid2(cpuid).map_err(KvmError::of("KVM_SET_CPUID2"))
    }

    /// Everything that a reset must bring back. Taken once, before the first instruction.
    pub fn at_power_on(&self, memory_types: MemoryTypes) -> Result<VcpuAtPowerOn, KvmError> {
        VcpuAtPowerOn::take(&self.fd, memory_types)
    }

    /// Puts the vCPU back to power-on. The first one is then to be given its registers by [`Self::enter`]; the others
    /// wait for INIT.
    pub fn reset(&self, state: &VcpuAtPowerOn) -> Result<(), KvmError> {
        state.put(&self.fd)
    }

    /// Puts the registers as the kernel's first instruction wants them.
    pub fn enter(&self, entry: &EntryPoint) -> Result<(), KvmError> {
        let mut sregs = self.fd.get_sregs().map_err(KvmError::of("KVM_GET_SREGS"))?;
        sregs.cs = segment(&entry.code);
        let data = segment(&entry.data);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.tr = segment(&entry.task);
        (sregs.gdt.base, sregs.gdt.limit) = table(&entry.gdt);
        (sregs.idt.base, sregs.idt.limit) = table(&entry.idt);
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (entry.cr0, entry.cr3, entry.cr4, entry.efer);
        self.fd.set_sregs(&sregs).map_err(KvmError::of("KVM_SET_SREGS"))?;
        let regs = kvm_regs {
            rip: entry.rip,
            rsp: entry.rsp,
            rsi: entry.rsi,
            rbx: entry.rbx,
            rflags: entry.rflags,
            ..kvm_regs::default()
        };
        self.fd.set_regs(&regs).map_err(KvmError::of("KVM_SET_REGS"))
    }

    /// Whether it runs or waits for INIT (KVM api §4.38).
    pub fn set_waiting(&self, waiting: bool) -> Result<(), KvmError> {
        let mp_state = if waiting { KVM_MP_STATE_UNINITIALIZED } else { KVM_MP_STATE_RUNNABLE };
        self.fd.set_mp_state(kvm_mp_state { mp_state }).map_err(KvmError::of("KVM_SET_MP_STATE"))
    }

    /// Tells the guest's clock that the machine stood still, so that its watchdogs stay calm (KVM api §4.49). A guest
    /// without kvmclock has nothing to be told.
    pub fn tell_paused(&self) {
        // EINVAL means that the guest has no kvmclock.
        let _ = self.fd.kvmclock_ctrl();
    }

    /// Makes the next [`Self::run`] finish what the last exit began and return [`Exit::Interrupted`].
    pub fn interrupt_next_run(&self) {
        self.kicker.set_immediate_exit(true);
    }

    /// Lets it run again after [`Exit::Interrupted`].
    pub fn clear_interrupt(&self) {
        self.kicker.set_immediate_exit(false);
    }

    /// Where it stands, as far as KVM says.
    fn rip(&self) -> String {
        self.fd.get_regs().map_or_else(|_| "unknown".to_owned(), |regs| format!("{:#x}", regs.rip))
    }

    /// Runs until it needs the VMM.
    #[expect(unsafe_code, reason = "kvm_run is a union that the exit reason selects")]
    pub fn run(&mut self) -> Exit<'_> {
        match self.fd.run() {
            Ok(_) => {}
            Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => {
                self.exits.count(ExitReason::Interrupted);
                return Exit::Interrupted;
            }
            Err(e) => {
                self.exits.count(ExitReason::Other);
                let rip = self.rip();
                return Exit::Fault(format!("KVM_RUN failed at rip {rip}: {e}"));
            }
        }
        let reason = self.fd.get_kvm_run().exit_reason;
        match reason {
            KVM_EXIT_IO => self.port_exit(),
            KVM_EXIT_MMIO => {
                let run = self.fd.get_kvm_run();
                let in_smm = u32::from(run.flags) & KVM_RUN_X86_SMM != 0;
                // SAFETY: for KVM_EXIT_MMIO the kernel has filled in `mmio` (KVM api §5).
                let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
                let len = (mmio.len as usize).min(mmio.data.len());
                let (address, data) = (mmio.phys_addr, &mut mmio.data[..len]);
                if mmio.is_write != 0 {
                    self.exits.count(ExitReason::MmioWrite);
                    Exit::MemoryWrite { address, data, in_smm }
                } else {
                    self.exits.count(ExitReason::MmioRead);
                    Exit::MemoryRead { address, data, in_smm }
                }
            }
            KVM_EXIT_HLT => {
                self.exits.count(ExitReason::Hlt);
                Exit::Continue
            }
            KVM_EXIT_SHUTDOWN => {
                self.exits.count(ExitReason::Shutdown);
                Exit::TripleFault
            }
            KVM_EXIT_SYSTEM_EVENT => {
                self.exits.count(ExitReason::SystemEvent);
                // SAFETY: for KVM_EXIT_SYSTEM_EVENT the kernel has filled in `system_event`.
                match unsafe { self.fd.get_kvm_run().__bindgen_anon_1.system_event.type_ } {
                    KVM_SYSTEM_EVENT_RESET => Exit::Reset,
                    KVM_SYSTEM_EVENT_SHUTDOWN => Exit::PowerOff,
                    KVM_SYSTEM_EVENT_CRASH => Exit::Fault("the guest says that it crashed".to_owned()),
                    _ => Exit::Continue,
                }
            }
            KVM_EXIT_FAIL_ENTRY => {
                self.exits.count(ExitReason::FailEntry);
                // SAFETY: for KVM_EXIT_FAIL_ENTRY the kernel has filled in `fail_entry`.
                let why = unsafe {
                    self.fd.get_kvm_run().__bindgen_anon_1.fail_entry.hardware_entry_failure_reason
                };
                let rip = self.rip();
                Exit::Fault(format!(
                    "the processor refused to enter the guest (reason {why:#x}) at rip {rip}"
                ))
            }
            KVM_EXIT_INTERNAL_ERROR => {
                self.exits.count(ExitReason::InternalError);
                Exit::Fault(self.internal_error())
            }
            other => {
                self.exits.count(ExitReason::Other);
                let rip = self.rip();
                Exit::Fault(format!("KVM_RUN returned with exit reason {other}, unknown here, at rip {rip}"))
            }
        }
    }

    #[expect(
        unsafe_code,
        reason = "the data of a port access lies behind kvm_run at an offset that KVM gives"
    )]
    fn port_exit(&mut self) -> Exit<'_> {
        let exits = Arc::clone(&self.exits);
        let run: *mut kvm_bindings::kvm_run = self.fd.get_kvm_run();
        // SAFETY: `run` is the live mapping of this vCPU, and for KVM_EXIT_IO the kernel has filled in `io`.
        let io = unsafe { (*run).__bindgen_anon_1.io };
        let len = io.count as usize * usize::from(io.size);
        // SAFETY: the kernel put the `count * size` bytes of the access at `data_offset` within the mapping of kvm_run,
        // whose length kvm-ioctls took from KVM_GET_VCPU_MMAP_SIZE; nobody else touches them until the next run, which
        // needs `&mut self`.
        let data =
            unsafe { std::slice::from_raw_parts_mut(run.cast::<u8>().add(io.data_offset as usize), len) };
        let (port, width) = (io.port, usize::from(io.size).max(1));
        if u32::from(io.direction) == KVM_EXIT_IO_IN {
            exits.count(ExitReason::IoIn);
            Exit::PortRead { port, width, data }
        } else {
            exits.count(ExitReason::IoOut);
            Exit::PortWrite { port, width, data }
        }
    }

    /// What KVM says about an internal error (KVM api §5), with the instruction's bytes where it gives them.
    #[expect(unsafe_code, reason = "kvm_run is a union that the exit reason selects")]
    fn internal_error(&mut self) -> String {
        let rip = self.rip();
        let run = self.fd.get_kvm_run();
        // SAFETY: for KVM_EXIT_INTERNAL_ERROR the kernel has filled in `internal`.
        let internal = unsafe { run.__bindgen_anon_1.internal };
        if internal.suberror != KVM_INTERNAL_ERROR_EMULATION {
            return format!("KVM internal error {} at rip {rip}", internal.suberror);
        }
        // SAFETY: for this suberror the same memory is laid out as `emulation_failure`.
        let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
        // SAFETY: every bit pattern is a valid value of this plain struct of bytes.
        let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
        if failure.ndata < 3 || failure.flags & 1 == 0 {
            return format!("KVM cannot emulate the instruction at rip {rip}");
        }
        let count = usize::from(bytes.insn_size).min(bytes.insn_bytes.len());
        let shown: Vec<String> = bytes.insn_bytes[..count].iter().map(|b| format!("{b:02x}")).collect();
        format!("KVM cannot emulate the instruction at rip {rip}: {}", shown.join(" "))
    }
}

fn segment(s: &Segment) -> kvm_segment {
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: s.kind,
        present: 1,
        dpl: 0,
        db: u8::from(s.big),
        s: u8::from(s.code_or_data),
        l: u8::from(s.long),
        g: u8::from(s.granular),
        ..kvm_segment::default()
    }
}

fn table(t: &TableRegister) -> (u64, u16) {
    (t.base, t.limit)
}
