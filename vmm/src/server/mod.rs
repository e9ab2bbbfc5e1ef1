//! The REST API over a unix socket.
//!
//! ```text
//!   client ── unix socket ── connection task ── router ── handler ── Handle ── driver of the machine
//!                            (bounded in number, in size and in time)
//! ```
//!
//! Handlers translate and nothing else: what is allowed in which state is the machine's policy, and a handler turns its
//! [`Refusal`](crate::machine::Refusal) into a problem document. A client can cost the guest nothing: it is served on one
//! thread of its own, streams read from bounded rings at their own pace, and whoever stalls is dropped.

mod body;
mod connection;
mod console;
mod events;
mod inspect;
mod lifecycle;
mod media;
mod metrics;
mod params;
mod refused;
mod socket;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::machine::Handle;
use orlop_api::BASE;
use orlop_api::problem::{Problem, Reason};

use refused::Refused;

pub use connection::serve;
pub use socket::{Socket, SocketError};

/// How many clients may follow events or the console at a time: half of the connections, so that the others are served.
const STREAMS_MAX: u32 = 32;

/// What every handler has.
#[derive(Clone)]
struct Api {
    handle: Handle,
    streams: Arc<Semaphore>,
}

impl Api {
    fn new(handle: Handle) -> Self {
        Self { handle, streams: Arc::new(Semaphore::new(STREAMS_MAX as usize)) }
    }

    /// A place among the streams, for as long as the permit is held.
    fn stream(&self) -> Result<OwnedSemaphorePermit, Refused> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let detail =
                format!("{STREAMS_MAX} clients follow events or the console already: close one of them");
            Problem::new(Reason::TooManyReaders, detail).into()
        })
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Orlop VMM",
        description = "One process, one virtual machine. Spoken over a unix socket, as HTTP/1.1. Every refused or \
                       failed request is answered with an RFC 9457 problem document whose `reason` is stable; only what \
                       is not HTTP at all, or has a head larger than 64 KiB, gets a bare status."
    ),
    tags(
        (name = "machine", description = "The machine and its life"),
        (name = "console", description = "The serial port"),
        (name = "devices", description = "What is in the machine"),
        (name = "process", description = "What happened, and the process itself"),
    )
)]
struct Described;

/// Every route with its description.
fn routes() -> OpenApiRouter<Api> {
    let below_base = OpenApiRouter::new()
        .routes(routes!(lifecycle::info, lifecycle::create))
        .routes(routes!(lifecycle::boot))
        .routes(routes!(lifecycle::pause))
        .routes(routes!(lifecycle::resume))
        .routes(routes!(lifecycle::power_button))
        .routes(routes!(lifecycle::reset))
        .routes(routes!(lifecycle::shutdown))
        .routes(routes!(console::attach))
        .routes(routes!(inspect::log))
        .routes(routes!(inspect::devices))
        .routes(routes!(inspect::vcpus))
        .routes(routes!(lifecycle::set_balloon))
        .routes(routes!(lifecycle::set_link))
        .routes(routes!(media::insert, media::eject))
        .routes(routes!(lifecycle::set_size))
        .routes(routes!(events::follow))
        .routes(routes!(metrics::scrape))
        .routes(routes!(inspect::version))
        .routes(routes!(inspect::openapi));
    OpenApiRouter::with_openapi(Described::openapi()).nest(BASE, below_base)
}

/// The OpenAPI document of this API.
pub fn document() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// The routes, and problem documents for everything else.
fn router(api: Api) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(refused::no_such_path)
        .method_not_allowed_fallback(refused::method_not_allowed)
        .layer(middleware::from_fn(refused::finish))
        .with_state(api)
}
