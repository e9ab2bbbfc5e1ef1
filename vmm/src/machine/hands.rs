//! The thread that does the machine's work: building, stopping, resetting. It may wait; the driver never does.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use orlop_api::config::{FileSource, VmConfig};
use orlop_api::device::DeviceInfo;
use orlop_api::vcpu::VcpuInfo;
use orlop_chipset::Serial;
use orlop_disk::{Disk, GrowError, Options, Stopped};
use orlop_scsi::{MediumError, Tray, TrayState};
use tokio::sync::oneshot;

use super::build::{Means, build};
use super::console::Console;
use super::events::EventLog;
use super::files::{Access, FileError, Files};
use super::handle::{Refusal, Reply};
use super::machine::Machine;
use super::plan::{HostFacts, Seed, plan};
use super::policy::{GuestAct, Step};
use super::serial_log::SerialLog;
use super::vcpu::Alarm;
use crate::jail::{Jail, ThreadKind};
use crate::kvm::{HostCpu, HostKvm, KvmSource};

/// What the thread is told.
pub enum Job {
    /// Carries out a step.
    Step(Step, Reply<Result<Done, Refusal>>),
    /// Takes the machine apart: its sockets go, its threads end. With `drain`, what the guest wrote is written first.
    End {
        /// Whether to drain the devices.
        drain: bool,
        /// Told when it is done.
        done: Reply<()>,
    },
    /// Looks at the devices.
    Devices(Reply<Vec<DeviceInfo>>),
    /// Looks at the vCPUs.
    Vcpus(Reply<Vec<VcpuInfo>>),
}

/// What carrying out a step gave.
pub enum Done {
    /// Nothing to tell.
    Plain,
    /// A machine.
    Created(Box<Created>),
}

/// What the driver keeps of a new machine.
pub struct Created {
    /// The configuration, complete.
    pub config: VmConfig,
    /// The serial port, for typed input.
    pub serial: Option<Arc<Serial>>,
    /// The log of serial output.
    pub log: Option<SerialLog>,
    /// Whether the vCPUs run already.
    pub running: bool,
}

/// What the thread works with.
pub struct Hands {
    /// Where KVM comes from; taken by the first creation that gets so far.
    pub kvm: Option<KvmSource>,
    /// Whether a KVM without hardware virtualization will do.
    pub allow_software_kvm: bool,
    /// Descriptors.
    pub files: Files,
    /// The serial console's hub.
    pub console: Console,
    /// Where firmware's messages go.
    pub firmware_log: Console,
    /// The log of what happens.
    pub events: EventLog,
    /// Who is told of the guest's acts.
    pub alarm: Arc<Alarm>,
    /// Confinement.
    pub jail: Arc<Jail>,
}

impl Hands {
    /// Starts the thread. It ends when the sender is dropped.
    pub fn spawn(self) -> std::io::Result<Sender<Job>> {
        let (jobs, inbox) = channel();
        std::thread::Builder::new().name("machine".to_owned()).spawn(move || self.serve(&inbox))?;
        Ok(jobs)
    }

    fn serve(mut self, jobs: &Receiver<Job>) {
        let mut machine = None;
        while let Ok(job) = jobs.recv() {
            // Whoever asked may have gone; the work is done all the same.
            match job {
                Job::Step(step, reply) => {
                    let _ = reply.send(self.carry_out(&mut machine, step));
                }
                Job::End { drain, done } => {
                    if let Some(machine) = machine.take().filter(|_| drain) {
                        machine.pause();
                    }
                    let _ = done.send(());
                }
                Job::Devices(reply) => {
                    let _ = reply.send(machine.as_ref().map(Machine::inspect_devices).unwrap_or_default());
                }
                Job::Vcpus(reply) => {
                    let _ = reply.send(machine.as_ref().map(Machine::inspect_vcpus).unwrap_or_default());
                }
            }
        }
    }

