//! Nodes: virtual nodes with containerd, kubelet and kube-proxy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use orlop_nested::cache::{self, Recipe, step};
use orlop_nested::{BuildError, Cable, Job, MKFS_EROFS, NodeDisk, NodeOptions, Standing, require, run};

use crate::addresses::{self, DNS_SERVICE, DOMAIN, PODS, PREFIX, SERVER};
use crate::image::{Entry, Image};
use crate::network::Namespace;
use crate::{ClusterError, pki};

const SETUP: &str = include_str!("../node/setup");
/// How long a node may take from the first command to a running kubelet; 15 s are usual.
const PATIENCE: Duration = Duration::from_secs(180);
/// The serial number of the disk with programs and images.
const DISK: &str = "cluster";

/// What a node is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSize {
    /// Processors. One is nearly as good as two, and free of the race that `NodeOptions` tells of.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
}

impl Default for NodeSize {
    fn default() -> Self {
        Self { cpus: 1, memory_mib: 2048 }
    }
}

/// The name of node `index`, which counts from 1.
pub(crate) fn name(index: u8) -> String {
    format!("n{index}")
}

/// Node `index` as a virtual node, up or not.
pub(crate) fn standing(index: u8) -> Standing {
    Standing::named(&format!("cluster-{}", name(index)))
}

/// The disk with `programs` and the images that every node has.
pub(crate) fn disk(programs: &Path) -> Result<PathBuf, BuildError> {
    let key = Recipe::new().with(programs.as_os_str().as_encoded_bytes()).with("1").key();
    let place = cache::artifact("cluster-disk", &key, |place| {
        require(&[MKFS_EROFS])?;
        let tree = place.join("tree");
        let images = tree.join("images");
        fs::create_dir_all(&images).map_err(|e| BuildError::file(&images, e))?;
        let pause = programs.join("pause");
        let bytes = fs::read(&pause).map_err(|e| BuildError::file(&pause, e))?;
        let image = Image {
            name: "orlop.test/pause:1".into(),
            entrypoint: vec!["/pause".into()],
            user: 65_535,
            entries: vec![Entry::Program("/pause".into(), bytes)],
        };
        let archive = images.join("pause.tar");
        image.write(&archive).map_err(|e| BuildError::file(&archive, e))?;
        step("make the disk of the cluster's nodes", || {
            run("copy programs", Command::new("cp").arg("-a").arg(programs).arg(tree.join("bin")))?;
            let image = place.join("disk.erofs");
            run("make an erofs", Command::new("mkfs.erofs").arg("--quiet").arg(image).arg(&tree))
        })?;
        fs::remove_dir_all(&tree).map_err(|e| BuildError::file(&tree, e))
    })?;
    Ok(place.join("disk.erofs"))
}

/// Brings node `index` of `all` up; returns when its kubelet runs.
pub(crate) fn start(
    index: u8,
    all: &[u8],
    size: NodeSize,
    disk: &Path,
    namespace: &Namespace,
    keys: &Path,
) -> Result<(), ClusterError> {
    namespace.plug(index)?;
    let standing = standing(index);
    let options = NodeOptions {
        cpus: size.cpus,
        memory_mib: size.memory_mib,
        images: false,
        always_virtual: true,
        shares: Vec::new(),
        disks: vec![NodeDisk { serial: DISK.into(), file: disk.to_owned() }],
        cable: Some(Cable {
            namespace: namespace.0.clone(),
            tap: addresses::tap(index),
            mac: addresses::mac(index),
        }),
    };
    let up = standing.up(&options).map_err(ClusterError::node(index))?;
    let address = addresses::node(index);
    pki::make_node(keys, &name(index), address, &up.job_dir)?;
    let peers: Vec<String> = all
        .iter()
        .filter(|peer| **peer != index)
        .map(|peer| format!("{}={}", addresses::pods_of(*peer), addresses::node(*peer)))
        .collect();
    let job = Job::new(["bash", "-c", SETUP])
        .cwd("/")
        .deadline(PATIENCE)
        .env("NAME", name(index))
        .env("ADDRESS", address.to_string())
        .env("GATEWAY", SERVER.to_string())
        .env("PREFIX", PREFIX.to_string())
        .env("PODS", addresses::pods_of(index))
        .env("ALL_PODS", PODS)
        .env("PEERS", peers.join(" "))
        .env("DNS", DNS_SERVICE)
        .env("DOMAIN", DOMAIN);
    command(index, &job)
}

/// Tells node `index` the way to the pods of node `peer`.
pub(crate) fn introduce(index: u8, peer: u8) -> Result<(), ClusterError> {
    let way =
        ["ip", "route", "replace", &addresses::pods_of(peer), "via", &addresses::node(peer).to_string()]
            .map(str::to_owned);
    command(index, &Job::new(way).cwd("/").deadline(PATIENCE))
}

/// Runs a job in node `index` that is to succeed.
fn command(index: u8, job: &Job) -> Result<(), ClusterError> {
    let failed = |why: String| ClusterError::NotReady {
        what: format!("node {}", name(index)),
        why,
        log: standing(index).status().map(|node| node.console).unwrap_or_default(),
    };
    let node = standing(index).attach().ok_or_else(|| failed("it is not up".into()))?;
    let outcome = node.run(job).map_err(|error| failed(error.to_string()))?;
    if outcome.code == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&outcome.stderr);
    Err(failed(format!("its set-up ended with {}: {}", outcome.code, said.trim())))
}
