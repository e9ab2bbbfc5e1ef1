//! Problem documents: how every refusal and failure is answered (RFC 9457).

use axum::Json;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use orlop_api::BASE;
use orlop_api::problem::{PROBLEM_JSON, Problem, Reason};

use crate::machine::Refusal;

/// A request that is answered with a problem.
#[derive(Debug)]
pub(super) struct Refused(Box<Problem>);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let sentence = refusal.to_string();
        match refusal {
            Refusal::NotAllowed { state, .. } => {
                Problem::new(Reason::NotInThisState, sentence).with_state(state)
            }
            Refusal::Invalid { field, detail } => blame(Problem::new(Reason::Invalid, detail), field),
            Refusal::NotFound { .. } => Problem::new(Reason::NoSuchDevice, sentence),
            Refusal::Locked { .. } => Problem::new(Reason::MediumLocked, sentence),
            Refusal::Unsupported { .. } => Problem::new(Reason::NotConfigured, sentence),
            Refusal::Host { field, detail, .. } => blame(Problem::new(Reason::HostFailure, detail), field),
            Refusal::Gone => Problem::new(Reason::Ended, sentence),
        }
        .into()
    }
}

fn blame(problem: Problem, field: Option<String>) -> Problem {
    match field {
        Some(field) => problem.with_field(field),
        None => problem,
    }
}

impl IntoResponse for Refused {
    /// The status, with the problem as an extension: [`finish`] knows the request's path and writes the document.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// Answers a path that is not there.
pub(super) async fn no_such_path(uri: Uri) -> Refused {
    let path = uri.path();
    let detail = format!("there is no {path}: GET {BASE}/openapi.json describes what there is");
    Problem::new(Reason::NoSuchPath, detail).into()
}

/// Answers a method that a path does not have; the `Allow` header names those it has.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Refused {
    let detail = format!("{} does not take {method}: see the Allow header", uri.path());
    Problem::new(Reason::MethodNotAllowed, detail).into()
}

/// Writes the problem document of a response that carries a problem.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Box<Problem>>() else {
        return response;
    };
    let mut answer = (response.status(), Json(problem.at(path))).into_response();
    // What was set beside the problem, for example `Allow` and `Upgrade`.
    let headers = response.headers().iter().map(|(name, value)| (name.clone(), value.clone()));
    answer.headers_mut().extend(headers.filter(|(name, _)| name != axum::http::header::CONTENT_LENGTH));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    answer
}
