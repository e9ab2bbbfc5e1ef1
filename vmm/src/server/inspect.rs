//! What only looks: devices, vCPUs, the log, the version, the description of this API.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use orlop_api::device::DeviceInfo;
use orlop_api::problem::Problem;
use orlop_api::state::Version;
use orlop_api::vcpu::VcpuInfo;

use super::Api;
use super::refused::Refused;

/// Every device with its address, counters and queues; none before the machine is created.
#[utoipa::path(get, path = "/vm/devices", tag = "devices", responses(
    (status = 200, description = "The devices", body = Vec<DeviceInfo>),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn devices(State(api): State<Api>) -> Result<Json<Vec<DeviceInfo>>, Refused> {
    Ok(Json(api.handle.devices().await?))
}

/// Every vCPU with its exits by reason; none before the machine is created.
#[utoipa::path(get, path = "/vm/vcpus", tag = "devices", responses(
    (status = 200, description = "The vCPUs", body = Vec<VcpuInfo>),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn vcpus(State(api): State<Api>) -> Result<Json<Vec<VcpuInfo>>, Refused> {
    Ok(Json(api.handle.vcpus().await?))
}

/// What is kept of the serial port's output, as bytes.
#[utoipa::path(get, path = "/vm/log", tag = "console", responses(
    (status = 200, description = "The bytes", content_type = "application/octet-stream", body = Vec<u8>),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn log(State(api): State<Api>) -> ([(HeaderName, &'static str); 1], Vec<u8>) {
    let (_, bytes) = api.handle.console().backlog();
    ([(CONTENT_TYPE, "application/octet-stream")], bytes)
}

/// The program and its version.
#[utoipa::path(get, path = "/version", tag = "process", responses(
    (status = 200, description = "The version", body = Version),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn version() -> Json<Version> {
    Json(Version {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
    })
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "process", responses(
    (status = 200, description = "An OpenAPI 3.1 document", body = serde_json::Value),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(super::document())
}
