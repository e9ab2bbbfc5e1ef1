//! Debian packages as raw material: packages that this machine lacks, and root trees from scratch.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache::{say, step};

/// Why an artifact could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A program said no. Its own words are in `output`.
    #[error("failed to {what}: {program} ended with {status}\n{output}")]
    Program {
        /// What was being done.
        what: String,
        /// The program that ended badly.
        program: String,
        /// How it ended.
        status: String,
        /// The last lines that it wrote.
        output: String,
    },
    /// A program could not be started.
    #[error("failed to start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// A file or directory of the cache could not be read or written.
    #[error("failed to prepare {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Preparation installs packages and makes root trees, both of which only root may do.
    #[error(
        "failed to {what}: it needs root, and this is user {uid}; run the command once as root with ORLOP_CACHE set \
         to a directory that you can read, or install the packages yourself"
    )]
    NeedsRoot {
        /// What was being done.
        what: String,
        /// The effective user.
        uid: u32,
    },
    /// Something inside a package is not what the recipe expects.
    #[error("failed to use {}: {reason}", path.display())]
    Unexpected {
        /// The file in question.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl BuildError {
    /// `path` could not be read or written.
    #[must_use]
    pub fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_path_buf(), source }
    }

    /// `path` is not what the recipe expects.
    pub fn unexpected(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unexpected { path: path.to_path_buf(), reason: reason.into() }
    }
}

/// Runs a program to its end and hands back what it wrote on standard output; on failure the error carries the last lines of
/// what it said.
///
/// # Errors
/// It could not be started, or did not end with 0.
pub fn run(what: &str, command: &mut Command) -> Result<Vec<u8>, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BuildError::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut said = output.stdout;
    said.extend_from_slice(&output.stderr);
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(20));
    Err(BuildError::Program {
        what: what.to_owned(),
        program,
        status: output.status.to_string(),
        output: last.map(|line| format!("  {line}\n")).collect(),
    })
}

/// A program that preparation uses, and the Debian package that brings it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Its name in `PATH`.
    pub program: &'static str,
    /// The package.
    pub package: &'static str,
}

/// Makes root trees out of packages.
pub(crate) const MMDEBSTRAP: Tool = Tool { program: "mmdebstrap", package: "mmdebstrap" };
/// Makes read-only file systems.
pub const MKFS_EROFS: Tool = Tool { program: "mkfs.erofs", package: "erofs-utils" };
/// Makes ext4 file systems, filled from a directory.
pub(crate) const MKE2FS: Tool = Tool { program: "mke2fs", package: "e2fsprogs" };
/// Makes partition tables.
pub(crate) const SGDISK: Tool = Tool { program: "sgdisk", package: "gdisk" };
/// Makes FAT file systems and fills them.
pub(crate) const MTOOLS: Tool = Tool { program: "mcopy", package: "mtools" };
/// Reads labels and UUIDs of file systems.
pub(crate) const BLKID: Tool = Tool { program: "blkid", package: "util-linux" };
/// Makes ISO images.
pub(crate) const XORRISO: Tool = Tool { program: "xorriso", package: "xorriso" };
/// Unpacks kernel modules.
pub(crate) const XZ: Tool = Tool { program: "xz", package: "xz-utils" };

/// Installs the packages of those `tools` that this machine lacks.
///
/// # Errors
/// This is not root, or Debian does not have them.
pub fn require(tools: &[Tool]) -> Result<(), BuildError> {
    let missing: Vec<&str> =
        tools.iter().filter(|tool| !is_in_path(tool.program)).map(|tool| tool.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("install the Debian packages {}", missing.join(", "));
    require_root(&what)?;
    step(&what, || {
        run("read the package lists", apt_get().arg("update"))?;
        run(&what, apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
    })?;
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
    command
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // mke2fs and its like live where an ordinary user's PATH does not look.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir: PathBuf| dir.join(program).exists())
}

fn require_root(what: &str) -> Result<(), BuildError> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        Ok(())
    } else {
        Err(BuildError::NeedsRoot { what: what.to_owned(), uid: uid.as_raw() })
    }
}

