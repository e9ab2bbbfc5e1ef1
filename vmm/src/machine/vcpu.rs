//! The thread of one vCPU: runs it, answers its accesses, and stands still when told to.
//!
//! ```text
//!   Parked ── Run ──▶ Running ── kick: Stop ──▶ Parked (acknowledged)
//!                        └── reset, power-off, triple fault, fault ──▶ Parked (waits for orders)
//! ```
//!
//! Orders come as messages. Whoever gives one holds no lock and may wait for the acknowledgement: a vCPU thread that
//! is inside a device finishes that access first and needs nobody for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::JoinHandle;

use orlop_bus::Bus;
use orlop_firmware::kernel::EntryPoint;

use super::policy::GuestAct;
use crate::kvm::{Exit, ExitCounters, Kicker, KvmError, MemoryTypes, Vcpu, VcpuAtPowerOn, VcpuThread};

/// Stack of a vCPU thread in bytes; it is reserved, not used.
const STACK_BYTES: usize = 256 << 10;

/// The address spaces of the machine.
#[derive(Default)]
pub struct Buses {
    /// Ports.
    pub ports: Arc<Bus>,
    /// Memory that is not RAM.
    pub memory: Arc<Bus>,
    /// What of that answers otherwise in system management mode.
    pub smm: Arc<Bus>,
}

/// Where the guest's doings that concern the whole machine are reported, and the flag that makes every vCPU stand
/// still after one that ends its running.
pub struct Alarm {
    halt: AtomicBool,
    told: AtomicBool,
    report: Box<dyn Fn(GuestAct) + Send + Sync>,
}

impl Alarm {
    /// Reports by `report`, which never waits.
    pub fn new(report: Box<dyn Fn(GuestAct) + Send + Sync>) -> Self {
        Self { halt: AtomicBool::new(false), told: AtomicBool::new(false), report }
    }

    /// The machine must not go on as it is: every vCPU stands still after its current exit. Only the first of several
    /// such acts counts, so that a guest can make only so many reports.
    pub fn halt(&self, act: GuestAct) {
        if !self.halt.swap(true, Ordering::SeqCst) {
            (self.report)(act);
        }
    }

    /// Something to be known while the machine goes on; once until the next reset.
    pub fn tell_once(&self, act: GuestAct) {
        if !self.told.swap(true, Ordering::SeqCst) {
            (self.report)(act);
        }
    }

    /// Something that the host's side found, at a pace that no guest sets.
    pub fn tell(&self, act: GuestAct) {
        (self.report)(act);
    }

    /// The machine starts afresh.
    pub fn clear(&self) {
        self.told.store(false, Ordering::SeqCst);
        self.halt.store(false, Ordering::SeqCst);
    }

    fn is_halted(&self) -> bool {
        self.halt.load(Ordering::SeqCst)
    }
}

/// How a vCPU stands after a reset.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// At the reset vector, where firmware begins.
    Vector,
    /// At a kernel's first instruction.
    Entry(EntryPoint),
    /// Waiting for INIT and a start-up message, as every vCPU but the first.
    Wait,
}

/// What a vCPU thread is told.
enum Order {
    /// Run until the next [`Order::Stop`].
    Run,
    /// Stand still, then acknowledge.
    Stop(SyncSender<()>),
    /// Back to power-on, and to where it starts.
    Reset(Start, SyncSender<Result<(), KvmError>>),
}

/// A vCPU thread as the rest of the machine sees it. Dropping it ends the thread, and waits for that.
pub struct VcpuHandle {
    /// `None` only while it is dropped.
    orders: Option<Sender<Order>>,
    kicker: Arc<Kicker>,
    thread: VcpuThread,
    exits: Arc<ExitCounters>,
    apic_id: u32,
    join: Option<JoinHandle<()>>,
}

/// What a vCPU thread works with.
struct Runner {
    index: u32,
    vcpu: Vcpu,
    power_on: VcpuAtPowerOn,
    buses: Arc<Buses>,
    alarm: Arc<Alarm>,
    orders: Receiver<Order>,
}

impl VcpuHandle {
    /// Starts the thread of `vcpu`, parked; `confine` runs first on it.
    pub fn spawn(
        index: u32,
        vcpu: Vcpu,
        buses: Arc<Buses>,
        alarm: Arc<Alarm>,
        memory_types: MemoryTypes,
        confine: impl FnOnce() + Send + 'static,
    ) -> Result<Self, KvmError> {
        let (orders, inbox) = channel();
        let (kicker, exits, apic_id) = (vcpu.kicker(), vcpu.exits(), vcpu.apic_id());
        let power_on = vcpu.at_power_on(memory_types)?;
        let runner = Runner { index, vcpu, power_on, buses, alarm, orders: inbox };
        let (ready, started) = sync_channel(1);
        let run = move || {
            let _ = ready.send(VcpuThread::current());
            confine();
            runner.serve();
        };
        let failed = |source: io::Error| KvmError::Call { call: "starting a vCPU thread", source };
        let join = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .stack_size(STACK_BYTES)
            .spawn(run)
            .map_err(failed)?;
        let thread = started.recv().map_err(|_| failed(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { orders: Some(orders), kicker, thread, exits, apic_id, join: Some(join) })
    }

    /// Lets it run.
    pub fn run(&self) {
        self.order(Order::Run);
    }

    /// Tells it to stand still; the receiver hears when it does.
    pub fn stop(&self) -> Receiver<()> {
        let (done, stopped) = sync_channel(1);
        self.order(Order::Stop(done));
        self.kicker.kick(self.thread);
        stopped
    }

    /// Puts it back to power-on. It stands still.
    pub fn reset(&self, start: Start) -> Result<(), KvmError> {
        let (done, result) = sync_channel(1);
        let gone = || KvmError::Call { call: "reset of a vCPU", source: io::ErrorKind::BrokenPipe.into() };
        self.order(Order::Reset(start, done));
        result.recv().map_err(|_| gone())?
    }

    /// Gives an order. A thread that is gone drops it, and whoever waits for its answer notices.
    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }

