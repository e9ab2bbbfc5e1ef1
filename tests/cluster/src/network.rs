//! The cluster's network namespace: a bridge, and a tap device for every node. Every process of the cluster runs in it, so it also
//! tells which ones there are.

use std::process::Command;

use orlop_nested::{BuildError, Tool, require, run};
use rustix::process::{Pid, Signal, kill_process};

use crate::addresses;

const IP: Tool = Tool { program: "ip", package: "iproute2" };
const BRIDGE: &str = "br0";

/// A network namespace by its name (`ip-netns(8)`).
#[derive(Clone, Debug)]
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn exists(&self) -> bool {
        std::path::Path::new("/run/netns").join(&self.0).exists()
    }

    /// Makes it, with the bridge.
    pub(crate) fn make(&self) -> Result<(), BuildError> {
        require(&[IP])?;
        let address = format!("{}/{}", addresses::SERVER, addresses::PREFIX);
        self.ip(&["netns", "add", &self.0])?;
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["link", "add", BRIDGE, "type", "bridge"],
            &["address", "add", &address, "dev", BRIDGE],
            &["link", "set", BRIDGE, "up"],
        ] {
            self.ip(&[&["-n", &self.0], arguments].concat())?;
        }
        Ok(())
    }

    /// A tap device for node `index`, and the way to its pods.
    pub(crate) fn plug(&self, index: u8) -> Result<(), BuildError> {
        let (tap, node) = (addresses::tap(index), addresses::node(index).to_string());
        let pods = addresses::pods_of(index);
        for arguments in [
            &["tuntap", "add", "dev", &tap, "mode", "tap"][..],
            &["link", "set", &tap, "master", BRIDGE],
            &["link", "set", &tap, "up"],
            &["route", "replace", &pods, "via", &node],
        ] {
            self.ip(&[&["-n", &self.0], arguments].concat())?;
        }
        Ok(())
    }

    /// A command that runs in it.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }

    /// Ends every process in it, and removes it with its devices.
    pub(crate) fn remove(&self) -> Result<(), BuildError> {
        let listed = self.ip(&["netns", "pids", &self.0])?;
        let pids = String::from_utf8_lossy(&listed);
        for pid in pids.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        self.ip(&["netns", "delete", &self.0]).map(drop)
    }

    fn ip(&self, arguments: &[&str]) -> Result<Vec<u8>, BuildError> {
        run("set the cluster's network up", Command::new("ip").args(arguments))
    }
}
