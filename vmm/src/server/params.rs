//! What stands in the request's target: query and path, refused as problems.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use orlop_api::problem::{Problem, Reason};
use serde::de::DeserializeOwned;

use super::refused::Refused;

/// The query, as a `T`.
pub(super) struct InQuery<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|rejection| bad_request(rejection.body_text()))
    }
}

/// The variable part of the path, as a `T`.
pub(super) struct InPath<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value)).map_err(|rejection| bad_request(rejection.body_text()))
    }
}

fn bad_request(detail: String) -> Refused {
    Problem::new(Reason::BadRequest, detail).into()
}
