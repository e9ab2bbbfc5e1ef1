//! Who has an image: locks that tell their holder's name.
//!
//! The locks belong to open file descriptions (`fcntl(2)`), so they hold between processes, between containers of one
//! host, on block devices and, where the server does locks, on network file systems; they are gone when their holder
//! is. The lock over the bytes decides: one writer and nobody else, or several readers, or several that share it and say
//! so. Readers hold one part of the bytes and sharers the other, and look at each other's once they have theirs: of two
//! that come at the same moment both may be refused, but never both let in. The name of a holder is written
//! in locks as well, far beyond any byte of the image: a shared lock of one byte for each letter, at a place that says
//! which letter and where in the name. So a reader, which could write neither the file nor an attribute of it, has a
//! name too, a name never outlives its holder, and no guest can reach it.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::Options;
use crate::open_error::OpenError;
use crate::sys::{self, Lock};

/// How long a lock may be refused before it counts as taken.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long to wait between two tries.
const RETRY: Duration = Duration::from_millis(10);

/// What somebody wants to do with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Write, alone.
    Write,
    /// Read, beside other readers.
    Read,
    /// Read or write, beside others that share it.
    Share,
}

impl Claim {
    pub(crate) fn of(options: Options) -> Self {
        match options {
            Options { shared: true, .. } => Self::Share,
            Options { read_only: true, .. } => Self::Read,
            Options { .. } => Self::Write,
        }
    }

    /// The lock, and the offsets that it is over.
    fn lock(self) -> (Lock, Range<u64>) {
        match self {
            Self::Write => (Lock::Exclusive, 0..NAMES),
            Self::Read => (Lock::Shared, 0..SHARERS),
            Self::Share => (Lock::Shared, SHARERS..NAMES),
        }
    }

    /// The offsets in which nobody may have a lock.
    fn foreign(self) -> Range<u64> {
        match self {
            Self::Write => 0..0,
            Self::Read => SHARERS..NAMES,
            Self::Share => 0..SHARERS,
        }
    }

    /// What those who have the image do, so that this cannot be.
    fn obstacle(self) -> &'static str {
        match self {
            Self::Write => "reads or writes",
            Self::Read => "writes",
            Self::Share => "does not share",
        }
    }
}

/// Offsets of those that share an image begin here.
const SHARERS: u64 = NAMES - 1;
/// Offsets below are the image's; names begin here. Files are shorter on every file system of Linux (ext4: 16 TiB).
const NAMES: u64 = 1 << 62;
/// Places for names, taken at random: two readers in one place would make one name unreadable.
const SLOTS: u64 = 1 << 14;
/// The values that a byte has: one offset for each.
const VALUES: u64 = 256;
/// The longest name in bytes, as long as a Kubernetes name may be (RFC 1123).
const NAME_MAX: u64 = 253;
/// Offsets of one place.
const SLOT_BYTES: u64 = VALUES * VALUES;
/// How many holders are told by name.
const TOLD_MAX: usize = 3;

/// Takes the lock on `file` that `claim` needs, in the name of `holder`. The kernel may take a moment to let go of the
/// files of a process that was killed, so a refusal counts only when it lasts.
pub(crate) fn take(file: &File, path: &Path, claim: Claim, holder: &str) -> Result<(), OpenError> {
    let deadline = Instant::now().checked_add(PATIENCE);
    let system = |source| OpenError::System { path: path.into(), what: "lock", source };
    while !try_to_take(file, claim).map_err(system)? {
        if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            let (path, how) = (path.into(), claim.obstacle());
            return Err(OpenError::Locked { path, how, holders: holders(file) });
        }
        std::thread::sleep(RETRY);
    }
    sign(file, holder).map_err(system)
}

/// Whether `claim` has its lock now; none is held if not.
fn try_to_take(file: &File, claim: Claim) -> std::io::Result<bool> {
    // A write lock needs a descriptor that can write, a read lock one that can read: the caller has checked.
    let (lock, range) = claim.lock();
    match sys::lock(file, lock, range.start, range.end - range.start) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => return Ok(false),
        result => result?,
    }
    let foreign = claim.foreign();
    if foreign.is_empty() || sys::locked_at(file, foreign.start, foreign.end - foreign.start)?.is_none() {
        return Ok(true);
    }
    sys::lock(file, Lock::None, range.start, range.end - range.start)?;
    Ok(false)
}

/// Lets go of everything.
pub(crate) fn release(file: &File) {
    let _ = sys::lock(file, Lock::None, 0, 0);
}

/// Writes `name` beside the lock.
fn sign(file: &File, name: &str) -> std::io::Result<()> {
    let slot = RandomState::new().build_hasher().finish() % SLOTS;
    let start = NAMES + slot * SLOT_BYTES;
    for (position, byte) in (0..NAME_MAX).zip(name.bytes()) {
        sys::lock(file, Lock::Shared, start + position * VALUES + u64::from(byte), 1)?;
    }
    Ok(())
}

/// Who has the lock, as a part of a sentence.
fn holders(file: &File) -> String {
    let mut names = names(file);
    names.sort_unstable();
    let more = names.len().saturating_sub(TOLD_MAX);
    names.truncate(TOLD_MAX);
    let told: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    match (told.is_empty(), more) {
        (true, _) => "another process".to_owned(),
        (false, 0) => told.join(", "),
        (false, more) => format!("{} and {more} more", told.join(", ")),
    }
}

/// The names that others wrote; at most one more than anyone is told, and a few.
fn names(file: &File) -> Vec<String> {
    let mut names = Vec::new();
    // The kernel tells of one lock in a range, not of the first: what is before and after it is asked again.
    let mut ranges = Vec::new();
    ranges.push(0..SLOTS);
    while let Some(range) = ranges.pop() {
        let (start, len) = (NAMES + range.start * SLOT_BYTES, (range.end - range.start) * SLOT_BYTES);
        let Ok(Some(at)) = sys::locked_at(file, start, len) else { continue };
        let slot = ((at - NAMES) / SLOT_BYTES).min(range.end - 1);
        names.push(name(file, NAMES + slot * SLOT_BYTES));
        if names.len() >= TOLD_MAX * 8 {
            break;
        }
        ranges.extend([range.start..slot, slot + 1..range.end].into_iter().filter(|rest| !rest.is_empty()));
    }
    names
}

/// The name in the place that begins at `start`; what is not printable is shown as `?`.
fn name(file: &File, start: u64) -> String {
    let mut name = String::new();
    for position in 0..NAME_MAX {
        let letter = start + position * VALUES;
        let Ok(Some(at)) = sys::locked_at(file, letter, VALUES) else { break };
        let byte = u8::try_from(at - letter).unwrap_or(b'?');
        name.push(if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' });
    }
    name
}