/// The mirror that this machine itself uses: what is reachable for its own packages is reachable for ours.
fn mirror() -> String {
    const DEBIAN: &str = "http://deb.debian.org/debian";
    let Ok(output) = Command::new("apt-get").args(["indextargets", "--format", "$(SITE) $(ORIGIN)"]).output()
    else {
        return DEBIAN.to_owned();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" Debian"))
        .find(|site| !site.is_empty() && !site.contains("security"))
        .map_or_else(|| DEBIAN.to_owned(), str::to_owned)
}

/// A root tree to be made from packages.
#[derive(Clone, Copy, Debug)]
pub struct RootTree<'a> {
    /// What the tree is for, as it stands in messages.
    pub name: &'a str,
    /// Packages beside the essential ones.
    pub packages: &'a [&'a str],
    /// Shell commands run with the tree as `$1`, after the packages are configured.
    pub hooks: &'a [&'a str],
    /// Whether the packages' own initial ram disks are wanted (they take 10 s each).
    pub initrd: bool,
}

/// The Debian release that nodes and guests are made of.
pub(crate) const SUITE: &str = "trixie";

impl RootTree<'_> {
    /// The text that decides the content of the tree, for a [`crate::cache::Recipe`].
    #[must_use]
    pub fn recipe(&self) -> String {
        format!("{SUITE} {:?} {:?} {}", self.packages, self.hooks, self.initrd)
    }

    /// Makes the tree in `directory`: a system that could be booted.
    ///
    /// # Errors
    /// This is not root, or Debian does not have the packages.
    pub fn build(&self, directory: &Path) -> Result<(), BuildError> {
        let mut command = self.mmdebstrap("minbase")?;
        command
            .args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"])
            .args(["--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/info/*"])
            .args(["--dpkgopt=force-unsafe-io"])
            .args(self.hooks.iter().map(|hook| format!("--customize-hook={hook}")));
        if !self.initrd {
            // Honoured by /etc/kernel/postinst.d/initramfs-tools.
            command.env("INITRD", "No");
        }
        self.carry_out(command, directory)
    }

    /// Unpacks the packages into `directory` and does not install them: what is wanted are files of theirs.
    pub(crate) fn extract(&self, directory: &Path) -> Result<(), BuildError> {
        let command = self.mmdebstrap("extract")?;
        self.carry_out(command, directory)
    }

    fn mmdebstrap(&self, variant: &str) -> Result<Command, BuildError> {
        require(&[MMDEBSTRAP])?;
        require_root(&self.what())?;
        let mut command = Command::new("mmdebstrap");
        command
            .arg(format!("--variant={variant}"))
            .arg("--format=directory")
            .arg(format!("--include={}", self.packages.join(",")))
            .args(["--aptopt=Acquire::Check-Valid-Until \"false\"", "--aptopt=Acquire::Languages \"none\""]);
        Ok(command)
    }

    fn what(&self) -> String {
        format!("make the {} from {} Debian packages", self.name, SUITE)
    }

    fn carry_out(&self, mut command: Command, directory: &Path) -> Result<(), BuildError> {
        let mirror = mirror();
        say(format_args!("mirror: {mirror}"));
        let what = self.what();
        step(&what, || run(&what, command.arg(SUITE).arg(directory).arg(&mirror)))?;
        Ok(())
    }
}

/// The one file in `directory` whose name starts with `prefix` and satisfies `wanted`.
pub(crate) fn find(
    directory: &Path,
    prefix: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<PathBuf, BuildError> {
    let entries = std::fs::read_dir(directory).map_err(|e| BuildError::file(directory, e))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort();
    let name = |path: &Path| path.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    names
        .into_iter()
        .find(|path| name(path).strip_prefix(prefix).is_some_and(&wanted))
        .ok_or_else(|| BuildError::unexpected(directory, format!("no file {prefix}* in it")))
}
