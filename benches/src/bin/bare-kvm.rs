//! The floor: the smallest program that boots a kernel on KVM, with memory, one vCPU and a serial port and nothing else.
//!
//! `bare-kvm KERNEL INITRAMFS CMDLINE MEMORY_MIB [UNTIL]`: boots a 64-bit ELF kernel by the Linux boot protocol
//! (Documentation/arch/x86/boot.rst, "64-bit boot protocol"). The serial port's output goes to standard output. When the
//! guest has said UNTIL, or resets, it ends and says there how many exits there were.

use std::fs::File;
use std::io::{self, Write};

use anyhow::{Context, bail};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_regs, kvm_segment,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::elf::Elf;
use linux_loader::loader::{Cmdline, KernelLoader, load_cmdline};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, ReadVolatile};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const GDT: u64 = 0x500;
const BOOT_PARAMS: u64 = 0x7000;
const STACK: u64 = 0x8ff0;
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
const PD: u64 = 0xb000;
const CMDLINE: u64 = 0x2_0000;
/// End of conventional memory.
const LOW_END: u64 = 0x9_fc00;
const HIMEM: u64 = 0x10_0000;
const COM1: u16 = 0x3f8;
const COM1_GSI: u32 = 4;
const RTC_DATA: u16 = 0x71;
const I8042_COMMAND: u16 = 0x64;
const I8042_RESET: u8 = 0xfe;

/// The serial port's interrupt: an eventfd that KVM watches.
struct Irq(EventFd);

impl Trigger for Irq {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Standard output, watched for a text.
struct Watched {
    line: Vec<u8>,
    until: Option<String>,
    seen: bool,
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            let line = String::from_utf8_lossy(&self.line);
            self.seen |= self.until.as_ref().is_some_and(|until| line.contains(until));
            self.line.clear();
        }
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

type Port = Serial<Irq, vm_superio::serial::NoEvents, Watched>;
type Ram = GuestMemoryMmap<()>;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initramfs, cmdline, memory_mib, until @ ..] = arguments.as_slice() else {
        bail!("usage: bare-kvm KERNEL INITRAMFS CMDLINE MEMORY_MIB [UNTIL]");
    };
    let output = Watched { line: Vec::new(), until: until.first().cloned(), seen: false };
    let bytes = memory_mib.parse::<usize>().context("MEMORY_MIB is not a number")? << 20;
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let ram: Ram =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).context("cannot map guest memory")?;
    let (vm, mut port) = create_vm(&kvm, &ram, output)?;
    let entry = load(&ram, kernel, initramfs, cmdline)?;
    let mut vcpu = create_vcpu(&kvm, &vm, &ram, entry)?;
    let exits = run(&mut vcpu, &mut port)?;
    println!("bare-kvm: {exits} exits");
    Ok(())
}

/// The machine: memory, the interrupt controllers and timer in the kernel, a serial port.
#[expect(unsafe_code, reason = "KVM is told where guest memory is")]
fn create_vm(kvm: &Kvm, ram: &Ram, output: Watched) -> anyhow::Result<(VmFd, Port)> {
    let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
    vm.set_tss_address(0xfffb_d000).context("KVM_SET_TSS_ADDR")?;
    vm.create_irq_chip().context("KVM_CREATE_IRQCHIP")?;
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).context("KVM_CREATE_PIT2")?;
    for (slot, region) in (0..).zip(ram.iter()) {
        let host = ram.get_host_address(region.start_addr()).context("guest memory has a host address")?;
        let slot = kvm_userspace_memory_region {
            slot,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
            flags: 0,
        };
        // SAFETY: the mapping is `ram`'s, which lives until the end of `main`, after the last run of the vCPU.
        unsafe { vm.set_user_memory_region(slot) }.context("KVM_SET_USER_MEMORY_REGION")?;
    }
    let irq = EventFd::new(EFD_NONBLOCK).context("eventfd")?;
    vm.register_irqfd(&irq, COM1_GSI).context("KVM_IRQFD")?;
    Ok((vm, Serial::new(Irq(irq), output)))
}