    /// The identifier of its local APIC.
    pub fn apic_id(&self) -> u32 {
        self.apic_id
    }

    /// The thread.
    pub fn thread(&self) -> VcpuThread {
        self.thread
    }

    /// What it counts.
    pub fn exits(&self) -> Arc<ExitCounters> {
        Arc::clone(&self.exits)
    }
}

impl Drop for VcpuHandle {
    fn drop(&mut self) {
        self.orders = None;
        self.kicker.kick(self.thread);
        if let Some(join) = self.join.take() {
            // A thread that panicked has ended as well.
            let _ = join.join();
        }
    }
}

impl Runner {
    fn serve(mut self) {
        while self.parked() {
            self.running();
        }
    }

    /// Stands still and obeys; true when it is to run, false when nobody can give orders any more.
    fn parked(&mut self) -> bool {
        while let Ok(order) = self.orders.recv() {
            match order {
                Order::Run => return true,
                Order::Stop(done) => {
                    let _ = done.send(());
                }
                Order::Reset(start, done) => {
                    let _ = done.send(self.reset(&start));
                }
            }
        }
        false
    }

    fn reset(&self, start: &Start) -> Result<(), KvmError> {
        self.vcpu.reset(&self.power_on)?;
        self.vcpu.set_waiting(matches!(start, Start::Wait))?;
        match start {
            Start::Entry(entry) => self.vcpu.enter(entry),
            Start::Vector | Start::Wait => Ok(()),
        }
    }

    /// Runs until told to stop, or until the machine must not go on.
    fn running(&mut self) {
        // Whoever gave an order meanwhile has kicked already.
        if self.stopped() {
            return;
        }
        loop {
            let interrupted = self.step();
            if self.alarm.is_halted() {
                // What the last exit began, a port read for example, is finished before anything else may change.
                self.vcpu.interrupt_next_run();
                if interrupted {
                    return;
                }
            } else if interrupted && self.stopped() {
                return;
            }
        }
    }

    /// Runs to the next exit and answers it; true when it was interrupted.
    fn step(&mut self) -> bool {
        let index = self.index;
        let Buses { ports, memory, smm } = &*self.buses;
        match self.vcpu.run() {
            Exit::PortRead { port, width, data } => {
                data.chunks_mut(width).for_each(|piece| {
                    ports.read(u64::from(port), piece);
                });
            }
            Exit::PortWrite { port, width, data } => {
                data.chunks(width).for_each(|piece| {
                    ports.write(u64::from(port), piece);
                });
            }
            Exit::MemoryRead { address, data, in_smm } => {
                let _ = in_smm && smm.read(address, data) || memory.read(address, data);
            }
            Exit::MemoryWrite { address, data, in_smm } => {
                let _ = in_smm && smm.write(address, data) || memory.write(address, data);
            }
            Exit::Continue => {}
            Exit::Interrupted => return true,
            Exit::TripleFault => self.alarm.halt(GuestAct::TripleFault { vcpu: index }),
            Exit::Reset => self.alarm.halt(GuestAct::Reset),
            Exit::PowerOff => self.alarm.halt(GuestAct::PowerOff),
            Exit::Fault(detail) => {
                self.alarm.halt(GuestAct::Fault { vcpu: index, detail });
                // It may fail again and again instead of being interrupted.
                return true;
            }
        }
        false
    }

    /// Looks at the orders after an interruption; true when it is to stand still.
    fn stopped(&mut self) -> bool {
        // Cleared before the look: a kick that comes after it interrupts the next run.
        self.vcpu.clear_interrupt();
        stops(&self.orders, || self.vcpu.tell_paused())
    }
}

/// Obeys the orders of a vCPU that runs, up to the one that makes it stand still: true for that one, which is acknowledged after
/// `pause`. What comes after it is for one that stands still.
fn stops(orders: &Receiver<Order>, pause: impl FnOnce()) -> bool {
    loop {
        match orders.try_recv() {
            Err(TryRecvError::Empty) => return false,
            // Nobody wants it any more.
            Err(TryRecvError::Disconnected) => return true,
            Ok(Order::Run) => {}
            Ok(Order::Stop(done)) => {
                pause();
                let _ = done.send(());
                return true;
            }
            Ok(Order::Reset(_, done)) => {
                let source = io::ErrorKind::ResourceBusy.into();
                let _ = done.send(Err(KvmError::Call { call: "reset of a running vCPU", source }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_to_run_right_after_one_to_stop_is_not_lost() {
        let (sender, orders) = channel();
        let (done, stopped) = sync_channel(1);
        sender.send(Order::Stop(done)).expect("it listens");
        sender.send(Order::Run).expect("it listens");
        assert!(stops(&orders, || ()));
        stopped.try_recv().expect("acknowledged");
        assert!(matches!(orders.try_recv(), Ok(Order::Run)), "it is for the vCPU that stands still");
    }

    #[test]
    fn a_vcpu_stands_still_when_nobody_is_left_to_give_orders() {
        let (sender, orders) = channel();
        sender.send(Order::Run).expect("it listens");
        assert!(!stops(&orders, || panic!("it goes on")));
        drop(sender);
        assert!(stops(&orders, || panic!("nobody is told")));
    }
}
