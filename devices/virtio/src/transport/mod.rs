//! virtio over PCI (virtio 1.3 §4.1), modern devices only: a [`VirtioPci`] is a PCI function around a device's
//! [`Parts`].

mod capabilities;
pub mod layout;
mod registers;
mod rings;
mod saved;
mod signals;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orlop_bus::read_from;
use orlop_pci::{BarMove, ConfigSpace, Doorbell, Function, Identity, LayoutError, MsiSink, Msix};
use orlop_state::{Record, StateError};
use vmm_sys_util::eventfd::EventFd;

use self::capabilities::{ACCESS_DATA, access_target};
use self::layout::{BAR, BAR_BYTES, COMMON, DEVICE, ISR, NOTIFY, NOTIFY_MULTIPLIER, PAGE_BYTES, PBA, TABLE};
use self::registers::{Action, DRIVER_OK, FEATURES_OK, NEEDS_RESET, Registers, Shown};
use self::saved::{QueueState, TransportState, invalid};
use self::signals::{NO_VECTOR, Signals};
use crate::worker::{ThreadHook, Worker, WorkerError, event};
use crate::{Device, DeviceType, Fault, Inspection, Interrupt, Parts, QueueInspection, QueueIo, Ram};

const F_INDIRECT_DESC: u64 = 1 << 28;
const F_EVENT_IDX: u64 = 1 << 29;
/// Feature bits that belong to the device's type: 0 to 23 and 50 and up; the frame answers for the others
/// (virtio 1.3 §2.2).
const DEVICE_FEATURES: u64 = 0xfffc_0000_00ff_ffff;

/// What a device needs from the machine around it.
pub struct Platform {
    /// Guest memory.
    pub ram: Arc<Ram>,
    /// Delivers its interrupts.
    pub msi: Arc<dyn MsiSink>,
    /// Runs first on each of its threads.
    pub hook: ThreadHook,
    /// Where its BAR is after power-on: a multiple of [`layout::BAR_BYTES`].
    pub bar_address: u64,
}

/// A device that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A queue is in no set, in several, or too many.
    #[error("the queue sets do not hold each of the device's {queues} queues exactly once, at most {max}", max = layout::QUEUES_MAX)]
    Queues {
        /// How many the device says it has.
        queues: usize,
    },
    /// A queue's largest size is not a power of two up to 32768.
    #[error("queue {number} has the impossible largest size {size}")]
    QueueSize {
        /// Which queue.
        number: usize,
        /// Its largest size.
        size: u16,
    },
    /// The configuration space cannot be laid out, for example because the BAR's address is not aligned.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A thread cannot be started.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// No event file is to be had.
    #[error("cannot create an event file: {0}")]
    Event(#[source] std::io::Error),
}

/// A set of queues and the thread that serves them.
struct Serving {
    queues: Vec<u16>,
    worker: Worker,
}

/// What the guest's accesses change, under one lock. A stop waits for a worker under it; workers never take it.
struct Inner {
    config: ConfigSpace,
    registers: Registers,
    device: Box<dyn Device>,
    sets: Vec<Serving>,
    /// The workers have the queues.
    serving: bool,
    /// Between pause and resume: a driver that becomes ready is served from the resume on.
    paused: bool,
}

/// A virtio device as a PCI function. All its threads exist from construction to drop; starting and stopping queues
/// are messages to them.
///
/// [`Function::save`] returns two records, the transport's (`virtio-pci`) and the device's own, with empty names:
/// the machine names them.
pub struct VirtioPci {
    inner: Mutex<Inner>,
    signals: Arc<Signals>,
    kicks: Vec<Arc<EventFd>>,
    ram: Arc<Ram>,
    device_type: DeviceType,
    /// Offset of the capability for access through the configuration space.
    access: u16,
    /// Offset of the MSI-X message control register.
    msix_control: u16,
}

