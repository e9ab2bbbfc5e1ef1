//! Rate limits: how much all queues of a disk may do together.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use orlop_virtio::rate::TokenBucket;
use vmm_sys_util::timerfd::TimerFd;

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// What is allowed per second on average.
    pub per_second: u64,
    /// What is allowed at once after a pause; a second's worth if `None`.
    pub burst: Option<u64>,
}

/// What a disk may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of data, read and written together.
    pub bytes: Option<RateLimit>,
    /// Requests of any kind.
    pub operations: Option<RateLimit>,
}

/// The limits of one disk, shared by its queues.
#[derive(Debug)]
pub(crate) struct Limiter {
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    bytes: Option<TokenBucket>,
    operations: Option<TokenBucket>,
}

impl Limiter {
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        let bucket = |limit: Option<RateLimit>| {
            limit.map(|RateLimit { per_second, burst }| TokenBucket::new(per_second, burst, now))
        };
        let Limits { bytes, operations } = limits;
        Self { buckets: Mutex::new(Buckets { bytes: bucket(bytes), operations: bucket(operations) }) }
    }

    /// Lets one request over `bytes` through, or says after how long to ask again.
    pub(crate) fn admit(&self, bytes: u64, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { bytes: by_bytes, operations } = &mut *buckets;
        if let Some(bucket) = operations {
            bucket.take(1, now)?;
        }
        let Some(bucket) = by_bytes else { return Ok(()) };
        bucket.take(bytes, now).inspect_err(|_| {
            if let Some(bucket) = operations {
                bucket.give_back(1);
            }
        })
    }
}

/// A queue's alarm for when its limit lets it go on.
pub(crate) struct Alarm {
    timer: TimerFd,
    set: bool,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { timer: TimerFd::new()?, set: false })
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// Whether the queue is waiting.
    pub(crate) fn is_set(&self) -> bool {
        self.set
    }

    /// Goes off after `wait`.
    pub(crate) fn set(&mut self, wait: Duration) -> io::Result<()> {
        // A timer set to zero would be off.
        self.timer.reset(wait.max(Duration::from_nanos(1)), None)?;
        self.set = true;
        Ok(())
    }

    /// True, once, when it has gone off. Never blocks, however often it is asked.
    pub(crate) fn has_gone_off(&mut self) -> bool {
        if !self.set || self.timer.is_armed().unwrap_or(false) {
            return false;
        }
        self.set = false;
        let _ = self.timer.wait();
        true
    }

    /// No longer goes off.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.set) {
            let _ = self.timer.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Option<RateLimit> = Some(RateLimit { per_second: 10, burst: None });

    #[test]
    fn an_operation_that_bytes_refuse_is_not_counted() {
        let now = Instant::now();
        let limiter = Limiter::new(Limits { bytes: TEN, operations: TEN }, now);
        assert_eq!(limiter.admit(10, now), Ok(()));
        for _ in 0..100 {
            assert_eq!(limiter.admit(10, now), Err(Duration::from_secs(1)));
        }
        assert_eq!(limiter.admit(10, now + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn no_limit_lets_everything_through() {
        let now = Instant::now();
        let limiter = Limiter::new(Limits::default(), now);
        assert_eq!(limiter.admit(u64::MAX, now), Ok(()));
        assert_eq!(limiter.admit(u64::MAX, now), Ok(()));
    }

    #[test]
    fn an_alarm_goes_off_once_and_not_when_cleared() {
        let mut alarm = Alarm::new().unwrap();
        assert!(!alarm.has_gone_off());
        alarm.set(Duration::ZERO).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !alarm.has_gone_off() {
            assert!(Instant::now() < deadline, "it never went off");
            std::thread::yield_now();
        }
        assert!(!alarm.has_gone_off() && !alarm.is_set());
        alarm.set(Duration::from_secs(3600)).unwrap();
        assert!(alarm.is_set() && !alarm.has_gone_off());
        alarm.clear();
        assert!(!alarm.is_set() && !alarm.has_gone_off());
    }
}
