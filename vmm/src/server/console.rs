//! `GET /vm/console`: the serial port as a raw byte stream, for several readers at once.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use orlop_api::CONSOLE_PROTOCOL;
use orlop_api::problem::{Problem, Reason};
use orlop_api::state::VmState;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Api;
use super::refused::Refused;
use crate::machine::{Chunk, Console, ConsoleReader, Handle};

/// How long the guest may refuse to take input before the one who types is dropped.
const INPUT_STALL: Duration = Duration::from_secs(60);

/// Attaches to the serial port: after `101` the connection is a raw byte stream in both directions, backlog first. It ends
/// when the client closes its side or the machine is over. A reader that is too slow misses bytes and is told how many.
#[utoipa::path(get, path = "/vm/console", tag = "console",
    params(
        ("Upgrade" = String, Header, description = "`orlop-console`"),
        ("Connection" = String, Header, description = "`upgrade`"),
    ),
    responses(
        (status = 101, description = "The connection is the console now"),
        (status = 409, description = "There is no machine yet, or it has no serial port", body = Problem,
            content_type = "application/problem+json"),
        (status = 426, description = "The request does not ask for the upgrade", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "Too many clients are attached already", body = Problem,
            content_type = "application/problem+json"),
        (status = "default", description = "Another problem", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn attach(State(api): State<Api>, mut request: Request) -> Result<Response, Response> {
    let Some(upgrade) = requested_upgrade(&mut request) else {
        return Err(upgrade_required());
    };
    check_port(&api.handle).await.map_err(IntoResponse::into_response)?;
    let permit = api.stream().map_err(IntoResponse::into_response)?;
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            // An error is the client's end of the connection: it is gone, and nobody is left to tell.
            let _ = converse(TokioIo::new(stream), &api.handle).await;
        }
        drop(permit);
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, CONSOLE_PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn requested_upgrade(request: &mut Request) -> Option<OnUpgrade> {
    let asked = |headers: &HeaderMap| {
        let value = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.eq_ignore_ascii_case(CONSOLE_PROTOCOL))
    };
    if asked(request.headers()) { request.extensions_mut().remove() } else { None }
}

fn upgrade_required() -> Response {
    let detail = format!("the console needs 'Connection: upgrade' and 'Upgrade: {CONSOLE_PROTOCOL}'");
    let mut response = Refused::from(Problem::new(Reason::UpgradeRequired, detail)).into_response();
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(CONSOLE_PROTOCOL));
    response
}

/// Refuses where there is no serial port.
async fn check_port(handle: &Handle) -> Result<(), Refused> {
    let info = handle.info().await?;
    let Some(config) = info.config.filter(|_| info.state != VmState::NotCreated) else {
        let detail = format!("a machine that is {} has no console: create it first", info.state);
        return Err(Problem::new(Reason::NotInThisState, detail).with_state(info.state).into());
    };
    if !config.serial.enabled {
        let detail = "this machine was created without a serial port: set serial.enabled";
        return Err(Problem::new(Reason::NotConfigured, detail).with_field("serial.enabled").into());
    }
    Ok(())
}

/// Passes bytes both ways until the client is gone or the machine is over.
async fn converse(stream: impl AsyncRead + AsyncWrite, handle: &Handle) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(stream);
    let mut reader = handle.console().subscribe();
    let ended = tokio::select! {
        ended = pass_output(&mut reader, &mut to_client) => ended,
        ended = pass_input(&mut from_client, handle.console()) => ended,
        _ = handle.stopped() => Ok(End::MachineOver),
    }?;
    match ended {
        End::ClientGone => {}
        End::GuestStalled => {
            let note = format!("\r\n[console: the guest took no input for {} s]\r\n", INPUT_STALL.as_secs());
            to_client.write_all(note.as_bytes()).await?;
        }
        End::MachineOver => {
            while let Some(chunk) = reader.try_next() {
                write_chunk(&mut to_client, &chunk).await?;
            }
        }
    }
    to_client.shutdown().await
}

/// Why a conversation ends.
enum End {
    ClientGone,
    GuestStalled,
    MachineOver,
}

async fn pass_output(reader: &mut ConsoleReader, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<End> {
    loop {
        let chunk = reader.next().await;
        write_chunk(to, &chunk).await?;
    }
}

async fn write_chunk(to: &mut (impl AsyncWrite + Unpin), chunk: &Chunk) -> std::io::Result<()> {
    if chunk.missed > 0 {
        let note =
            format!("\r\n[console: this reader was too slow, {} bytes are missing here]\r\n", chunk.missed);
        to.write_all(note.as_bytes()).await?;
    }
    to.write_all(&chunk.bytes).await?;
    to.flush().await
}

async fn pass_input(from: &mut (impl AsyncRead + Unpin), console: &Console) -> std::io::Result<End> {
    let mut buffer = [0; 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(End::ClientGone);
        }
        let typed = buffer.get(..count).unwrap_or_default();
        if tokio::time::timeout(INPUT_STALL, console.write(typed)).await.is_err() {
            return Ok(End::GuestStalled);
        }
    }
}
