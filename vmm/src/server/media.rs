//! Media that come and go.

use axum::extract::State;
use axum::http::StatusCode;
use orlop_api::control::Medium;
use orlop_api::problem::Problem;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::body::Body;
use super::params::{InPath, InQuery};
use super::refused::Refused;

/// What may follow `DELETE /vm/devices/{id}/medium`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct EjectQuery {
    /// Open the tray even where the guest has locked it.
    #[serde(default)]
    #[param(required = false, default = false)]
    force: bool,
}

/// Puts a medium into a CD-ROM drive, in place of what was there, and closes its tray.
#[utoipa::path(put, path = "/vm/devices/{id}/medium", tag = "devices", request_body = Medium,
    params(("id" = String, Path, description = "The drive's name")),
    responses(
        (status = 204, description = "The medium is in; the guest finds it when it looks"),
        (status = 400, description = "The body names no medium", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such device", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "It is no drive, the guest has locked its tray, or the state does not allow it",
            body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not declared as JSON", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "The image is no medium for a drive", body = Problem,
            content_type = "application/problem+json"),
        (status = "default", description = "Another problem", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn insert(
    State(api): State<Api>,
    InPath(id): InPath<String>,
    Body(Medium { fd }): Body<Medium>,
) -> Result<StatusCode, Refused> {
    api.handle.insert(&id, &fd).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Opens the tray of a CD-ROM drive and takes the medium, which is let go of. Where the guest has locked the tray it is
/// asked to let go instead, which most guests do soon; try again, or force it.
#[utoipa::path(delete, path = "/vm/devices/{id}/medium", tag = "devices",
    params(("id" = String, Path, description = "The drive's name"), EjectQuery),
    responses(
        (status = 204, description = "The tray is open and empty"),
        (status = 404, description = "There is no such device", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "It is no drive, the guest has locked its tray, or the state does not allow it",
            body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Another problem", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn eject(
    State(api): State<Api>,
    InPath(id): InPath<String>,
    InQuery(EjectQuery { force }): InQuery<EjectQuery>,
) -> Result<StatusCode, Refused> {
    api.handle.eject(&id, force).await?;
    Ok(StatusCode::NO_CONTENT)
}
