//! How the device's thread wakes itself: at once, behind other events, or at a time.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

#[derive(Debug)]
pub(crate) struct Waker {
    again: EventFd,
    timer: Timer,
    /// When the timer fires, if it is set.
    at: Option<Instant>,
}

struct Timer(TimerFd);

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Timer").field(&self.0.as_raw_fd()).finish()
    }
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let timer = TimerFd::new().map_err(io::Error::from)?;
        Ok(Self { again: EventFd::new(EFD_NONBLOCK)?, timer: Timer(timer), at: None })
    }

    /// The files to wait for: at once, and at a time.
    pub(crate) fn fds(&self) -> [RawFd; 2] {
        [self.again.as_raw_fd(), self.timer.0.as_raw_fd()]
    }

    /// Wakes the thread once more, behind whatever else is waiting.
    pub(crate) fn again(&self) {
        // Fails only when it was signalled 2^64 times without a look.
        let _ = self.again.write(1);
    }

    /// Wakes the thread at `deadline`, if it is not to be woken earlier.
    pub(crate) fn at(&mut self, deadline: Instant, now: Instant) {
        if self.at.is_some_and(|earlier| earlier <= deadline) {
            return;
        }
        // A time of zero would turn the timer off.
        let wait = deadline.saturating_duration_since(now).max(Duration::from_millis(1));
        self.at = Some(deadline);
        if self.timer.0.reset(wait, None).is_err() {
            self.again();
        }
    }

    pub(crate) fn take_again(&self) {
        let _ = self.again.read();
    }

    /// The time came. Disarming takes the expiry away without a read, which could wait.
    pub(crate) fn take_timer(&mut self) {
        let _ = self.timer.0.clear();
        self.at = None;
    }
}
