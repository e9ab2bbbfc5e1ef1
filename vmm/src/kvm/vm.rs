//! A virtual machine of KVM: memory slots, interrupt controllers, doorbells.

use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvm_bindings::{
    KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY, kvm_msi, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use orlop_firmware::layout::{KVM_IDENTITY_MAP_START, KVM_TSS_START, LAPIC_START};
use orlop_pci::MsiSink;
use orlop_virtio::Ram;
use vm_memory::MmapRegion;
use vmm_sys_util::eventfd::EventFd;

use super::{ChipsAtPowerOn, HostKvm, KvmError, MemorySlots, Space, Vcpu};

/// Where a message to a local APIC goes: 1 MiB from here (SDM vol 3 §11.11.1).
const MSI_WINDOW_BYTES: u64 = 1 << 20;

/// One virtual machine. Clones of the reference share it; the kernel keeps it while any of them lives.
pub struct Vm {
    fd: Arc<VmFd>,
}

/// Slots of read-only memory, above those of RAM, of which there are few.
const ROM_SLOTS_START: u32 = 16;

/// Read-only memory of the guest. The slot goes before the memory does.
pub struct RomSlot {
    fd: Arc<VmFd>,
    slot: u32,
    memory: Arc<MmapRegion<()>>,
    address: u64,
}

impl RomSlot {
    /// The guest sees it from now on.
    pub fn show(&self) -> Result<(), KvmError> {
        self.set(self.memory.size() as u64)
    }

    /// The guest's reads become exits, as its writes are.
    pub fn hide(&self) -> Result<(), KvmError> {
        self.set(0)
    }

    fn set(&self, memory_size: u64) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region {
            slot: self.slot,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: self.address,
            memory_size,
            userspace_addr: self.memory.as_ptr() as u64,
        };
        set_slot(&self.fd, region)
    }
}

impl Drop for RomSlot {
    fn drop(&mut self) {
        // A slot that never was cannot be taken away; nothing else can fail.
        let _ = self.hide();
    }
}

