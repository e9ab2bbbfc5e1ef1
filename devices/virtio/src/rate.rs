//! A token bucket: how much a device may do, in bytes or in operations.
//!
//! The bucket refills steadily and holds at most its burst. Something larger than the bucket is let through when the
//! bucket is full, and leaves a debt that later time pays: large requests are slowed down, never stuck.

use std::time::{Duration, Instant};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A limit: how much per second, and how much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Tokens per second: bytes or operations, as whoever holds it says.
    pub per_second: u64,
    /// How many may be saved up while idle; a second's worth when absent.
    pub burst: Option<u64>,
}

/// A token bucket. Pure: the time is passed in.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: u64,
    burst: u64,
    /// What is there, in tokens times [`NANOS_PER_SECOND`]: nothing is lost to rounding. Negative is a debt.
    level: i128,
    refilled: Instant,
}

impl TokenBucket {
    /// A full bucket that gains `per_second` tokens per second and holds `burst`, or a second's worth. A rate or a
    /// burst of zero counts as one: a limit slows down, it never blocks for good.
    pub fn new(per_second: u64, burst: Option<u64>, now: Instant) -> Self {
        let per_second = per_second.max(1);
        let burst = burst.unwrap_or(per_second).max(1);
        Self { per_second, burst, level: scaled(burst), refilled: now }
    }

    /// A full bucket for `limit`.
    pub fn of(limit: RateLimit, now: Instant) -> Self {
        Self::new(limit.per_second, limit.burst, now)
    }

    /// Takes `tokens` if they are there, or if the bucket is full. Otherwise takes nothing and says after how long to
    /// ask again.
    pub fn take(&mut self, tokens: u64, now: Instant) -> Result<(), Duration> {
        self.refill(now);
        let wanted = scaled(tokens);
        let enough = wanted.min(scaled(self.burst));
        if self.level >= enough {
            self.level = self.level.saturating_sub(wanted);
            return Ok(());
        }
        let missing = enough.saturating_sub(self.level).unsigned_abs();
        let nanos = missing.div_ceil(u128::from(self.per_second));
        Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Gives back tokens of something that was taken but did not happen.
    pub fn give_back(&mut self, tokens: u64) {
        self.level = self.level.saturating_add(scaled(tokens)).min(scaled(self.burst));
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled);
        self.refilled = self.refilled.max(now);
        let gained = elapsed.as_nanos().saturating_mul(u128::from(self.per_second));
        let gained = i128::try_from(gained).unwrap_or(i128::MAX);
        self.level = self.level.saturating_add(gained).min(scaled(self.burst));
    }
}

fn scaled(tokens: u64) -> i128 {
    i128::try_from(u128::from(tokens) * NANOS_PER_SECOND).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_goes_at_once_and_the_rest_waits() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100, Some(50), start);
        assert_eq!(bucket.take(50, start), Ok(()));
        assert_eq!(bucket.take(10, start), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(10, start + Duration::from_millis(99)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(10, start + Duration::from_millis(100)), Ok(()));
    }

    #[test]
    fn idle_time_saves_up_no_more_than_the_burst() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100, None, start);
        assert_eq!(bucket.take(100, start + 1000 * SECOND), Ok(()));
        assert!(bucket.take(1, start + 1000 * SECOND).is_err());
    }

    #[test]
    fn a_request_larger_than_the_bucket_goes_into_debt() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100, Some(10), start);
        assert_eq!(bucket.take(1010, start), Ok(()));
        assert_eq!(bucket.take(10, start), Err(Duration::from_millis(10_100)));
        assert_eq!(bucket.take(10, start + Duration::from_millis(10_100)), Ok(()));
    }

    #[test]
    fn what_did_not_happen_is_given_back() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100, Some(10), start);
        assert_eq!(bucket.take(10, start), Ok(()));
        bucket.give_back(25);
        assert_eq!(bucket.take(10, start), Ok(()));
        assert!(bucket.take(1, start).is_err());
    }

    #[test]
    fn zero_tokens_are_always_there_unless_in_debt() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(0, Some(0), start);
        assert_eq!(bucket.take(0, start), Ok(()));
        assert_eq!(bucket.take(2, start), Ok(()));
        assert_eq!(bucket.take(0, start), Err(SECOND));
    }

    proptest! {
        #[test]
        fn waiting_as_told_is_enough_and_the_rate_holds(
            per_second in 1u64..1_000_000_000,
            burst in 1u64..1_000_000_000,
            requests in prop::collection::vec(0u64..10_000_000_000, 1..50),
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(per_second, Some(burst), start);
            let (mut now, mut total, mut last) = (start, 0u128, 0);
            for tokens in requests {
                if let Err(wait) = bucket.take(tokens, now) {
                    now += wait;
                    prop_assert_eq!(bucket.take(tokens, now), Ok(()));
                }
                total += u128::from(tokens);
                last = tokens;
            }
            // Beyond the burst and the debt of the last request, everything was paid by time.
            let paid = (now - start).as_nanos() * u128::from(per_second) / NANOS_PER_SECOND;
            prop_assert!(total <= paid + u128::from(burst) + u128::from(last) + 1);
        }

        #[test]
        fn no_value_overflows(rate in any::<u64>(), burst in any::<u64>(), tokens in any::<u64>(), later in any::<u32>()) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(rate, Some(burst), start);
            let _ = bucket.take(tokens, start + Duration::from_secs(later.into()));
            bucket.give_back(u64::MAX);
            let _ = bucket.take(tokens, start);
        }
    }
}
