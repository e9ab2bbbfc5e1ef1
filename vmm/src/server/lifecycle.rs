//! What changes the machine: its life from creation to shutdown, balloon and cables.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use orlop_api::config::VmConfig;
use orlop_api::control::{BalloonTarget, DiskSize, LinkState};
use orlop_api::problem::Problem;
use orlop_api::state::VmInfo;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::body::Body;
use super::params::{InPath, InQuery};
use super::refused::Refused;

/// What may follow `/vm` in `PUT /vm`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateQuery {
    /// Start the machine as soon as it is built.
    #[serde(default)]
    #[param(required = false, default = false)]
    boot: bool,
}

/// The machine's state and configuration.
#[utoipa::path(get, path = "/vm", tag = "machine", responses(
    (status = 200, description = "State and configuration", body = VmInfo),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn info(State(api): State<Api>) -> Result<Json<VmInfo>, Refused> {
    Ok(Json(api.handle.info().await?))
}

/// Builds the machine from one complete configuration. What cannot be carried out is refused and nothing is left behind.
#[utoipa::path(put, path = "/vm", tag = "machine", params(CreateQuery), request_body = VmConfig, responses(
    (status = 201, description = "The machine is built, and runs if that was asked for", body = VmInfo),
    (status = 400, description = "The body is not a configuration", body = Problem,
        content_type = "application/problem+json"),
    (status = 408, description = "The body did not arrive in time", body = Problem,
        content_type = "application/problem+json"),
    (status = 409, description = "There is a machine already", body = Problem,
        content_type = "application/problem+json"),
    (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "The body is not declared as JSON", body = Problem,
        content_type = "application/problem+json"),
    (status = 422, description = "A value in the configuration cannot be: see `field`", body = Problem,
        content_type = "application/problem+json"),
    (status = 500, description = "The host lacks what the configuration names: see `field`", body = Problem,
        content_type = "application/problem+json"),
    (status = "default", description = "Another problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(api): State<Api>,
    InQuery(CreateQuery { boot }): InQuery<CreateQuery>,
    Body(config): Body<VmConfig>,
) -> Result<(StatusCode, Json<VmInfo>), Refused> {
    api.handle.create(config, boot).await?;
    Ok((StatusCode::CREATED, Json(api.handle.info().await?)))
}

/// Starts a machine that was created without starting.
#[utoipa::path(post, path = "/vm/boot", tag = "machine", responses(
    (status = 204, description = "The vCPUs run"),
    (status = 409, description = "The state does not allow it", body = Problem,
        content_type = "application/problem+json"),
    (status = "default", description = "Another problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn boot(State(api): State<Api>) -> Result<StatusCode, Refused> {
    api.handle.boot().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Halts the vCPUs and drains every device. When it is answered nothing touches guest memory any more.
#[utoipa::path(post, path = "/vm/pause", tag = "machine", responses(
    (status = 204, description = "The machine stands still"),
    (status = 409, description = "The state does not allow it", body = Problem,
        content_type = "application/problem+json"),
    (status = "default", description = "Another problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn pause(State(api): State<Api>) -> Result<StatusCode, Refused> {
    api.handle.pause().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a paused machine go on.
#[utoipa::path(post, path = "/vm/resume", tag = "machine", responses(
    (status = 204, description = "The machine runs"),
    (status = 409, description = "The state does not allow it", body = Problem,
        content_type = "application/problem+json"),
    (status = "default", description = "Another problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn resume(State(api): State<Api>) -> Result<StatusCode, Refused> {
    api.handle.resume().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Presses the power button. What follows is up to the guest.
#[utoipa::path(post, path = "/vm/power-button", tag = "machine", responses(
    (status = 204, description = "The button was pressed"),
    (status = 409, description = "The state does not allow it", body = Problem,
        content_type = "application/problem+json"),
    (status = "default", description = "Another problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn power_button(State(api): State<Api>) -> Result<StatusCode, Refused> {
    api.handle.power_button().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resets the machine in place, without asking the guest. A paused machine stays paused.
#[utoipa::path(post, path = "/vm/reset", tag = "machine", responses(
    (status = 204, description = "The machine is at its power-on state"),
    (status = 409, description = "The state does not allow it", body = Problem,
        content_type = "application/problem+json"),
    (status = "default", description = "Another problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn reset(State(api): State<Api>) -> Result<StatusCode, Refused> {
    api.handle.reset().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the machine and the process now, without asking the guest.
#[utoipa::path(post, path = "/vm/shutdown", tag = "machine", responses(
    (status = 204, description = "The machine is over; the process ends"),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn shutdown(State(api): State<Api>) -> Result<StatusCode, Refused> {
    api.handle.shutdown().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets how much memory the balloon is to take from the guest.
#[utoipa::path(put, path = "/vm/balloon", tag = "devices", request_body = BalloonTarget, responses(
    (status = 204, description = "The guest was told"),
    (status = 400, description = "The body is not a balloon target", body = Problem,
        content_type = "application/problem+json"),
    (status = 404, description = "The machine has no balloon", body = Problem,
        content_type = "application/problem+json"),
    (status = 409, description = "The state does not allow it", body = Problem,
        content_type = "application/problem+json"),
    (status = 415, description = "The body is not declared as JSON", body = Problem,
        content_type = "application/problem+json"),
    (status = 422, description = "The target is no multiple of 4096 or more than the guest has", body = Problem,
        content_type = "application/problem+json"),
    (status = "default", description = "Another problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn set_balloon(
    State(api): State<Api>,
    Body(BalloonTarget { target_bytes }): Body<BalloonTarget>,
) -> Result<StatusCode, Refused> {
    api.handle.set_balloon(target_bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Plugs the cable of a network card in or out.
#[utoipa::path(put, path = "/vm/devices/{id}/link", tag = "devices", request_body = LinkState,
    params(("id" = String, Path, description = "The network card's name")),
    responses(
        (status = 204, description = "The guest was told"),
        (status = 400, description = "The body is not a link state", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such network card", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The state does not allow it", body = Problem,
            content_type = "application/problem+json"),
        (status = 415, description = "The body is not declared as JSON", body = Problem,
            content_type = "application/problem+json"),
        (status = "default", description = "Another problem", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn set_link(
    State(api): State<Api>,
    InPath(id): InPath<String>,
    Body(LinkState { up }): Body<LinkState>,
) -> Result<StatusCode, Refused> {
    api.handle.set_link(&id, up).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a disk longer while the guest runs.
#[utoipa::path(put, path = "/vm/devices/{id}/size", tag = "devices", request_body = DiskSize,
    params(("id" = String, Path, description = "The disk's name")),
    responses(
        (status = 204, description = "The disk is longer, and the guest was told"),
        (status = 400, description = "The body is not a size", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such disk", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The state does not allow it", body = Problem,
            content_type = "application/problem+json"),
        (status = 415, description = "The body is not declared as JSON", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "The disk cannot have this size", body = Problem,
            content_type = "application/problem+json"),
        (status = "default", description = "Another problem", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn set_size(
    State(api): State<Api>,
    InPath(id): InPath<String>,
    Body(DiskSize { size_bytes }): Body<DiskSize>,
) -> Result<StatusCode, Refused> {
    api.handle.set_size(&id, size_bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}
