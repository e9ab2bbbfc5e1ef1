//! Image formats, against QEMU on the same files: what a guest gets out of its disk when that is a qcow2 image, an overlay
//! whose clusters are allocated as they are written, or compressed.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::guest::with_patience;
use crate::io;
use crate::memory;
use crate::report::Row;
use crate::setup::Setup;
use crate::vmm::{Drive, Vmm};

/// Size of the compressed image's disk.
const COMPRESSED_BYTES: usize = 64 << 20;

/// What is measured: kind of image, pattern, unit.
const SERIES: [(&str, &str, &str); 10] = [
    ("qcow2", "randread-4k", "IOPS"),
    ("qcow2", "randwrite-4k", "IOPS"),
    ("qcow2", "seqread-1m", "MiB/s"),
    ("qcow2", "seqwrite-1m", "MiB/s"),
    ("overlay", "randread-4k", "IOPS"),
    ("overlay", "randwrite-4k", "IOPS"),
    ("overlay", "seqread-1m", "MiB/s"),
    ("overlay", "seqwrite-1m", "MiB/s"),
    ("compressed", "randread-4k", "IOPS"),
    ("compressed", "seqread-1m", "MiB/s"),
];

/// The images.
struct Images {
    plain: PathBuf,
    compressed: PathBuf,
    overlay: PathBuf,
}

/// Measures every kind of image in every round, and the memory that an overlay costs.
pub fn measure(setup: &Setup, runs: usize) -> anyhow::Result<Vec<Row>> {
    let images = Images::make(setup)?;
    let mut ours: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut theirs: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..runs {
        for kind in ["qcow2", "overlay", "compressed"] {
            for (vmm, series) in [(Vmm::Orlop, &mut ours), (Vmm::QemuQ35, &mut theirs)] {
                let found = with_patience(|| {
                    let (drive, which) = images.drive(setup, kind)?;
                    io::block(setup, vmm, drive, which)
                        .with_context(|| format!("{kind} under {}", vmm.name()))
                });
                for (name, value) in found? {
                    let name = name.replacen("block", kind, 1);
                    series.entry(name).or_default().push(value);
                }
            }
        }
    }
    let row = |(kind, pattern, unit): (&str, &str, &str)| {
        let name = format!("{kind}-{pattern}");
        Some(Row::new(&name, unit, ours.get(&name)?, Vmm::QemuQ35.name(), theirs.get(&name)?))
    };
    let mut rows: Vec<Row> = SERIES.into_iter().filter_map(row).collect();
    ensure!(rows.len() == SERIES.len(), "a guest did not measure everything");
    rows.push(memory::beside("memory-overlay", setup, runs, &|| Ok(images.drive(setup, "overlay")?.0))?);
    Ok(rows)
}

impl Images {
    fn make(setup: &Setup) -> anyhow::Result<Self> {
        let place = |name: &str| setup.directory.path().join(name);
        let (plain, compressed, text) = (place("plain.qcow2"), place("compressed.qcow2"), place("text"));
        qemu_img(&["convert", "-O", "qcow2"], &[&setup.disk, &plain])?;
        write_text(&text).with_context(|| format!("cannot write {}", text.display()))?;
        qemu_img(&["convert", "-c", "-O", "qcow2"], &[&text, &compressed])?;
        std::fs::remove_file(text)?;
        Ok(Self { plain, compressed, overlay: place("overlay.qcow2") })
    }

    /// The disk of a machine, and which patterns are for it. An overlay is always a new one.
    fn drive(&self, setup: &Setup, kind: &str) -> anyhow::Result<(Drive, &'static str)> {
        let qcow2 = |image: &Path| Drive { format: "qcow2", ..Drive::raw(image) };
        Ok(match kind {
            "qcow2" => (qcow2(&self.plain), "all"),
            "compressed" => (Drive { read_only: true, ..qcow2(&self.compressed) }, "read"),
            _ => {
                let base = setup.disk.display().to_string();
                qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base], &[&self.overlay])?;
                (Drive { backing: Some(setup.disk.clone()), ..qcow2(&self.overlay) }, "all")
            }
        })
    }
}

/// Writes what can be compressed about as well as text.
fn write_text(path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    let mut chance = 1_u64;
    let mut written = 0;
    while written < COMPRESSED_BYTES {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let line =
            format!("{:020} a line of a log that says {:08x} and nothing more\n", written, chance >> 40);
        let line = line.as_bytes();
        let line = line.get(..line.len().min(COMPRESSED_BYTES - written)).unwrap_or_default();
        file.write_all(line)?;
        written += line.len();
    }
    file.flush()
}

fn qemu_img(arguments: &[&str], files: &[&Path]) -> anyhow::Result<()> {
    let output =
        Command::new("qemu-img").args(arguments).args(files).output().context("cannot run qemu-img")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "qemu-img {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
