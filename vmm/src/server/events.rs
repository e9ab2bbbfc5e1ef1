//! `GET /events`: what happens, as server-sent events (WHATWG HTML §9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use orlop_api::event::{Event, EventKind};
use orlop_api::problem::{Problem, Reason};
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::refused::Refused;
use crate::machine::{EventReader, Handle};

/// How often a silent stream shows that it lives, so that a peer which is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What happens to the machine, event after event, until it is over. Starts after the event that `Last-Event-ID` names,
/// otherwise with the oldest that is kept.
#[utoipa::path(get, path = "/events", tag = "process",
    params(("Last-Event-ID" = Option<u64>, Header, description = "Number of the last event that the client saw")),
    responses(
        (status = 200, description = "Server-sent events: `id` is the number, `event` the kind, `data` an Event",
            body = Event, content_type = "text/event-stream"),
        (status = 400, description = "Last-Event-ID is not a number", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "Too many clients follow already", body = Problem,
            content_type = "application/problem+json"),
        (status = "default", description = "Another problem", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn follow(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, Refused> {
    let follower = Follower::new(&api.handle, last_event_id(&headers)?, api.stream()?);
    let events = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((Ok(sent(&event)), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn last_event_id(headers: &HeaderMap) -> Result<u64, Refused> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(0);
    };
    value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
        Problem::new(Reason::BadRequest, "Last-Event-ID must be the number of an event").into()
    })
}

fn sent(event: &Event) -> Sent {
    // Plain data: numbers and strings always become JSON.
    let data = serde_json::to_string(event).unwrap_or_default();
    Sent::default().id(event.seq.to_string()).event(event.what.name()).data(data)
}

/// One client's place in the log of events.
struct Follower {
    handle: Handle,
    reader: EventReader,
    /// Number of the last event that was sent; 0 before the first of a client that asked for all.
    last: u64,
    /// What waits behind a note about a gap.
    held: Option<Event>,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    fn new(handle: &Handle, last: u64, permit: OwnedSemaphorePermit) -> Self {
        // A number that was never given comes from the client of another process: it starts anew.
        let mut probe = handle.events().subscribe_after(last.saturating_sub(1));
        let last = if last == 0 || probe.try_next().is_some() { last } else { 0 };
        let reader = handle.events().subscribe_after(last);
        Self { handle: handle.clone(), reader, last, held: None, over: false, _permit: permit }
    }

    /// The next event to send; `None` when the machine is over.
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.held.take() {
            return Some(self.pass(event));
        }
        if self.over {
            return None;
        }
        let event = tokio::select! {
            event = self.reader.next() => event,
            _ = self.handle.stopped() => self.reader.try_next()?,
        };
        if self.last > 0 && event.seq > self.last + 1 {
            let events = event.seq - self.last - 1;
            let note = Event {
                seq: event.seq - 1,
                time_unix_ms: event.time_unix_ms,
                what: EventKind::Lost { events },
            };
            self.held = Some(event);
            return Some(note);
        }
        Some(self.pass(event))
    }

    fn pass(&mut self, event: Event) -> Event {
        self.last = event.seq;
        self.over = event.what.is_last();
        event
    }
}
