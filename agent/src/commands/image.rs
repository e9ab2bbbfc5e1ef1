//! `orlop-agent image`: the cache of images.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::Subcommand;
use orlop_crd::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use orlop_oci::{Credentials, Limits, PullPolicy, Removed, Source, Store, human_bytes};

use crate::images;

/// What the command does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch images into the cache, verify them, and unpack them once.
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// The images.
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// The most that one image may unpack to, holes included.
        #[arg(long, value_name = "SIZE", default_value = "256Gi")]
        max_size: String,
        /// How long a registry may be silent, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        timeout: u64,
    },
    /// List the images in the cache.
    List,
    /// Remove images by name, or by the first digits of their digest.
    Rm {
        /// The images.
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Remove images that lost their name to a newer one.
    Prune {
        /// Images with a name too. Those of running VMs stay.
        #[arg(long)]
        all: bool,
    },
}

const IMPORT_HELP: &str = "\
What an IMAGE is, here and in manifests (containerDisk.image, kernelBoot.container.image):
  quay.io/containerdisks/debian:12      from a registry; on this machine (localhost, 127.0.0.1) without TLS
  registry.example/disks/a@sha256:...   the same, and never another
  oci:/srv/image[:NAME]                 a directory with an OCI image layout
  oci-archive:/srv/image.tar[:NAME]     that as a tar file, also compressed
  docker-archive:/srv/image.tar[:NAME]  what docker save and podman save write

Logins come from `docker login` or `podman login` ($DOCKER_CONFIG, ~/.docker/config.json, $REGISTRY_AUTH_FILE).
A container disk holds its one disk in /disk, and is made by a Containerfile of two lines:
  FROM scratch
  ADD --chown=107:107 my.img /disk/

The cache: $ORLOP_IMAGE_DIR, else /var/lib/orlop/oci (root) or ~/.cache/orlop/oci.";

/// Carries it out.
pub async fn image(command: Command) -> Result<()> {
    match command {
        Command::Import { images, max_size, timeout } => import(&images, &max_size, timeout).await,
        Command::List => list(),
        Command::Rm { images } => remove(&images),
        Command::Prune { all } => {
            report(&Store::open(&images::root())?.prune(all)?);
            Ok(())
        }
    }
}

async fn import(names: &[String], max_size: &str, timeout: u64) -> Result<()> {
    let unpacked_bytes = orlop_crd::quantity::bytes(&Quantity(max_size.to_owned()))?;
    if timeout == 0 {
        bail!("--timeout 0: a registry takes some time");
    }
    let limits = Limits { unpacked_bytes, idle: Duration::from_secs(timeout), ..Limits::default() };
    let puller = images::puller(limits)?;
    for name in names {
        puller.get(name, Some(PullPolicy::Always), &Credentials::Machine).await?;
    }
    Ok(())
}

fn list() -> Result<()> {
    println!("{:<14} {:>10}  {:<12} {:<6} NAME", "IMAGE", "SIZE", "IMPORTED", "USED");
    for image in Store::open(&images::root())?.list()? {
        let names = if image.names.is_empty() { "-".to_owned() } else { image.names.join(", ") };
        println!(
            "{:<14} {:>10}  {:<12} {:<6} {names}",
            image.id.get(..12).unwrap_or_default(),
            human_bytes(image.size_bytes),
            image.imported.map_or_else(|| "-".to_owned(), ago),
            if image.in_use { "yes" } else { "no" },
        );
    }
    Ok(())
}

/// How long ago a moment was, in the largest unit that is at least two.
fn ago(seconds_since_1970: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = now.saturating_sub(seconds_since_1970);
    let units = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    match units.iter().find(|(len, _)| seconds >= 2 * len) {
        Some((len, name)) => format!("{} {name}", seconds / len),
        None => format!("{seconds} seconds"),
    }
}

fn remove(names: &[String]) -> Result<()> {
    let store = Store::open(&images::root())?;
    for name in names {
        let full = name.parse::<Source>().map_or_else(|_| name.clone(), |source| source.to_string());
        report(&store.remove(name, &full)?);
    }
    Ok(())
}

fn report(removed: &Removed) {
    for id in &removed.images {
        println!("removed sha256:{id}");
    }
    println!("freed {}", human_bytes(removed.freed_bytes));
}
