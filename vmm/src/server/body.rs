//! JSON bodies: bounded in size and time, with the path of what is wrong in them.

use std::time::Duration;

use axum::body::Body as RawBody;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use orlop_api::BODY_MAX_BYTES;
use orlop_api::problem::{Problem, Reason};
use serde::de::DeserializeOwned;

use super::refused::Refused;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that is a `T`.
pub(super) struct Body<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        check_content_type(request.headers())?;
        let bytes = match tokio::time::timeout(BODY_TIMEOUT, read(request.into_body())).await {
            Ok(bytes) => bytes?,
            Err(_) => {
                let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
                return Err(Problem::new(Reason::RequestTimeout, detail).into());
            }
        };
        parse(&bytes).map(Self)
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refused> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let given = if given.is_empty() { "nothing" } else { given };
    let detail = format!("the body must be declared with 'Content-Type: application/json', not {given}");
    Err(Problem::new(Reason::UnsupportedMediaType, detail).into())
}

async fn read(body: RawBody) -> Result<Vec<u8>, Refused> {
    let collected = Limited::new(body, BODY_MAX_BYTES).collect().await;
    let body = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Problem::new(Reason::BodyTooLarge, format!("the body is larger than {BODY_MAX_BYTES} bytes"))
        } else {
            Problem::new(Reason::BadRequest, format!("the body cannot be read: {error}"))
        }
    })?;
    Ok(body.to_bytes().into())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        let problem = Problem::new(Reason::BadBody, error.to_string());
        // What is not JSON has no fields; "." is the whole.
        if error.is_data() && path != "." { problem.with_field(path) } else { problem }
    })?;
    json.end().map_err(|error| Problem::new(Reason::BadBody, error.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use orlop_api::config::VmConfig;
    use orlop_api::control::LinkState;

    use super::*;

    fn field_of(json: &str) -> Option<String> {
        use axum::response::IntoResponse;
        let refused = parse::<VmConfig>(json.as_bytes()).expect_err("it is wrong");
        let mut response = refused.into_response();
        response.extensions_mut().remove::<Box<Problem>>().expect("a problem").field
    }

    #[test]
    fn the_path_of_a_bad_field_is_named() {
        let json = r#"{"name":"a","memory":{"size_bytes":1048576},"boot":{"kernel":{"kernel":{"path":"/k"}}},
                       "disks":[{"id":"a","source":{"path":"/d"},"queue_size":"big"}]}"#;
        assert_eq!(field_of(json).as_deref(), Some("disks[0].queue_size"));
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_path() {
        let json = r#"{"name":"a","memory":{"size_bytes":1048576,"sise":1}}"#;
        assert_eq!(field_of(json).as_deref(), Some("memory.sise"));
    }

    #[test]
    fn what_is_not_json_blames_no_field() {
        assert_eq!(field_of("{"), None);
    }

    #[test]
    fn nothing_may_follow_the_value() {
        assert!(parse::<LinkState>(br#"{"up":true} x"#).is_err());
        assert!(parse::<LinkState>(br#"{"up":true} "#).is_ok());
    }
}
