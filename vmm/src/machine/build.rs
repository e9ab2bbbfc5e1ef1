//! Carries a plan out: opens, maps, creates, in the order that a plan cannot fail late. Decides nothing.
//!
//! ```text
//!   1 devices opened    files, taps, sockets: whatever the host may refuse
//!   2 memory, boot      guest RAM, and in it what the guest starts
//!   3 KVM               virtual machine, board, vCPUs
//!   4 confinement       of this thread, and so of every thread that it starts
//!   5 threads           of devices and vCPUs; the first vCPU where it starts
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use orlop_api::device::DeviceKind;
use orlop_api::event::EventKind;
use orlop_pci::{Bdf, Function, PciRoot, RootError};
use orlop_virtio::Ram;

use super::boot::{BootError, BootSource};
use super::console::Console;
use super::events::EventLog;
use super::files::Files;
use super::machine::{DeviceSeat, Keep, Machine};
use super::memory::{self, MemoryError};
use super::plan::{Plan, Slot};
use super::platform::{Platform, PlatformError, Surroundings};
use super::registry::{Around, Built, DeviceError, TellFault};
use super::vcpu::{Alarm, Buses, VcpuHandle};
use super::windows::PciWindows;
use crate::exit;
use crate::jail::{Jail, JailError, ThreadKind};
use crate::kvm::{HostCpu, HostKvm, KvmError, Vm, guest_cpuid, install_kick_handler};

/// Why a plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// There is not enough memory.
    #[error("memory: {0}")]
    Memory(#[from] MemoryError),
    /// A device cannot be had.
    #[error("{field}: {source}")]
    Device {
        /// The part of the configuration that asks for it.
        field: String,
        /// What its room says.
        source: DeviceError,
    },
    /// The frame could not take a device.
    #[error("{field}: {source}")]
    Frame {
        /// The part of the configuration that asks for it.
        field: String,
        /// What the frame says.
        source: DeviceError,
    },
    /// Kernel or firmware cannot be started.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The board cannot be had.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The process cannot be confined.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// Two functions of the plan are in one place.
    #[error("the plan puts two functions in one place: {0}")]
    Root(#[from] RootError),
}

impl BuildError {
    /// The field of the configuration that is to blame, and what is wrong, apart.
    pub fn parts(&self) -> (Option<String>, String) {
        match self {
            Self::Device { field, source } => (Some(field.clone()), source.to_string()),
            Self::Frame { field, source } => (Some(field.clone()), source.to_string()),
            Self::Memory(source) => (Some("memory".to_owned()), source.to_string()),
            Self::Boot(source) => (Some(source.field().to_owned()), super::chain(source)),
            other => (None, super::chain(other)),
        }
    }

    /// The exit code of a process that cannot go on without the machine.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Kvm(_) => exit::NO_KVM,
            Self::Memory(_) | Self::Device { .. } => exit::HOST,
            Self::Boot(error) if error.is_of_the_host() => exit::HOST,
            Self::Boot(_) => exit::BAD_CONFIG,
            Self::Platform(PlatformError::Kvm(_)) => exit::NO_KVM,
            Self::Frame { .. } | Self::Jail(_) | Self::Platform(_) | Self::Root(_) => exit::FAILED,
        }
    }
}

/// What carrying out a plan needs beside the plan.
pub struct Means<'a> {
    /// KVM.
    pub kvm: &'a HostKvm,
    /// What the processors can do.
    pub cpu: &'a HostCpu,
    /// Descriptors that the process was started with.
    pub files: &'a mut Files,
    /// Where serial output goes.
    pub console: &'a Console,
    /// Where firmware's messages go.
    pub firmware_log: &'a Console,
    /// Where it is told when a driver breaks a device.
    pub events: &'a EventLog,
    /// Who is told of the guest's acts.
    pub alarm: Arc<Alarm>,
    /// Confinement.
    pub jail: &'a Arc<Jail>,
}