    fn carry_out(&mut self, slot: &mut Option<Machine>, step: Step) -> Result<Done, Refusal> {
        let machine = match (step, slot.as_mut()) {
            (Step::Create { config, boot }, None) => {
                let (machine, created) = self.create(*config, boot)?;
                *slot = Some(machine);
                return Ok(Done::Created(Box::new(created)));
            }
            (_, None) => return Ok(Done::Plain),
            (step, Some(machine)) => (step, machine),
        };
        match machine {
            (Step::Boot, machine) => machine.run(),
            (Step::Pause, machine) => machine.pause(),
            (Step::Resume, machine) => machine.resume(),
            (Step::Reset { run, .. }, machine) => {
                machine.reset().map_err(|e| host(None, super::chain(&e)))?;
                if run {
                    machine.run();
                }
            }
            (Step::PowerButton, machine) => machine.press_power_button(),
            (Step::Balloon { target_bytes }, machine) => balloon(machine, target_bytes)?,
            (Step::Link { id, up }, machine) => link(machine, &id, up)?,
            (Step::Insert { id, fd }, machine) => insert(machine, &mut self.files, &id, &fd)?,
            (Step::Eject { id, force }, machine) => tray(machine, &id)?.eject(force).map_err(medium)?,
            (Step::Size { id, size_bytes }, machine) => size(machine, &id, size_bytes)?,
            (Step::Create { .. } | Step::Panic { .. } | Step::Stop(_) | Step::Nothing, _) => {}
        }
        Ok(Done::Plain)
    }

    fn create(&mut self, config: VmConfig, boot: bool) -> Result<(Machine, Created), Refusal> {
        let kvm = self.open_kvm()?;
        let kvm_fails = |e: crate::kvm::KvmError| host_with(None, e.to_string(), crate::exit::NO_KVM);
        let cpu = HostCpu {
            supported: kvm.supported_cpuid().map_err(kvm_fails)?.as_slice().to_vec(),
            tsc_deadline: kvm.has_tsc_deadline(),
        };
        let seed = Seed::draw().map_err(|e| host(None, format!("cannot draw random numbers: {e}")))?;
        let (vcpus_max, smm) = (kvm.vcpus_max(), kvm.has_smm());
        let facts = HostFacts { vcpus_max, smm, address_bits: cpu.address_bits(), seed };
        let plan =
            plan(config, &facts).map_err(|e| Refusal::Invalid { field: Some(e.field), detail: e.problem })?;
        let mut config = plan.config.clone();
        let alarm = Arc::clone(&self.alarm);
        let on_disk_error = move |disk: &str, stopped: &Stopped<'_>| {
            let Stopped { operation, offset, error } = stopped;
            let detail = format!("{operation} at byte {offset}: {error}");
            alarm.tell(GuestAct::DiskError { device: disk.to_owned(), detail });
        };
        self.files.open_for(&config.name, Arc::new(on_disk_error));
        let log = self.open_log(config.serial.log.as_ref())?;
        self.console.set_backlog(config.serial.backlog_bytes as usize);
        let means = Means {
            kvm: &kvm,
            cpu: &cpu,
            files: &mut self.files,
            console: &self.console,
            firmware_log: &self.firmware_log,
            events: &self.events,
            alarm: Arc::clone(&self.alarm),
            jail: &self.jail,
        };
        let machine = build(plan, means).map_err(|e| {
            let (field, detail) = e.parts();
            host_with(field, detail, e.exit_code())
        })?;
        self.files.settle();
        self.files.tell_formats(&mut config);
        self.jail.confine(ThreadKind::Machine).map_err(|e| host(None, e.to_string()))?;
        if boot {
            machine.run();
        }
        let created = Created { config, serial: machine.serial(), log, running: boot };
        Ok((machine, created))
    }

    fn open_kvm(&mut self) -> Result<HostKvm, Refusal> {
        let source = self.kvm.take().unwrap_or_else(|| KvmSource::Path("/dev/kvm".into()));
        let again = source.try_clone();
        let opened = HostKvm::open(source, self.allow_software_kvm)
            .map_err(|e| host_with(None, e.to_string(), crate::exit::NO_KVM));
        self.kvm = again;
        opened
    }

    fn open_log(&mut self, log: Option<&FileSource>) -> Result<Option<SerialLog>, Refusal> {
        let Some(source) = log else { return Ok(None) };
        let file = self.files.open(source, Access::Append);
        let file =
            file.map_err(|e| host_with(Some("serial.log".into()), e.to_string(), crate::exit::HOST))?;
        Ok(Some(SerialLog::new(file, self.console.subscribe())))
    }
}

