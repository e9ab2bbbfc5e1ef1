//! The HTTPS server. Its client is the API server, but anybody may connect: bodies, heads, times and numbers are bounded.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::admission::{Admission, RULES, Rule};

/// The API server sends objects of up to 1.5 MiB (etcd's limit), the old one beside the new one.
const BODY_MAX_BYTES: usize = 8 << 20;
/// Connections at once; the API server keeps a few and uses them again.
const CONNECTIONS_MAX: usize = 256;
/// For the handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves for ever.
pub async fn serve(
    listener: TcpListener,
    certificate: Arc<dyn ResolvesServerCert>,
    admission: Arc<Admission>,
) -> anyhow::Result<()> {
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let service = TowerToHyperService::new(router(admission));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors left, for example: it passes.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, service) = (acceptor.clone(), service.clone());
        tokio::spawn(async move {
            let _place = place;
            let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else {
                return;
            };
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(PATIENCE));
            // A peer that went away is its own affair.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn router(admission: Arc<Admission>) -> Router {
    let mut router = Router::new().route("/healthz", get(async || "ok"));
    for rule in RULES {
        let answer =
            move |State(admission): State<Arc<Admission>>, body: Bytes| review(admission, rule, body);
        router = router.route(rule.path, post(answer));
    }
    router.layer(DefaultBodyLimit::max(BODY_MAX_BYTES)).with_state(admission)
}

async fn review(admission: Arc<Admission>, rule: &'static Rule, body: Bytes) -> Response {
    match admission.review(rule, &body).await {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}
