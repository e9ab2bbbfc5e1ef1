//! The serial console as a byte stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use orlop_api::CONSOLE_PROTOCOL;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::{self, Answer};
use crate::{Client, Error};

/// A connection to the guest's serial port: what is read is the backlog and then what the guest writes, what is written is
/// typed. Closing either side detaches; the read side ends when the machine is over. Split it with [`tokio::io::split`].
#[derive(Debug)]
pub struct Console {
    stream: TokioIo<Upgraded>,
}

impl Console {
    pub(crate) async fn attach(client: &Client) -> Result<Self, Error> {
        let headers = [("upgrade", CONSOLE_PROTOCOL), ("connection", "upgrade")];
        client
            .bounded("console", async {
                let connection = connection::open(client.socket()).await?;
                let response = connection.send(Method::GET, "/vm/console", None, &headers).await?;
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    let status = response.status();
                    Answer::read(response).await?.success()?;
                    return Err(Error::Unexpected(format!("status {status} instead of 101 for the console")));
                }
                Ok(Self { stream: TokioIo::new(hyper::upgrade::on(response).await?) })
            })
            .await
    }
}

impl AsyncRead for Console {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Console {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
