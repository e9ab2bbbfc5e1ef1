//! One pair of queues on its thread, with the control queue where it falls to this pair.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orlop_virtio::{Backend, Fault, QueueIo};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::control;
use crate::features;
use crate::rx::{Receiver, Round};
use crate::shared::{Port, Shared};
use crate::tx::Transmitter;

/// How many frames one direction moves before the thread looks for other events: a flood on one side must not keep
/// the other side, or a stop, waiting.
const BUDGET_FRAMES: usize = 256;

/// How many control commands are carried out at once.
const BUDGET_COMMANDS: usize = 16;

/// Positions of the queues within the set.
const RX: usize = 0;
const TX: usize = 1;
const CONTROL: usize = 2;

/// What the thread waits for, beside its queues.
const TAP: u64 = 0;
const AGAIN: u64 = 1;
const LINK: u64 = 2;
const TIMER: u64 = 3;

/// The backend of a pair.
pub(crate) struct Pair {
    index: u16,
    shared: Arc<Shared>,
    /// Holds all the sources. The tap is watched for edges: level-triggered, a tap with frames that the guest has no
    /// buffers for would keep the thread spinning.
    epoll: Epoll,
    again: EventFd,
    timer: TimerFd,
    /// When the timer fires, if it is set.
    wake_at: Option<Instant>,
    rx: Receiver,
    tx: Transmitter,
    /// Where the control queue is in this set, if it is.
    control: Option<usize>,
    /// The first pair's queue 0 or, without multi-queue, the second's is no receive queue (virtio 1.3 §5.1.2).
    carries_frames: bool,
}

impl Pair {
    pub(crate) fn new(index: u16, shared: Arc<Shared>, mtu: u16) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let again = EventFd::new(EFD_NONBLOCK)?;
        let timer = TimerFd::new().map_err(io::Error::from)?;
        let watch = |fd, events, data| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, data));
        watch(again.as_raw_fd(), EventSet::IN, AGAIN)?;
        watch(timer.as_raw_fd(), EventSet::IN, TIMER)?;
        if index == 0 {
            watch(shared.link_event.as_raw_fd(), EventSet::IN, LINK)?;
        }
        if let Some(port) = shared.ports.get(usize::from(index)) {
            watch(port.tap.as_raw_fd(), tap_events(), TAP)?;
        }
        Ok(Self {
            index,
            shared,
            epoll,
            again,
            timer,
            wake_at: None,
            rx: Receiver::new(RX, mtu),
            tx: Transmitter::new(TX),
            control: None,
            carries_frames: false,
        })
    }

    fn serve_rx(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let Some(port) = self.port(&shared) else { return Ok(()) };
        if !self.carries_frames || !io.is_ready(RX) {
            return Ok(());
        }
        let round = self.rx.serve(io, &shared, port, BUDGET_FRAMES)?;
        self.after(io, round);
        Ok(())
    }

    fn serve_tx(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let Some(port) = self.port(&shared) else { return Ok(()) };
        if !self.carries_frames || !io.is_ready(TX) {
            return Ok(());
        }
        let round = self.tx.serve(io, &shared, port, BUDGET_FRAMES)?;
        self.after(io, round);
        Ok(())
    }

    fn serve_control(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        if control::serve(io, queue, &self.shared, BUDGET_COMMANDS)? {
            self.come_back();
        }
        Ok(())
    }

    fn port<'a>(&self, shared: &'a Shared) -> Option<&'a Port> {
        shared.ports.get(usize::from(self.index))
    }

    fn after(&mut self, io: &QueueIo, round: Round) {
        match round {
            Round::Done => {}
            Round::Budget => self.come_back(),
            Round::TapFull => self.watch_again(),
            Round::Limited(wait) => self.come_back_after(wait),
            Round::TapGone => {
                if self.shared.tap_is_gone() {
                    io.config_changed();
                    // What was waiting is dropped now that the link is down.
                    self.come_back();
                }
            }
        }
    }

    /// Wakes the thread again, behind whatever else is waiting.
    fn come_back(&self) {
        // Fails only when it was signalled 2^64 times without a look.
        let _ = self.again.write(1);
    }

    /// Wakes the thread in a while, or earlier if it is to be woken earlier anyway.
    fn come_back_after(&mut self, wait: Duration) {
        let now = Instant::now();
        let wait = wait.clamp(Duration::from_micros(10), Duration::from_secs(1));
        let at = now.checked_add(wait).unwrap_or(now);
        if self.wake_at.is_none_or(|earlier| at < earlier) {
            self.wake_at = Some(at);
            if self.timer.reset(wait, None).is_err() {
                self.come_back();
            }
        }
    }

    /// Looks at the tap afresh: an edge that passed between a refused frame and now would be missed.
    fn watch_again(&self) {
        if let Some(port) = self.port(&self.shared) {
            let event = EpollEvent::new(tap_events(), TAP);
            let _ = self.epoll.ctl(ControlOperation::Modify, port.tap.as_raw_fd(), event);
        }
    }
}

fn tap_events() -> EventSet {
    EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED
}

impl Backend for Pair {
    fn sources(&self) -> Vec<(RawFd, u32)> {
        vec![(self.epoll.as_raw_fd(), 0)]
    }

    fn start(&mut self, io: &mut QueueIo) -> Result<(), Fault> {
        let multi_queue = io.features() & features::MQ != 0;
        self.carries_frames = self.index == 0 || multi_queue;
        // Without multi-queue the control queue is number 2, whichever pair has that (virtio 1.3 §5.1.2).
        self.control = match self.index {
            0 if multi_queue || self.shared.ports.len() == 1 => Some(CONTROL),
            1 if !multi_queue => Some(RX),
            _ => None,
        };
        self.rx.start(io.features());
        if self.index == 0 {
            self.shared.apply_to_tap();
        }
        Ok(())
    }

    fn kick(&mut self, io: &mut QueueIo, queue: usize) -> Result<(), Fault> {
        match queue {
            _ if self.control == Some(queue) => self.serve_control(io, queue),
            RX => self.serve_rx(io),
            TX => self.serve_tx(io),
            _ => Ok(()),
        }
    }

    fn ready(&mut self, io: &mut QueueIo, _token: u32) -> Result<(), Fault> {
        let mut events = [EpollEvent::default(); 4];
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        for event in events.iter().take(count) {
            match event.data() {
                AGAIN => drop(self.again.read()),
                LINK => {
                    let _ = self.shared.link_event.read();
                    io.config_changed();
                }
                TIMER => {
                    // Disarming takes the expiry away without a read, which could wait.
                    let _ = self.timer.clear();
                    self.wake_at = None;
                }
                _ => {}
            }
        }
        if let Some(queue) = self.control {
            self.serve_control(io, queue)?;
        }
        self.serve_rx(io)?;
        self.serve_tx(io)
    }

    fn drain(&mut self, io: &mut QueueIo) {
        let shared = Arc::clone(&self.shared);
        if let Some(port) = self.port(&shared) {
            self.rx.drain(io, port);
        }
    }
}