/// Builds the machine; its vCPUs stand where they start.
pub fn build(plan: Plan, means: Means<'_>) -> Result<Machine, BuildError> {
    let Means { kvm, cpu, files, console, firmware_log, events, alarm, jail } = means;
    let mut boot = BootSource::open(&plan.boot, files)?;
    let mut opened = Vec::new();
    let mut slots = Vec::new();
    let (plan, planned) = plan.split();
    for slot in planned {
        let (place, spec) = Place::of(slot);
        let built = spec.build(files).map_err(|source| {
            let field = source.field().unwrap_or(&place.field).to_owned();
            BuildError::Device { field, source }
        })?;
        opened.push(built);
        slots.push(place);
    }

    install_kick_handler()?;
    let smram = plan.smram.as_ref();
    let ram = Arc::new(memory::allocate(&plan.layout, smram, plan.backing)?);
    let reachable = memory::reachable(&ram, smram)?;
    let start = boot.load(&ram, &plan)?;
    let vm = Arc::new(Vm::new(kvm)?);
    let memory_slots = Arc::new(vm.set_memory(&ram, smram)?);
    let buses = Arc::new(Buses::default());
    let windows = Arc::new(PciWindows::new(&buses.memory, Arc::clone(&vm), plan.layout.clone()));
    let root = PciRoot::new(windows.clone());
    let surroundings = Surroundings {
        vm: &vm,
        buses: &buses,
        ram: &reachable,
        slots: &memory_slots,
        alarm: &alarm,
        console,
        firmware_log,
    };
    let platform = Platform::new(&plan, &boot, root, &surroundings)?;
    let vcpus = (0..plan.topology.vcpus()).map(|index| {
        let vcpu = vm.create_vcpu(plan.topology.apic_id(index))?;
        vcpu.set_cpuid(&cpuid(&guest_cpuid(cpu, &plan.topology, index))?)?;
        Ok::<_, KvmError>(vcpu)
    });
    let vcpus: Vec<_> = vcpus.collect::<Result<_, _>>()?;
    let chips = vm.chips_at_power_on()?;

    jail.close_files(&plan.config)?;
    let msi = vm.msi_sender();
    let mut devices = Vec::new();
    for (place, built) in slots.into_iter().zip(opened) {
        let device = seat(place, built, &platform, &reachable, &msi, jail)?;
        device.function.on_fault(tell_faults(events, &device.id));
        devices.push(device);
    }
    let vcpus = vcpus.into_iter().zip(0..).map(|(vcpu, index)| {
        let jail = Arc::clone(jail);
        let confine = move || jail.confine_or_end(ThreadKind::Vcpu);
        VcpuHandle::spawn(index, vcpu, Arc::clone(&buses), Arc::clone(&alarm), boot.memory_types(), confine)
    });
    let vcpus = vcpus.collect::<Result<_, _>>()?;

    let keep = Keep { buses, memory_slots };
    let machine = Machine { vcpus, platform, devices, windows, msi, alarm, boot, plan, chips, keep, ram, vm };
    machine.at_start(start)?;
    Ok(machine)
}

/// Where a device goes.
struct Place {
    bdf: Bdf,
    bar_address: u64,
    id: String,
    field: String,
    kind: DeviceKind,
}

impl Place {
    fn of(slot: Slot) -> (Self, Box<dyn super::registry::Spec>) {
        let Slot { bdf, bar_address, device } = slot;
        let super::registry::Wanted { id, field, kind, spec } = device;
        (Self { bdf, bar_address, id, field, kind }, spec)
    }
}

fn seat(
    place: Place,
    built: Built,
    platform: &Platform,
    ram: &Arc<Ram>,
    msi: &Arc<crate::kvm::MsiSender>,
    jail: &Arc<Jail>,
) -> Result<DeviceSeat, BuildError> {
    let Place { bdf, bar_address, id, field, kind } = place;
    let hook_jail = Arc::clone(jail);
    let around = Around {
        ram: Arc::clone(ram),
        msi: msi.clone(),
        hook: Arc::new(move |kind: &str| hook_jail.confine_or_end(ThreadKind::device(kind))),
        bar_address,
    };
    let Built { card, controls, members } = built;
    let function = card.plug_in(around).map_err(|source| BuildError::Frame { field, source })?;
    platform.root.insert(bdf, function.clone() as Arc<dyn Function>)?;
    Ok(DeviceSeat { id, kind, bdf, function, controls, members })
}

/// How often a device's faults become events, at most: a driver can break a device again and again.
const FAULTS_APART: Duration = Duration::from_secs(1);

/// Makes events of the faults of the device `id`; its counters have all.
fn tell_faults(events: &EventLog, id: &str) -> TellFault {
    let (events, device) = (events.clone(), id.to_owned());
    let last: Mutex<Option<Instant>> = Mutex::new(None);
    Box::new(move |detail| {
        let now = Instant::now();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= FAULTS_APART) {
            *last = Some(now);
            events.post(EventKind::DeviceFault { device: device.clone(), detail: detail.to_owned() });
        }
    })
}

fn cpuid(leaves: &[kvm_bindings::kvm_cpuid_entry2]) -> Result<kvm_bindings::CpuId, KvmError> {
    let too_many =
        |_| KvmError::Call { call: "KVM_SET_CPUID2", source: std::io::ErrorKind::ArgumentListTooLong.into() };
    kvm_bindings::CpuId::from_entries(leaves).map_err(too_many)
}