fn balloon(machine: &Machine, target_bytes: u64) -> Result<(), Refusal> {
    let set = machine.balloon().and_then(|device| device.controls.balloon.as_ref());
    let set = set.ok_or(Refusal::NotFound { detail: "this machine has no balloon".to_owned() })?;
    if target_bytes > machine.ram_bytes() || !target_bytes.is_multiple_of(4096) {
        let most = machine.ram_bytes();
        let detail =
            format!("{target_bytes} is not a multiple of 4096 of at most {most}, the guest's memory");
        return Err(Refusal::Invalid { field: Some("target_bytes".to_owned()), detail });
    }
    set(target_bytes);
    Ok(())
}

fn link(machine: &Machine, id: &str, up: bool) -> Result<(), Refusal> {
    let device = machine.device(id);
    let device = device.ok_or_else(|| Refusal::NotFound { detail: format!("there is no device '{id}'") })?;
    let set = device.controls.link.as_ref();
    let set = set.ok_or_else(|| Refusal::Unsupported { detail: format!("device '{id}' has no cable") })?;
    set(up);
    Ok(())
}

/// The tray of drive `id`.
fn tray<'a>(machine: &'a Machine, id: &str) -> Result<&'a dyn Tray, Refusal> {
    let member = machine.member(id);
    if let Some(tray) = member.and_then(|member| member.tray.as_deref()) {
        return Ok(tray);
    }
    match (member, machine.device(id)) {
        (None, None) => Err(Refusal::NotFound { detail: format!("there is no device '{id}'") }),
        _ => Err(Refusal::Unsupported { detail: format!("device '{id}' is no CD-ROM drive") }),
    }
}

fn insert(machine: &Machine, files: &mut Files, id: &str, fd: &str) -> Result<(), Refusal> {
    let tray = tray(machine, id)?;
    if let TrayState { locked: true, medium: true, .. } = tray.state() {
        return tray.eject(false).map_err(medium);
    }
    let field = || Some("fd".to_owned());
    let descriptor = files.optional(fd).ok_or_else(|| FileError::NoSuchDescriptor(fd.to_owned()));
    let descriptor = descriptor.map_err(|e| Refusal::Invalid { field: field(), detail: e.to_string() })?;
    let disk = Disk::from_fd(descriptor, fd, Options { read_only: true, direct: false, shared: false });
    let disk = disk.map_err(|e| Refusal::Invalid { field: field(), detail: e.to_string() })?;
    tray.insert(disk).map_err(medium)
}

fn medium(error: MediumError) -> Refusal {
    let detail = error.to_string();
    match error {
        MediumError::Locked => Refusal::Locked { detail },
        MediumError::Blocks(_) | MediumError::Small => {
            Refusal::Invalid { field: Some("fd".to_owned()), detail }
        }
    }
}

fn size(machine: &Machine, id: &str, size_bytes: u64) -> Result<(), Refusal> {
    let (device, member) = (machine.device(id), machine.member(id));
    if device.is_none() && member.is_none() {
        return Err(Refusal::NotFound { detail: format!("there is no device '{id}'") });
    }
    let own = device.and_then(|device| device.controls.grow.as_ref());
    let grow = own.or(member.and_then(|member| member.grow.as_ref()));
    let detail = || format!("device '{id}' cannot be made longer");
    let grow = grow.ok_or_else(|| Refusal::Unsupported { detail: detail() })?;
    grow(size_bytes).map_err(|error| match error {
        GrowError::Host(_) => host(None, super::chain(&error)),
        error => Refusal::Invalid { field: Some("size_bytes".to_owned()), detail: error.to_string() },
    })
}

fn host(field: Option<String>, detail: String) -> Refusal {
    host_with(field, detail, crate::exit::FAILED)
}

fn host_with(field: Option<String>, detail: String, exit_code: u8) -> Refusal {
    // A file that the configuration names and that is not what it should be is the client's to mend.
    if exit_code == crate::exit::BAD_CONFIG {
        return Refusal::Invalid { field, detail };
    }
    Refusal::Host { field, detail, exit_code }
}

/// Whoever waits for a job hears nothing when the thread is gone; this makes it a refusal.
pub async fn answer<T>(reply: &mut oneshot::Receiver<T>) -> Result<T, Refusal> {
    reply.await.map_err(|_| host(None, "the thread that does the machine's work is gone".to_owned()))
}
