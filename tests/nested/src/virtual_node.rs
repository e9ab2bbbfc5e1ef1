//! A virtual node that this process owns, and how any virtual node is started.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cache;
use crate::cpio::Archive;
use crate::images;
use crate::job::{Job, JobError, Stream, drive};
use crate::link::RunDir;
use crate::node::{NodeOptions, Share, StartError};
use crate::qemu::{self, Files};
use crate::root;
use crate::wire::Spec;
use crate::{env, host};

/// How long a node may take from the start of QEMU to its first job; 4 s are usual.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// The environment and directory of a job in a virtual node.
pub(crate) fn spec(job: &Job, terminal: Option<(u16, u16)>) -> Spec {
    let target = host::target_dir();
    let bin = |profile: &str| target.join(profile).display().to_string();
    let path = format!(
        "{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        bin("debug"),
        bin("release")
    );
    let mut all: Vec<(String, String)> = [
        ("PATH", path.as_str()),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("TMPDIR", "/tmp"),
        (env::VIRTUAL, "1"),
        (env::IMAGES, "/images"),
        (env::SCRATCH, "/scratch"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let passes = |name: &str| {
        name.starts_with("RUST_") || matches!(name, env::VMM | env::AGENT | env::PROBE | "TERM" | "COLORTERM")
    };
    all.extend(std::env::vars().filter(|(name, _)| passes(name)));
    all.extend(job.env.iter().cloned());
    Spec { argv: job.argv.clone(), env: all, cwd: job.cwd.clone().unwrap_or_else(host::checkout), terminal }
}

/// Runs a job in the node whose directory this is.
pub(crate) fn stream_in(
    run_dir: &RunDir,
    job: &Job,
    output: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
) -> Result<i32, JobError> {
    let port = run_dir.free_port()?.ok_or(JobError::Busy)?;
    drive(run_dir, port, spec(job, None), job.deadline, &mut || Ok(()), output)
}

/// A virtual node that this process owns.
pub(crate) struct Virtual {
    run_dir: RunDir,
    qemu: Child,
    /// The node powers off when the other end of this is gone, however this process ends.
    _lifeline: UnixStream,
    /// Removes the run directory.
    _directory: tempfile::TempDir,
}

impl Virtual {
    pub(crate) fn start(options: &NodeOptions) -> Result<Self, StartError> {
        let runs = cache::directory().join("run");
        fs::create_dir_all(&runs).map_err(StartError::files(&runs))?;
        remove_left_behind(&runs);
        let directory =
            tempfile::Builder::new().prefix("node-").tempdir_in(&runs).map_err(StartError::files(&runs))?;
        let run_dir = RunDir::new(directory.path().to_path_buf());
        let mut qemu = launch(&run_dir, options, true)?;
        let lifeline = match wait_for(&run_dir, &mut qemu) {
            Ok(lifeline) => lifeline,
            Err(e) => {
                end(&mut qemu);
                return Err(e);
            }
        };
        Ok(Self { run_dir, qemu, _lifeline: lifeline, _directory: directory })
    }

    pub(crate) fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }
}

impl Drop for Virtual {
    fn drop(&mut self) {
        end(&mut self.qemu);
    }
}

/// Removes the directories of nodes whose process was killed.
fn remove_left_behind(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if RunDir::new(path.clone()).is_dead() {
            // What stays costs disk space, and the next start tries again.
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn end(qemu: &mut Child) {
    // Both fail only if it has ended by itself, which is what is wanted.
    let _ = qemu.kill();
    let _ = qemu.wait();
}

/// Starts QEMU for the node of `run_dir` and makes all that it needs.
pub(crate) fn launch(run_dir: &RunDir, options: &NodeOptions, lifeline: bool) -> Result<Child, StartError> {
    let held = run_dir.hold().map_err(StartError::files(run_dir.path()))?;
    let parts = root::parts()?;
    let images = if options.images { Some(images::disk()?) } else { None };
    let agent = build("orlop-nested", &["--bin", "orlop-node-agent"], "orlop-node-agent")?;
    let shim = build("orlop-node-shim", &["--lib"], "liborlop_node_shim.so")?;
    let shares = shares(run_dir, options);
    for directory in [run_dir.job_path(), run_dir.log_directory()] {
        fs::create_dir_all(&directory).map_err(StartError::files(&directory))?;
    }
    run_dir.forget_old_logs();
    let initramfs = run_dir.path().join("initramfs.cpio");
    write_initramfs(&initramfs, &parts.initramfs(), &agent, &shares)
        .map_err(StartError::files(&initramfs))?;
    make_scratch(&run_dir.scratch_path())?;

    let files = Files { shim: &shim, initramfs: &initramfs, images: images.as_deref() };
    let log = run_dir.complaints_path();
    let complaints = File::create(&log).map_err(StartError::files(&log))?;
    qemu::command(&parts, run_dir, options, &shares, &files, lifeline)
        // QEMU reads nothing, and holds the directory for as long as it lives.
        .stdin(held)
        .stdout(Stdio::null())
        .stderr(complaints)
        // Not in the terminal's group: Ctrl-C is for the job, and the lifeline ends the node.
        .process_group(0)
        .spawn()
        .map_err(|e| StartError::Qemu(e.to_string()))
}

/// Waits until the node takes jobs and hands back its lifeline.
pub(crate) fn wait_for(run_dir: &RunDir, qemu: &mut Child) -> Result<UnixStream, StartError> {
    let began = Instant::now();
    let lifeline = loop {
        match run_dir.connect("lifeline") {
            Ok(lifeline) => break lifeline,
            Err(e) if began.elapsed() > BOOT_LIMIT => return Err(StartError::Qemu(e.to_string())),
            Err(_) => {}
        }
        if let Ok(Some(status)) = qemu.try_wait() {
            let complaints = fs::read_to_string(run_dir.complaints_path()).unwrap_or_default();
            return Err(StartError::Qemu(format!("it ended with {status}: {}", complaints.trim())));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let patience = BOOT_LIMIT.saturating_sub(began.elapsed());
    let hello = Job::new(["true"]).cwd("/").deadline(patience);
    match stream_in(run_dir, &hello, &mut |_, _| Ok(())) {
        Ok(_) => Ok(lifeline),
        Err(e) => Err(StartError::Boot(e)),
    }
}

/// The checkout and the target directory appear at the same paths as outside, so that what was built here runs there.
fn shares(run_dir: &RunDir, options: &NodeOptions) -> Vec<Share> {
    let (checkout, target) = (host::checkout(), host::target_dir());
    let same = |path: PathBuf| Share { guest: path.clone(), host: path, writable: false };
    let mut all = vec![same(checkout.clone())];
    if !target.starts_with(&checkout) && target.exists() {
        all.push(same(target));
    }
    all.push(Share { host: run_dir.job_path(), guest: "/job".into(), writable: true });
    all.extend(options.shares.iter().cloned());
    all
}

/// The file `name` that `package` makes, built by cargo if its sources are newer. Cargo is not asked if they are not: it
/// would wait for whatever else is being built in the same target directory.
fn build(package: &str, what: &[&str], name: &str) -> Result<PathBuf, StartError> {
    let made = host::target_dir().join("debug").join(name);
    if is_fresh(&made) {
        return Ok(made);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--package", package])
        .args(what)
        .current_dir(host::checkout())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| StartError::Agent(e.to_string()))?;
    if output.status.success() {
        Ok(made)
    } else {
        Err(StartError::Agent(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// Whether a file that cargo made is newer than all sources that cargo's note beside it (`PROGRAM.d`) names.
fn is_fresh(program: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Ok(note) = fs::read_to_string(program.with_extension("d")) else { return false };
    let (Some(built), Some((_, sources))) = (modified(program), note.split_once(": ")) else { return false };
    sources.split_whitespace().all(|source| modified(Path::new(source)).is_some_and(|source| source <= built))
}

/// The initramfs of the release, and behind it an archive with what is particular to this node.
fn write_initramfs(path: &Path, base: &Path, agent: &Path, shares: &[Share]) -> io::Result<()> {
    let mut table = String::new();
    for (tag, share) in qemu::tags(shares) {
        // A writable share must not be read from a stale cache; a read-only one is read ahead.
        let mode = if share.writable { "rw,cache=none" } else { "ro,cache=readahead" };
        table.push_str(&format!("{tag} {mode} {}\n", share.guest.display()));
    }
    let mut file = File::create(path)?;
    io::copy(&mut File::open(base)?, &mut file)?;
    let mut archive = Archive::new(file);
    archive.file("shares", table.as_bytes())?;
    archive.file("bin/orlop-node-agent", &fs::read(agent)?)?;
    archive.finish()?.flush()
}

/// An empty file system on a sparse file: 16 GiB that cost what is written to them.
fn make_scratch(path: &Path) -> Result<(), StartError> {
    Ok(images::ext4(path, "scratch", None, "16G", "^has_journal")?)
}