impl Vm {
    /// A machine with local APICs, IOAPIC, two 8259 and an 8254 in the kernel, and neither memory nor vCPUs.
    pub fn new(kvm: &HostKvm) -> Result<Self, KvmError> {
        let fd = retry_interrupted(|| kvm.fd.create_vm()).map_err(KvmError::of("KVM_CREATE_VM"))?;
        let tss =
            usize::try_from(KVM_TSS_START).map_err(|_| KvmError::MissingCapability("64-bit addresses"))?;
        fd.set_identity_map_address(KVM_IDENTITY_MAP_START)
            .map_err(KvmError::of("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(tss).map_err(KvmError::of("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(KvmError::of("KVM_CREATE_IRQCHIP"))?;
        // The speaker port 0x61 is what some kernels measure time with; the dummy answers it in the kernel.
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..kvm_pit_config::default() };
        fd.create_pit2(pit).map_err(KvmError::of("KVM_CREATE_PIT2"))?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Makes `ram` the machine's memory; of it `smram`, which is a region of its own, can be hidden from whoever is not in
    /// system management mode.
    pub fn set_memory(&self, ram: &Arc<Ram>, smram: Option<&Range<u64>>) -> Result<MemorySlots, KvmError> {
        MemorySlots::place(Arc::clone(&self.fd), ram, smram)
    }

    /// Memory that the guest reads and runs but does not write, at `address`: its writes become exits (KVM api §4.35).
    /// It is not shown yet. `number` tells it from other such memory in the same `space`.
    pub fn add_rom(&self, space: Space, number: u32, memory: Arc<MmapRegion<()>>, address: u64) -> RomSlot {
        RomSlot { fd: Arc::clone(&self.fd), slot: space.slot(ROM_SLOTS_START + number), memory, address }
    }

    /// A new vCPU with the local APIC identifier `apic_id`.
    pub fn create_vcpu(&self, apic_id: u32) -> Result<Vcpu, KvmError> {
        let fd = self.fd.create_vcpu(u64::from(apic_id)).map_err(KvmError::of("KVM_CREATE_VCPU"))?;
        Vcpu::new(fd, apic_id)
    }

    /// Delivers messages to this machine's local APICs.
    pub fn msi_sender(&self) -> Arc<MsiSender> {
        Arc::new(MsiSender { fd: Arc::clone(&self.fd), sent: AtomicU64::new(0), dropped: AtomicU64::new(0) })
    }

    /// What interrupts every processor for system management.
    pub fn smi_line(&self) -> SmiLine {
        SmiLine { fd: Arc::clone(&self.fd) }
    }

    /// The input `gsi` of the interrupt controllers.
    pub fn irq_line(&self, gsi: u32) -> IrqLine {
        IrqLine { fd: Arc::clone(&self.fd), gsi }
    }

    /// From now on a guest's write of any value and size to `address` signals `event` and nothing else (KVM api
    /// §4.59).
    pub fn add_doorbell(&self, address: u64, event: &dyn AsRawFd) -> Result<(), KvmError> {
        let address = IoEventAddress::Mmio(address);
        self.fd.register_ioevent(&borrow(event), &address, NoDatamatch).map_err(KvmError::of("KVM_IOEVENTFD"))
    }

    /// Takes a doorbell of [`Self::add_doorbell`] away.
    pub fn remove_doorbell(&self, address: u64, event: &dyn AsRawFd) -> Result<(), KvmError> {
        let address = IoEventAddress::Mmio(address);
        self.fd
            .unregister_ioevent(&borrow(event), &address, NoDatamatch)
            .map_err(KvmError::of("KVM_IOEVENTFD"))
    }

    /// Interrupt controllers and timer, for a later [`Self::reset_chips`].
    pub fn chips_at_power_on(&self) -> Result<ChipsAtPowerOn, KvmError> {
        ChipsAtPowerOn::take(&self.fd)
    }

    /// Puts interrupt controllers and timer back. No vCPU runs.
    pub fn reset_chips(&self, state: &ChipsAtPowerOn) -> Result<(), KvmError> {
        state.put(&self.fd)
    }
}

pub(super) fn set_slot(fd: &VmFd, region: kvm_userspace_memory_region) -> Result<(), KvmError> {
    #[expect(unsafe_code, reason = "the kernel writes guest memory on the guest's behalf")]
    // SAFETY: the region is either a whole mapping of guest memory, which `MemorySlots` or `RomSlot` keeps alive until it
    // has taken the slot away, or of length zero. Everything else in this process reaches that memory through vm-memory, which
    // treats it as shared with the guest.
    unsafe { fd.set_user_memory_region(region) }.map_err(KvmError::of("KVM_SET_USER_MEMORY_REGION"))
}

/// The descriptor of `event` as kvm-ioctls wants it; it is not closed here.
fn borrow(event: &dyn AsRawFd) -> ManuallyDrop<EventFd> {
    #[expect(unsafe_code, reason = "kvm-ioctls takes event files only by its own type")]
    // SAFETY: the caller keeps the descriptor open for the call, and `ManuallyDrop` never closes it.
    ManuallyDrop::new(unsafe { EventFd::from_raw_fd(event.as_raw_fd()) })
}

fn retry_interrupted<T>(
    mut call: impl FnMut() -> Result<T, kvm_ioctls::Error>,
) -> Result<T, kvm_ioctls::Error> {
    loop {
        match call() {
            Err(e) if e.errno() == libc::EINTR => {}
            other => return other,
        }
    }
}

/// Delivers message-signalled interrupts (KVM api §4.70).
pub struct MsiSender {
    fd: Arc<VmFd>,
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl MsiSender {
    /// Messages delivered, and messages dropped because the guest addressed them to nobody.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

impl MsiSink for MsiSender {
    fn signal(&self, address: u64, data: u32) {
        let inside = (LAPIC_START..LAPIC_START + MSI_WINDOW_BYTES).contains(&address);
        let msi = kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..kvm_msi::default()
        };
        let delivered = inside && self.fd.signal_msi(msi).is_ok_and(|vcpus| vcpus > 0);
        let counter = if delivered { &self.sent } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A message to all local APICs (SDM vol 3 §11.11): physical destination 0xFF, and delivery mode SMI.
const SMI_ADDRESS: u32 = LAPIC_START as u32 | 0xff << 12;
const SMI_DATA: u32 = 0b010 << 8;

/// The pin by which a chipset interrupts processors for system management. A processor whose local APIC is switched off
/// does not hear it.
pub struct SmiLine {
    fd: Arc<VmFd>,
}

impl SmiLine {
    /// One interrupt to every processor. It is pending when this returns: whoever raised it goes on in system management
    /// mode.
    pub fn raise(&self) {
        let msi = kvm_msi { address_lo: SMI_ADDRESS, data: SMI_DATA, ..kvm_msi::default() };
        // Where no processor hears it there is nothing to be done.
        let _ = self.fd.signal_msi(msi);
    }
}

/// One input of the interrupt controllers (KVM api §4.25).
#[derive(Clone)]
pub struct IrqLine {
    fd: Arc<VmFd>,
    gsi: u32,
}

impl IrqLine {
    /// Raises or lowers the input.
    pub fn set(&self, active: bool) {
        // The controllers are in the kernel and the input exists, so this cannot fail.
        let _ = self.fd.set_irq_line(self.gsi, active);
    }

    /// Raises and lowers the input: one edge.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}
