//! What happened to the machine, in order: a bounded log that any number of readers follow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use orlop_api::event::{Event, EventKind};
use tokio::sync::Notify;

/// How many events are kept for readers that come later.
pub const EVENTS_KEPT: usize = 256;

#[derive(Default)]
struct Log {
    events: Mutex<VecDeque<Event>>,
    news: Notify,
}

/// The log. Clones share it.
#[derive(Clone, Default)]
pub struct EventLog(Arc<Log>);

impl EventLog {
    /// Appends `what` with the time of now, forgetting the oldest event when the log is full. From any thread; never
    /// waits for a reader.
    pub fn post(&self, what: EventKind) {
        {
            let mut events = lock(&self.0.events);
            let seq = events.back().map_or(1, |e| e.seq + 1);
            if events.len() == EVENTS_KEPT {
                events.pop_front();
            }
            events.push_back(Event { seq, time_unix_ms: now_unix_ms(), what });
        }
        self.0.news.notify_waiters();
    }

    /// A reader of every event after number `seq`; 0 starts with the oldest one kept.
    pub fn subscribe_after(&self, seq: u64) -> EventReader {
        EventReader { log: Arc::clone(&self.0), after: seq }
    }
}

/// One reader's place in the log. Where it fell behind, [`Event::seq`] has a gap.
pub struct EventReader {
    log: Arc<Log>,
    after: u64,
}

impl EventReader {
    /// The next event, as soon as there is one. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Event {
        loop {
            let log = Arc::clone(&self.log);
            let news = log.news.notified();
            if let Some(event) = self.try_next() {
                return event;
            }
            news.await;
        }
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        let event = lock(&self.log.events).iter().find(|e| e.seq > self.after).cloned()?;
        self.after = event.seq;
        Some(event)
    }
}

/// Milliseconds since 1970-01-01 UTC; 0 when the host's clock is before that.
pub(super) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readers_follow_from_where_they_ask() {
        let log = EventLog::default();
        log.post(EventKind::Booted);
        log.post(EventKind::Paused);
        let mut all = log.subscribe_after(0);
        assert_eq!(all.next().await.what, EventKind::Booted);
        assert_eq!(all.next().await.what, EventKind::Paused);
        let mut late = log.subscribe_after(2);
        assert_eq!(late.try_next(), None);
        let (event, ()) = tokio::join!(late.next(), async { log.post(EventKind::Resumed) });
        assert_eq!((event.seq, event.what), (3, EventKind::Resumed));
    }

    #[test]
    fn a_full_log_forgets_the_oldest_and_the_gap_shows() {
        let log = EventLog::default();
        for _ in 0..EVENTS_KEPT + 5 {
            log.post(EventKind::PowerButton);
        }
        assert_eq!(log.subscribe_after(0).try_next().map(|e| e.seq), Some(6));
    }
}