impl VirtioPci {
    /// Builds the function and starts its threads, each of which has run `platform.hook` when this returns.
    pub fn new(parts: Parts, platform: Platform) -> Result<Arc<Self>, BuildError> {
        let Parts { device, sets } = parts;
        let Platform { ram, msi, hook, bar_address } = platform;
        let max_sizes = device.queue_max_sizes();
        check_queues(&max_sizes, sets.iter().flat_map(|set| &set.queues))?;
        let device_type = device.device_type();
        let msix = Msix::new(max_sizes.len().saturating_add(1), msi)?;
        let mut config = ConfigSpace::new(identity(device_type));
        config.add_bar64(BAR, BAR_BYTES, bar_address)?;
        let table = u32::try_from(TABLE).unwrap_or(u32::MAX);
        let pba = u32::try_from(PBA).unwrap_or(u32::MAX);
        let msix_control = msix.add_capability(&mut config, BAR, table, pba)?;
        let access = capabilities::add(&mut config)?;
        let offered =
            device.features() & DEVICE_FEATURES | registers::F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX;
        let kicks = max_sizes.iter().map(|_| event().map(Arc::new));
        let kicks = kicks.collect::<Result<Vec<_>, _>>().map_err(BuildError::Event)?;
        let mut workers = Vec::new();
        for set in sets {
            let queues = set.queues.clone();
            let own = queues.iter().filter_map(|queue| kicks.get(usize::from(*queue)).cloned()).collect();
            let worker = Worker::spawn(set, own, device_type.name(), Arc::clone(&hook))?;
            workers.push(Serving { queues, worker });
        }
        let registers = Registers::new(offered, &max_sizes);
        let signals = Arc::new(Signals::new(msix, max_sizes.len()));
        let inner = Inner { config, registers, device, sets: workers, serving: false, paused: false };
        Ok(Arc::new(Self {
            inner: Mutex::new(inner),
            signals,
            kicks,
            ram,
            device_type,
            access,
            msix_control,
        }))
    }

    /// Calls `f` for every guest fault, on the thread that finds it; `f` must not call the device. Only the first
    /// call counts.
    pub fn on_fault(&self, f: Box<dyn Fn(Fault) + Send + Sync>) {
        self.signals.on_fault(f);
    }

