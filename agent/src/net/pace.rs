//! How often a server answers: a flood of questions is a flood of answers otherwise. Pure: the time is passed in.

use std::time::{Duration, Instant};

/// Answers that may follow each other at once.
const BURST: u32 = 16;
/// How long until one more may.
const INTERVAL: Duration = Duration::from_millis(100);

/// Counts answers.
#[derive(Debug, Clone)]
pub struct Pace {
    left: u32,
    counted: Instant,
}

impl Pace {
    /// As much as may ever be, at `now`.
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, counted: now }
    }

    /// Whether one more answer may go at `now`; it counts if so.
    pub fn allows(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted);
        let more = u32::try_from(passed.as_nanos() / INTERVAL.as_nanos()).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.counted = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_answered_a_little_and_the_next_guest_is_answered_again() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let answered = (0..10_000).filter(|_| pace.allows(start)).count();
        assert_eq!(answered, usize::try_from(BURST).unwrap());
        assert!(!pace.allows(start + INTERVAL / 2));
        assert!(pace.allows(start + INTERVAL * 2));
        let second = (1..=1000).filter(|ms| pace.allows(start + INTERVAL * 2 + Duration::from_millis(*ms)));
        assert!((9..=11).contains(&second.count()));
    }
}
