//! The cache of built things: outside the checkout, keyed by content, filled atomically, safe to share.
//!
//! An artifact is a directory `NAME-KEY`, where the key is the hash of everything that decides its content. It is
//! built beside its place and renamed into it, so it is either whole or absent; a file lock per name lets two runs
//! that need the same artifact build it once.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::debian::BuildError;

/// Environment variable that overrides where the cache is.
pub const CACHE_ENV: &str = "ORLOP_CACHE";

/// The directory of the cache: `$ORLOP_CACHE`, else `$XDG_CACHE_HOME/orlop`, else `~/.cache/orlop`.
#[must_use]
pub fn directory() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(CACHE_ENV)
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("orlop")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/orlop")))
        .unwrap_or_else(|| PathBuf::from("/var/cache/orlop"))
}

/// Says on stderr what is being done, so that nobody waits in front of a silent terminal.
pub fn say(what: impl Display) {
    eprintln!("orlop: {what}");
}

/// Says what is being done and, when it is done, how long it took.
///
/// # Errors
/// Only those of `work`.
pub fn step<T, E>(what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    say(format_args!("{what} …"));
    let began = Instant::now();
    let done = work()?;
    say(format_args!("{what}: {}", seconds(began.elapsed())));
    Ok(done)
}

/// A duration as people read it: `0.4 s`, `52 s`.
#[must_use]
pub fn seconds(elapsed: Duration) -> String {
    let s = elapsed.as_secs_f64();
    if s < 10.0 { format!("{s:.1} s") } else { format!("{s:.0} s") }
}

/// What decides the content of an artifact: the parts are hashed with their lengths, in order.
#[derive(Default)]
pub struct Recipe(Sha256);

impl Recipe {
    /// A recipe of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one ingredient.
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// The first 12 hexadecimal digits of the hash: enough for a directory with a handful of entries.
    #[must_use]
    pub fn key(self) -> String {
        self.0.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The directory of the artifact `name` with this `key`, built by `build` if it is not there yet.
///
/// `build` fills the empty directory that it is given. Older artifacts of the same name are removed afterwards unless
/// a lock says that somebody uses them.
///
/// # Errors
/// The errors of `build`, or of the file system of the cache.
pub fn artifact(
    name: &str,
    key: &str,
    build: impl FnOnce(&Path) -> Result<(), BuildError>,
) -> Result<PathBuf, BuildError> {
    let cache = directory();
    let place = cache.join(format!("{name}-{key}"));
    if place.exists() {
        return Ok(place);
    }
    fs::create_dir_all(&cache).map_err(|e| BuildError::file(&cache, e))?;
    let _lock = lock(&cache.join(format!("{name}.lock")))?;
    if place.exists() {
        return Ok(place);
    }
    let fresh = tempfile::Builder::new()
        .prefix(&format!(".{name}-"))
        .tempdir_in(&cache)
        .map_err(|e| BuildError::file(&cache, e))?;
    build(fresh.path())?;
    fs::rename(fresh.path(), &place).map_err(|e| BuildError::file(&place, e))?;
    remove_older(&cache, name, &place);
    Ok(place)
}

/// Removes what earlier recipes of the same artifact left. A node that runs from one keeps its open files.
fn remove_older(cache: &Path, name: &str, current: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let file_name = entry.file_name();
        let key = file_name.to_str().and_then(|n| n.strip_prefix(name)).and_then(|n| n.strip_prefix('-'));
        if path != current && key.is_some_and(|k| k.len() == 12 && k.bytes().all(|b| b.is_ascii_hexdigit())) {
            // A leftover costs disk space, nothing else: the next build tries again.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// An exclusive lock on `path`, waited for; says so if somebody else holds it.
pub(crate) fn lock(path: &Path) -> Result<File, BuildError> {
    let file = File::create(path).map_err(|e| BuildError::file(path, e))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            say(format_args!("waiting for another run that builds the same ({})", path.display()));
        }
        Err(fs::TryLockError::Error(e)) => return Err(BuildError::file(path, e)),
    }
    file.lock().map_err(|e: io::Error| BuildError::file(path, e))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_tells_where_its_parts_end() {
        assert_ne!(Recipe::new().with("ab").with("c").key(), Recipe::new().with("a").with("bc").key());
        assert_eq!(Recipe::new().with("ab").key(), Recipe::new().with("ab").key());
        assert_eq!(Recipe::new().key().len(), 12);
    }
}
