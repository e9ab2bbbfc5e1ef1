//! What the guest wrote on its serial port, as a test looks at it.

use std::time::Duration;

use orlop_client::Console;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

/// A console connection with all that was read from it.
pub struct Transcript {
    from_guest: ReadHalf<Console>,
    to_guest: WriteHalf<Console>,
    text: String,
    /// Where the next search begins.
    seen: usize,
}

impl Transcript {
    /// Takes a fresh connection over.
    pub fn new(console: Console) -> Self {
        let (from_guest, to_guest) = tokio::io::split(console);
        Self { from_guest, to_guest, text: String::new(), seen: 0 }
    }

    /// Everything read so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Waits until the guest writes `what` after what was found before; returns what came in between.
    pub async fn expect(&mut self, what: &str, within: Duration) -> String {
        self.wait_for(what, within).await.unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same; where it does not come, what happened instead.
    pub async fn wait_for(&mut self, what: &str, within: Duration) -> Result<String, String> {
        match tokio::time::timeout(within, self.find(what)).await {
            Ok(Ok(between)) => Ok(between),
            Ok(Err(end)) => Err(format!("the console ended ({end}) before '{what}':\n{}", self.tail())),
            Err(_) => Err(format!("the guest did not write '{what}' within {within:?}:\n{}", self.tail())),
        }
    }

    async fn find(&mut self, what: &str) -> Result<String, String> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.text[self.seen..].find(what) {
                let between = self.text[self.seen..self.seen + at].to_owned();
                self.seen += at + what.len();
                return Ok(between);
            }
            match self.from_guest.read(&mut buffer).await {
                Ok(0) => return Err("end of file".into()),
                // Bytes that are no UTF-8 become marks; the guests of tests write ASCII.
                Ok(len) => self.text.push_str(&String::from_utf8_lossy(&buffer[..len])),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Reads until the console ends, at most for `within`.
    pub async fn rest(&mut self, within: Duration) {
        let read = async { while self.find("\0 never written").await.is_ok() {} };
        if tokio::time::timeout(within, read).await.is_err() {
            panic!("the machine did not end within {within:?}:\n{}", self.tail());
        }
    }

    /// Types `text`.
    pub async fn send(&mut self, text: &str) {
        let sent = async {
            self.to_guest.write_all(text.as_bytes()).await?;
            self.to_guest.flush().await
        };
        if let Err(error) = sent.await {
            panic!("cannot type '{text}': {error}\n{}", self.tail());
        }
    }

    /// The last of it, for messages.
    pub fn tail(&self) -> String {
        let start = self.text.len().saturating_sub(3000);
        let start = (start..=self.text.len()).find(|&i| self.text.is_char_boundary(i)).unwrap_or(0);
        format!("--- console ---\n{}\n---", &self.text[start..])
    }
}
