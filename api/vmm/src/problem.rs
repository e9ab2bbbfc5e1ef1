//! What went wrong with a request (RFC 9457).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::state::VmState;

/// The content type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A refused or failed request (RFC 9457 §3): the body of every answer whose status is 400 or above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A name for this kind of problem (RFC 9457 §3.1.1): `urn:orlop:problem:` and the reason.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem it is, for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time, and what to do.
    pub detail: String,
    /// The path of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What kind of problem it is, for programs: stable.
    pub reason: Reason,
    /// The field of the body that is to blame, as a path: `disks[0].queue_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The state that does not allow the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
}

/// What kind of problem it is. Names stay; some may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The request is not HTTP as it should be, or a header or query of it makes no sense.
    BadRequest,
    /// The body is not JSON, or not of the type that this path takes.
    BadBody,
    /// There is no such path.
    NoSuchPath,
    /// There is no such device.
    NoSuchDevice,
    /// The path is there, but not with this method.
    MethodNotAllowed,
    /// The body took too long to arrive.
    RequestTimeout,
    /// The state of the machine does not allow this; see `state`.
    NotInThisState,
    /// The body is larger than 1 MiB.
    BodyTooLarge,
    /// The body is not declared as `application/json`.
    UnsupportedMediaType,
    /// The body is well formed, but what it asks for cannot be; see `field`.
    Invalid,
    /// The connection must be upgraded: the answer of `GET /vm/console` without `Upgrade`.
    UpgradeRequired,
    /// The machine lacks the device that this needs.
    NotConfigured,
    /// The guest has locked the tray of this drive.
    MediumLocked,
    /// The host failed: a file is missing, memory is short, KVM refused; see `field` where one is to blame.
    HostFailure,
    /// The machine ended before it could answer.
    Ended,
    /// Too many readers of this kind already.
    TooManyReaders,
}

impl Reason {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::BadBody => "bad_body",
            Self::NoSuchPath => "no_such_path",
            Self::NoSuchDevice => "no_such_device",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::NotInThisState => "not_in_this_state",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Invalid => "invalid",
            Self::UpgradeRequired => "upgrade_required",
            Self::NotConfigured => "not_configured",
            Self::MediumLocked => "medium_locked",
            Self::HostFailure => "host_failure",
            Self::Ended => "ended",
            Self::TooManyReaders => "too_many_readers",
        }
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::BadBody => 400,
            Self::NoSuchPath | Self::NoSuchDevice => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::NotInThisState | Self::NotConfigured | Self::MediumLocked => 409,
            Self::BodyTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::UpgradeRequired => 426,
            Self::HostFailure => 500,
            Self::Ended | Self::TooManyReaders => 503,
        }
    }

    /// What kind of problem it is, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request makes no sense",
            Self::BadBody => "The body is not what this path takes",
            Self::NoSuchPath => "There is no such path",
            Self::NoSuchDevice => "There is no such device",
            Self::MethodNotAllowed => "This path has no such method",
            Self::RequestTimeout => "The request took too long to arrive",
            Self::NotInThisState => "The state of the machine does not allow this",
            Self::BodyTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body must be JSON",
            Self::Invalid => "What the body asks for cannot be",
            Self::UpgradeRequired => "The connection must be upgraded",
            Self::MediumLocked => "The guest has locked the tray",
            Self::NotConfigured => "The machine has no such device",
            Self::HostFailure => "The host failed",
            Self::Ended => "The machine ended",
            Self::TooManyReaders => "Too many readers",
        }
    }
}

impl Problem {
    /// A problem of kind `reason`, described by `detail`.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:orlop:problem:{}", reason.name()),
            title: reason.title().to_owned(),
            status: reason.status(),
            detail: detail.into(),
            instance: None,
            reason,
            field: None,
            state: None,
        }
    }

    /// The same, blaming `field`.
    pub fn with_field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// The same, naming the state that is in the way.
    pub fn with_state(self, state: VmState) -> Self {
        Self { state: Some(state), ..self }
    }

    /// The same, for a request to `path`.
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { instance: Some(path.into()), ..self }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_carries_its_members_by_their_standard_names() {
        let problem = Problem::new(Reason::NotInThisState, "cannot pause: it is paused")
            .with_state(VmState::Paused)
            .at("/api/v1/vm/pause");
        let json = serde_json::to_value(&problem).expect("plain data");
        assert_eq!(json["type"], "urn:orlop:problem:not_in_this_state");
        assert_eq!(json["status"], 409);
        assert_eq!(json["reason"], "not_in_this_state");
        assert_eq!(json["state"], "paused");
        assert_eq!(json["instance"], "/api/v1/vm/pause");
        assert!(json.get("field").is_none());
    }

    #[test]
    fn the_name_of_a_reason_is_what_is_on_the_wire() {
        for reason in [Reason::BadBody, Reason::NotInThisState, Reason::TooManyReaders, Reason::HostFailure] {
            assert_eq!(serde_json::to_value(reason).expect("plain data"), reason.name());
        }
    }
}
