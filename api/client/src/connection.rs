//! One HTTP/1.1 connection over a unix socket, for one request.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use orlop_api::BASE;
use orlop_api::problem::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::Error;

/// The largest answer that is read into memory: the longest backlog of a serial port and then some.
const ANSWER_MAX_BYTES: usize = 32 << 20;

/// A request's body and what it is.
#[derive(Debug, Clone)]
pub struct Body {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their media type.
    pub content_type: &'static str,
}

impl Body {
    /// `value` as JSON.
    pub fn json(value: &impl Serialize) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(value).map_err(|error| Error::Request(error.to_string()))?;
        Ok(Self { bytes, content_type: "application/json" })
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The media type, empty when the VMM gave none.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Reads `response` to its end.
    pub(crate) async fn read(response: Response<Incoming>) -> Result<Self, Error> {
        let (parts, body) = response.into_parts();
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
        let body =
            body.map_err(|error| Error::Unexpected(format!("its body cannot be read: {error}")))?.to_bytes();
        Ok(Self { status: parts.status, content_type, body })
    }

    /// The answer if it says yes, an error with its problem otherwise.
    pub fn success(self) -> Result<Self, Error> {
        if self.status.is_success() {
            return Ok(self);
        }
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => Err(Error::Problem(Box::new(problem))),
            Err(_) => Err(Error::Unexpected(format!("status {} without a problem document", self.status))),
        }
    }

    /// The body as a value.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Unexpected(error.to_string()))
    }

    /// The body as text.
    pub fn text(self) -> Result<String, Error> {
        String::from_utf8(self.body.into()).map_err(|error| Error::Unexpected(error.to_string()))
    }
}

/// A connection that was opened, ready for its request.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

/// Connects to `socket`. The connection is driven by a task of its own, which ends with it.
pub(crate) async fn open(socket: &Path) -> Result<Connection, Error> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|source| Error::Connect { socket: socket.to_owned(), source })?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    // What breaks the connection reaches the caller through the request; the task has nobody to tell.
    tokio::spawn(driver.with_upgrades());
    Ok(Connection { sender })
}

impl Connection {
    /// Sends a request for `path` below the API's base and waits for the head of the answer.
    pub(crate) async fn send(
        mut self,
        method: Method,
        path: &str,
        body: Option<Body>,
        headers: &[(&'static str, &str)],
    ) -> Result<Response<Incoming>, Error> {
        let mut request =
            Request::builder().method(method).uri(format!("{BASE}{path}")).header(HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, body.content_type);
                body.bytes
            }
            None => Vec::new(),
        };
        let request = request.body(Full::from(bytes)).map_err(|error| Error::Request(error.to_string()))?;
        Ok(self.sender.send_request(request).await?)
    }
}

/// `segment` as one segment of a path (RFC 3986 §3.3): what is not unreserved is percent-encoded.
pub(crate) fn encode_segment(segment: &str) -> String {
    let mut encoded = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_segment() {
        assert_eq!(encode_segment("net-0.a_b~"), "net-0.a_b~");
        assert_eq!(encode_segment("a/../b?c ü"), "a%2F..%2Fb%3Fc%20%C3%BC");
    }
}