/// Kernel, initramfs, command line and boot parameters; returns where the kernel is entered.
fn load(ram: &Ram, kernel: &str, initramfs: &str, cmdline: &str) -> anyhow::Result<u64> {
    let mut image = File::open(kernel).with_context(|| format!("cannot open {kernel}"))?;
    let loaded =
        Elf::load(ram, None, &mut image, Some(GuestAddress(HIMEM))).context("the kernel is no 64-bit ELF")?;
    let end = ram.last_addr().0 + 1;
    let mut file = File::open(initramfs).with_context(|| format!("cannot open {initramfs}"))?;
    let initramfs_bytes = file.metadata()?.len();
    let initramfs_at = (end - initramfs_bytes - (4 << 20)) & !0xfff;
    let mut place = ram.get_slice(GuestAddress(initramfs_at), usize::try_from(initramfs_bytes)?)?;
    file.read_exact_volatile(&mut place).context("cannot read the initramfs")?;
    let mut text = Cmdline::new(2048)?;
    text.insert_str(cmdline)?;
    load_cmdline(ram, GuestAddress(CMDLINE), &text)?;

    let mut zero_page = boot_params::default();
    zero_page.hdr.type_of_loader = 0xff;
    zero_page.hdr.boot_flag = 0xaa55;
    zero_page.hdr.header = 0x5372_6448;
    zero_page.hdr.cmd_line_ptr = u32::try_from(CMDLINE)?;
    zero_page.hdr.cmdline_size = u32::try_from(cmdline.len())?;
    zero_page.hdr.kernel_alignment = 0x100_0000;
    zero_page.hdr.ramdisk_image = u32::try_from(initramfs_at)?;
    zero_page.hdr.ramdisk_size = u32::try_from(initramfs_bytes)?;
    let [low, high, ..] = &mut zero_page.e820_table;
    *low = boot_e820_entry { addr: 0, size: LOW_END, r#type: 1 };
    *high = boot_e820_entry { addr: HIMEM, size: end - HIMEM, r#type: 1 };
    zero_page.e820_entries = 2;
    let parameters = BootParams::new(&zero_page, GuestAddress(BOOT_PARAMS));
    LinuxBootConfigurator::write_bootparams(&parameters, ram)?;
    Ok(loaded.kernel_load.0)
}

/// The vCPU in long mode with the first gigabyte mapped to itself, about to enter the kernel.
fn create_vcpu(kvm: &Kvm, vm: &VmFd, ram: &Ram, entry: u64) -> anyhow::Result<VcpuFd> {
    let vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
    let cpuid: CpuId = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("KVM_GET_SUPPORTED_CPUID")?;
    vcpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;

    ram.write_obj(PDPT | 3, GuestAddress(PML4))?;
    ram.write_obj(PD | 3, GuestAddress(PDPT))?;
    for entry in 0..512_u64 {
        ram.write_obj(entry << 21 | 0x83, GuestAddress(PD + entry * 8))?;
    }
    for (entry, descriptor) in
        [0_u64, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff].into_iter().zip(0_u64..)
    {
        ram.write_obj(entry, GuestAddress(GDT + descriptor * 8))?;
    }
    let flat = kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Default::default() };
    let code = kvm_segment { selector: 0x10, type_: 11, l: 1, ..flat };
    let data = kvm_segment { selector: 0x18, type_: 3, db: 1, ..flat };
    let mut sregs = vcpu.get_sregs().context("KVM_GET_SREGS")?;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 31;
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr3 = PML4;
    sregs.cr4 |= 0x20;
    sregs.cr0 |= 0x8000_0001;
    sregs.efer |= 0x500;
    vcpu.set_sregs(&sregs).context("KVM_SET_SREGS")?;
    let regs = kvm_regs { rip: entry, rsi: BOOT_PARAMS, rsp: STACK, rflags: 2, ..Default::default() };
    vcpu.set_regs(&regs).context("KVM_SET_REGS")?;
    Ok(vcpu)
}

/// Runs until the guest resets or said what it was to say, and returns the number of exits. A port that nothing answers reads as ones, except the
/// clock's: Linux waits seconds for a clock that reads so.
fn run(vcpu: &mut VcpuFd, port: &mut Port) -> anyhow::Result<u64> {
    let mut exits = 0;
    loop {
        let exit = match vcpu.run() {
            Err(error) if error.errno() == libc::EINTR => continue,
            exit => exit.context("KVM_RUN")?,
        };
        exits += 1;
        match exit {
            VcpuExit::IoOut(at, data) if (COM1..COM1 + 8).contains(&at) => {
                for byte in data {
                    let written = port.write(u8::try_from(at - COM1)?, *byte);
                    written.map_err(|error| anyhow::anyhow!("the serial port failed: {error:?}"))?;
                }
                if port.writer().seen {
                    return Ok(exits);
                }
            }
            VcpuExit::IoIn(at, data) if (COM1..COM1 + 8).contains(&at) => {
                let offset = u8::try_from(at - COM1)?;
                data.iter_mut().for_each(|byte| *byte = port.read(offset));
            }
            VcpuExit::IoOut(I8042_COMMAND, [I8042_RESET]) | VcpuExit::Shutdown | VcpuExit::Hlt => {
                return Ok(exits);
            }
            VcpuExit::IoIn(at, data) => data.fill(if at == RTC_DATA { 0 } else { 0xff }),
            VcpuExit::MmioRead(_, data) => data.fill(0xff),
            VcpuExit::IoOut(..) | VcpuExit::MmioWrite(..) => {}
            other => bail!("the guest cannot go on: {other:?}"),
        }
    }
}
