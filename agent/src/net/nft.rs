//! Carries out rules by `nft`.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use super::NetError;

/// Runs `nft -f -` in the network namespace of the calling thread.
pub fn apply(rules: &str) -> Result<(), NetError> {
    let mut nft = spawn(&["-f", "-"], Stdio::piped())?;
    let mut stdin = nft.stdin.take().ok_or_else(|| NetError::Nft("no standard input".into()))?;
    stdin.write_all(rules.as_bytes()).map_err(|source| NetError::Io { doing: "write to nft", source })?;
    drop(stdin);
    let output = nft.wait_with_output().map_err(|source| NetError::Io { doing: "wait for nft", source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(NetError::Nft(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Rules on the machine, alive as long as this value: an `nft` that owns their tables and waits for its input to end,
/// which it does with this process, however that ends.
pub struct OwnedRules {
    nft: Child,
}

impl OwnedRules {
    /// Installs `rules`, one table on a line.
    pub fn install(rules: &str) -> Result<Self, NetError> {
        let mut nft = spawn(&["-i"], Stdio::null())?;
        if let Some(stdin) = nft.stdin.as_mut() {
            let write = |source| NetError::Io { doing: "write to nft", source };
            stdin.write_all(rules.as_bytes()).map_err(write)?;
            stdin.flush().map_err(write)?;
        }
        Ok(Self { nft })
    }
}

impl Drop for OwnedRules {
    fn drop(&mut self) {
        drop(self.nft.stdin.take());
        // The end of its input ends it; the result of a process that only held rules has no meaning.
        drop(self.nft.wait());
    }
}

fn spawn(args: &[&str], stderr: Stdio) -> Result<Child, NetError> {
    Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(|source| NetError::Io { doing: "start nft (Debian package nftables)", source })
}