    /// The device as it is now.
    pub fn inspect(&self) -> Inspection {
        let inner = self.inner();
        let queues = inner.registers.queues.iter().zip(0..).map(|(queue, number)| {
            let vector = self.signals.queue_vector(number);
            let counters = self.signals.counters(number).cloned().unwrap_or_default();
            QueueInspection {
                max_size: queue.max_size,
                size: queue.size,
                ready: queue.ready,
                vector: (vector != NO_VECTOR).then_some(vector),
                next_avail: counters.next_avail.load(Relaxed),
                next_used: counters.next_used.load(Relaxed),
                kicks: counters.kicks.load(Relaxed),
                requests: counters.requests.load(Relaxed),
                interrupts: counters.interrupts.load(Relaxed),
            }
        });
        Inspection {
            device_type: self.device_type,
            status: self.status(&inner),
            offered: inner.registers.offered,
            features: inner.registers.driver_features,
            serving: inner.serving,
            faults: self.signals.faults(),
            fault: self.signals.fault(),
            config_interrupts: self.signals.config_interrupts(),
            queues: queues.collect(),
            counters: inner.device.counters(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self, inner: &Inner) -> u8 {
        inner.registers.status | if self.signals.is_broken() { NEEDS_RESET } else { 0 }
    }

    fn common_read(&self, offset: u64, data: &mut [u8]) {
        let inner = self.inner();
        let shown = Shown {
            config_vector: self.signals.config_vector(),
            queue_vector: self.signals.queue_vector(inner.registers.queue_select),
            needs_reset: self.signals.is_broken(),
            generation: self.signals.generation(),
        };
        read_from(&inner.registers.image(&shown), offset, data);
    }

    fn common_write(&self, offset: u64, data: &[u8]) {
        let mut inner = self.inner();
        match inner.registers.write(offset, data) {
            Action::Nothing => {}
            Action::ConfigVector(vector) => self.signals.set_config_vector(vector),
            Action::QueueVector { queue, vector } => self.signals.set_queue_vector(queue, vector),
            Action::Reset => self.reset_device(&mut inner),
            Action::Status { negotiated, ready } => {
                if negotiated {
                    let features = inner.registers.driver_features;
                    inner.device.negotiated(features);
                }
                if ready && !inner.paused {
                    self.start(&mut inner);
                }
            }
        }
    }

    /// Gives the queues to the workers, if every enabled one has its rings in guest memory.
    fn start(&self, inner: &mut Inner) {
        if inner.serving || self.signals.is_broken() {
            return;
        }
        let features = inner.registers.driver_features;
        let mut handovers = Vec::new();
        for set in &inner.sets {
            let queues = set.queues.iter().map(|number| {
                let registers = inner.registers.queues.get(usize::from(*number));
                let counters = self.signals.counters(*number);
                rings::handover(*number, registers, counters, &self.ram, features & F_EVENT_IDX != 0)
            });
            match queues.collect::<Result<Vec<_>, Fault>>() {
                Ok(queues) => handovers.push(queues),
                Err(fault) => return self.signals.needs_reset(fault),
            }
        }
        inner.serving = true;
        for (set, queues) in inner.sets.iter().zip(handovers) {
            let interrupt = Arc::clone(&self.signals) as Arc<dyn Interrupt>;
            set.worker.start(QueueIo::new(Arc::clone(&self.ram), queues, interrupt, features));
        }
    }

    /// Takes the queues back and waits for what is in flight.
    fn stop(&self, inner: &mut Inner) {
        if !std::mem::take(&mut inner.serving) {
            return;
        }
        for set in &inner.sets {
            let stopped = set.worker.stop();
            if stopped.len() != set.queues.len() {
                self.signals.needs_reset(Fault("a device thread has ended"));
            }
            for (number, queue) in stopped {
                if let Some(registers) = inner.registers.queues.get_mut(usize::from(number)) {
                    rings::take_back(registers, &queue);
                }
            }
        }
    }

    /// Reset by the driver (virtio 1.3 §2.4): the PCI side stays as it is.
    fn reset_device(&self, inner: &mut Inner) {
        self.stop(inner);
        inner.registers.reset();
        inner.device.reset();
        self.signals.reset();
        for number in 0..inner.registers.queues.len() {
            if let Some(counters) = u16::try_from(number).ok().and_then(|n| self.signals.counters(n)) {
                counters.next_avail.store(0, Relaxed);
                counters.next_used.store(0, Relaxed);
            }
        }
    }

    fn reset_all(&self, inner: &mut Inner) {
        self.reset_device(inner);
        inner.config.reset();
        self.signals.msix.reset();
        inner.paused = false;
    }

    fn restore_into(&self, inner: &mut Inner, records: &[Record]) -> Result<(), StateError> {
        let [transport, device] = records else {
            return Err(invalid(format!("{} records instead of two", records.len())));
        };
        let state: TransportState = transport.read()?;
        let device_type = inner.device.device_type();
        if state.device_type != device_type as u16 {
            return Err(invalid(format!("device type {}, not {device_type:?}", state.device_type)));
        }
        let registers = state.registers(&inner.registers)?;
        self.signals.msix.check("virtio-pci", &state.msix)?;
        let vectors = state.queues.iter().map(|queue| queue.vector);
        if let Some(vector) =
            vectors.chain([state.config_vector]).find(|vector| !self.signals.is_vector(*vector))
        {
            return Err(invalid(format!("MSI-X vector {vector}")));
        }
        if registers.status & DRIVER_OK != 0 && !state.broken() {
            for (queue, number) in registers.queues.iter().zip(0..) {
                rings::handover(number, Some(queue), None, &self.ram, false)
                    .map_err(|fault| invalid(format!("queue {number}: {}", fault.0)))?;
            }
        }
        inner.config.restore("virtio-pci", &state.config)?;
        if registers.status & FEATURES_OK != 0 {
            inner.device.negotiated(registers.driver_features);
        }
        inner.device.restore(device)?;
        self.signals.restore(state.isr, state.generation, state.broken());
        self.signals.msix.restore(&state.msix, inner.config.register(self.msix_control));
        self.signals.set_config_vector(state.config_vector);
        for (queue, number) in state.queues.iter().zip(0..) {
            self.signals.set_queue_vector(number, queue.vector);
            if let Some(counters) = self.signals.counters(number) {
                counters.next_avail.store(queue.next_avail, Relaxed);
                counters.next_used.store(queue.next_used, Relaxed);
            }
        }
        inner.registers = registers;
        inner.paused = true;
        Ok(())
    }

    /// Where in the BAR an access to `data.len()` bytes of the configuration space at `offset` leads, if it touches
    /// the data of the access capability: `(offset in the BAR, length, offset within the data)`.
    fn access(&self, offset: u16) -> Option<(u64, usize, u16)> {
        let within = offset.checked_sub(self.access.saturating_add(ACCESS_DATA)).filter(|at| *at < 4)?;
        let (target, len) = access_target(&self.inner().config, self.access)?;
        Some((target, len, within))
    }
}

fn identity(device: DeviceType) -> Identity {
    Identity {
        vendor: layout::VENDOR,
        device: layout::DEVICE_BASE.saturating_add(device as u16),
        revision: layout::REVISION,
        class: layout::class(device),
        subsystem_vendor: layout::VENDOR,
        subsystem: layout::SUBSYSTEM,
    }
}

fn check_queues<'a>(max_sizes: &[u16], in_sets: impl Iterator<Item = &'a u16>) -> Result<(), BuildError> {
    let mut held: Vec<usize> = in_sets.map(|number| usize::from(*number)).collect();
    held.sort_unstable();
    let queues = max_sizes.len();
    if queues > layout::QUEUES_MAX || held != (0..queues).collect::<Vec<_>>() {
        return Err(BuildError::Queues { queues });
    }
    match max_sizes.iter().position(|size| !size.is_power_of_two()) {
        Some(number) => {
            let size = max_sizes.get(number).copied().unwrap_or(0);
            Err(BuildError::QueueSize { number, size })
        }
        None => Ok(()),
    }
}

impl Function for VirtioPci {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        if let Some((target, len, within)) = self.access(offset) {
            let mut word = [0; 4];
            self.bar_read(BAR, target, word.get_mut(..len).unwrap_or(&mut []));
            return read_from(&word, u64::from(within), data);
        }
        self.inner().config.read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Vec<BarMove> {
        let moves = {
            let mut inner = self.inner();
            let moves = inner.config.write(offset, data);
            self.signals.msix.set_control(inner.config.register(self.msix_control));
            moves
        };
        if let Some((target, len, 0)) = self.access(offset)
            && let Some(data) = data.get(..len)
        {
            self.bar_write(BAR, target, data);
        }
        moves
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if bar != BAR {
            return data.fill(0xff);
        }
        let within = offset % PAGE_BYTES;
        match offset - within {
            COMMON => self.common_read(within, data),
            ISR if within == 0 && !data.is_empty() => read_from(&[self.signals.take_isr()], 0, data),
            DEVICE => self.inner().device.config_read(within, data),
            TABLE..PBA => self.signals.msix.table_read(offset.wrapping_sub(TABLE), data),
            PBA => self.signals.msix.pba_read(within, data),
            _ => {}
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        if bar != BAR || data.is_empty() {
            return;
        }
        let within = offset % PAGE_BYTES;
        match offset - within {
            COMMON => self.common_write(within, data),
            DEVICE => self.inner().device.config_write(within, data),
            NOTIFY if within.is_multiple_of(u64::from(NOTIFY_MULTIPLIER)) => {
                let queue = usize::try_from(within / u64::from(NOTIFY_MULTIPLIER)).ok();
                if let Some(kick) = queue.and_then(|queue| self.kicks.get(queue)) {
                    // Fails only when the count is at its end, and then the worker has not looked yet.
                    let _ = kick.write(1);
                }
            }
            TABLE..PBA => self.signals.msix.table_write(offset.wrapping_sub(TABLE), data),
            _ => {}
        }
    }

    fn windows(&self) -> Vec<(u8, u64, u64)> {
        self.inner().config.windows()
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        let places = (NOTIFY..).step_by(usize::try_from(NOTIFY_MULTIPLIER).unwrap_or(4));
        let bells = self.kicks.iter().zip(places);
        bells.map(|(kick, offset)| Doorbell { bar: BAR, offset, event: Arc::clone(kick) as _ }).collect()
    }

    fn reset(&self) {
        self.reset_all(&mut self.inner());
    }

    fn pause(&self) {
        let mut inner = self.inner();
        inner.paused = true;
        self.stop(&mut inner);
    }

    fn resume(&self) {
        let mut inner = self.inner();
        inner.paused = false;
        if inner.registers.status & DRIVER_OK != 0 {
            self.start(&mut inner);
        }
    }

    fn save(&self) -> Result<Vec<Record>, StateError> {
        let inner = self.inner();
        if inner.serving {
            return Err(invalid("the device is not paused"));
        }
        let registers = &inner.registers;
        let queues = registers.queues.iter().zip(0..).map(|(queue, number)| QueueState {
            size: queue.size,
            ready: queue.ready,
            vector: self.signals.queue_vector(number),
            desc: queue.desc,
            avail: queue.avail,
            used: queue.used,
            next_avail: queue.next_avail,
            next_used: queue.next_used,
        });
        let state = TransportState {
            device_type: inner.device.device_type() as u16,
            config: inner.config.save(),
            msix: self.signals.msix.save(),
            status: self.status(&inner),
            isr: self.signals.isr(),
            generation: self.signals.generation(),
            device_feature_select: registers.device_feature_select,
            driver_feature_select: registers.driver_feature_select,
            driver_features: registers.driver_features,
            queue_select: registers.queue_select,
            config_vector: self.signals.config_vector(),
            queues: queues.collect(),
        };
        Ok(vec![Record::write("", &state)?, inner.device.save()?])
    }

    fn restore(&self, records: &[Record]) -> Result<(), StateError> {
        let mut inner = self.inner();
        self.reset_all(&mut inner);
        let result = self.restore_into(&mut inner, records);
        if result.is_err() {
            self.reset_all(&mut inner);
        }
        result
    }
}
