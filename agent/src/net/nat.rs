//! Address translation by nftables.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use super::{MasqueradePlan, NetError};

/// Rules inside the VM's namespace (KubeVirt's masquerade without ports): the guest leaves under the namespace's
/// address.
pub fn namespace_rules(plan: &MasqueradePlan) -> String {
    format!(
        "table ip nat {{\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat;\n\
         \t\tip saddr {} oifname \"eth0\" masquerade\n\
         \t}}\n\
         }}\n",
        plan.guest
    )
}

/// Rules on the machine: what comes from the namespace leaves under the machine's address. The table belongs to the
/// process that makes it (`flags owner`), and the kernel removes it when that process ends. On one line, as the
/// interactive mode of `nft` reads it.
fn machine_rules(plan: &MasqueradePlan) -> String {
    format!(
        "table ip orlop-{link} {{ flags owner; chain postrouting {{ \
         type nat hook postrouting priority srcnat ; \
         ip saddr {uplink} oifname != \"{link}\" masquerade ; }} ; }}\n",
        link = plan.host_link,
        uplink = plan.uplink_address,
    )
}

/// Runs `nft -f -` in the network namespace of the calling thread.
pub fn apply(rules: &str) -> Result<(), NetError> {
    let mut nft = spawn(&["-f", "-"], Stdio::piped())?;
    write_rules(&mut nft, rules)?;
    let output = nft.wait_with_output().map_err(|source| NetError::Io { doing: "wait for nft", source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(NetError::Nft(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// The machine's rules, alive as long as this value: an `nft` that owns the table and waits for its input to end,
/// which it does with this process, however that ends.
pub struct MachineNat {
    nft: Child,
}

impl MachineNat {
    /// Installs the rules for `plan`.
    pub fn install(plan: &MasqueradePlan) -> Result<Self, NetError> {
        let mut nft = spawn(&["-i"], Stdio::null())?;
        if let Some(stdin) = nft.stdin.as_mut() {
            stdin
                .write_all(machine_rules(plan).as_bytes())
                .map_err(|source| NetError::Io { doing: "write to nft", source })?;
            stdin.flush().map_err(|source| NetError::Io { doing: "write to nft", source })?;
        }
        Ok(Self { nft })
    }
}

impl Drop for MachineNat {
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

fn write_rules(nft: &mut Child, rules: &str) -> Result<(), NetError> {
    let mut stdin = nft.stdin.take().ok_or_else(|| NetError::Nft("no standard input".into()))?;
    stdin.write_all(rules.as_bytes()).map_err(|source| NetError::Io { doing: "write to nft", source })
}
