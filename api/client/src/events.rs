//! The stream of events: server-sent events (WHATWG HTML §9.2), as far as this API uses them.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use orlop_api::event::Event;

use crate::connection::{self, Answer};
use crate::{Client, Error};

/// The longest line that is taken: an event is far shorter.
const LINE_MAX_BYTES: usize = 64 << 10;

/// What happens to the machine, event after event.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    lines: Lines,
}

impl Events {
    pub(crate) async fn follow(client: &Client, after: u64) -> Result<Self, Error> {
        let last = after.to_string();
        let headers = [("accept", "text/event-stream"), ("last-event-id", last.as_str())];
        client
            .bounded("event stream", async {
                let connection = connection::open(client.socket()).await?;
                let response = connection.send(Method::GET, "/events", None, &headers).await?;
                if response.status() != StatusCode::OK {
                    let status = response.status();
                    Answer::read(response).await?.success()?;
                    return Err(Error::Unexpected(format!("status {status} instead of 200 for the events")));
                }
                Ok(Self { body: response.into_body(), lines: Lines::default() })
            })
            .await
    }

    /// The next event; `None` when the machine is over and its last event was read. May be dropped and called again
    /// without loss. An event of a kind that this client does not know is skipped.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            while let Some(line) = self.lines.next() {
                if let Some(event) = parse(&line) {
                    return Ok(Some(event));
                }
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.lines.push(&data)?;
            }
        }
    }
}

/// The event in a `data:` line, which holds one complete event in this API.
fn parse(line: &[u8]) -> Option<Event> {
    let data = line.strip_prefix(b"data:")?;
    serde_json::from_slice(data).ok()
}

/// Bytes as they come, lines as they are complete.
#[derive(Debug, Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    fn push(&mut self, data: &Bytes) -> Result<(), Error> {
        self.pending.extend_from_slice(data);
        let unfinished = self.pending.iter().rev().take_while(|byte| **byte != b'\n').count();
        if unfinished > LINE_MAX_BYTES {
            return Err(Error::Unexpected("an event longer than 64 KiB".to_owned()));
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.pending.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.pending.drain(..=end).collect();
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use orlop_api::event::EventKind;

    use super::*;

    #[test]
    fn an_event_may_arrive_in_pieces() {
        let mut lines = Lines::default();
        let whole = b"id:1\nevent:booted\ndata:{\"seq\":1,\"time_unix_ms\":5,\"kind\":\"booted\"}\n\n:\n\n";
        let mut events = Vec::new();
        for piece in whole.chunks(7) {
            lines.push(&Bytes::copy_from_slice(piece)).expect("short lines");
            while let Some(line) = lines.next() {
                events.extend(parse(&line));
            }
        }
        assert_eq!(events, [Event { seq: 1, time_unix_ms: 5, what: EventKind::Booted }]);
    }

    #[test]
    fn a_kind_from_the_future_is_skipped() {
        assert_eq!(parse(br#"data: {"seq":1,"time_unix_ms":5,"kind":"teleported"}"#), None);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines::default();
        assert!(lines.push(&Bytes::from(vec![b'x'; LINE_MAX_BYTES + 1])).is_err());
    }
}
