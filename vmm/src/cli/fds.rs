//! Descriptors that the process was started with: `--fd NAME=N`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::str::FromStr;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// One `NAME=N` of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFd {
    /// The name by which the configuration means it.
    pub name: String,
    /// Its number: 3 or above.
    pub number: RawFd,
}

impl FromStr for NamedFd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text.split_once('=').ok_or("write NAME=N, for example disk0=5")?;
        if name.is_empty() {
            return Err("the name before '=' is empty".to_owned());
        }
        Ok(Self { name: name.to_owned(), number: parse_number(number)? })
    }
}

/// The number of a descriptor that is not one of the three standard ones.
pub fn parse_number(text: &str) -> Result<RawFd, String> {
    match text.parse() {
        Ok(number @ 3..) => Ok(number),
        _ => Err(format!("'{text}' is not the number of a passed descriptor: 3 or above")),
    }
}

/// Why a descriptor cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It is not open.
    #[error("descriptor {number} is not open: the starter has to pass it, without close-on-exec: {source}")]
    NotOpen {
        /// Its number.
        number: RawFd,
        /// What the kernel said.
        source: io::Error,
    },
    /// Two names for one, or one name for two.
    #[error("--fd {name}={number}: each name and each number may be given once")]
    Twice {
        /// The name.
        name: String,
        /// The number.
        number: RawFd,
    },
}

/// Takes every descriptor into ownership, by name. To be called once, before anything else opens files.
pub fn claim(named: &[NamedFd]) -> Result<BTreeMap<String, OwnedFd>, ClaimError> {
    let mut numbers = std::collections::BTreeSet::new();
    let mut owned = BTreeMap::new();
    for NamedFd { name, number } in named {
        let twice = || ClaimError::Twice { name: name.clone(), number: *number };
        if !numbers.insert(*number) || owned.contains_key(name) {
            return Err(twice());
        }
        owned.insert(name.clone(), claim_one(*number)?);
    }
    Ok(owned)
}

/// Takes descriptor `number` into ownership and sets close-on-exec. To be called once for each, before anything else
/// opens files.
#[expect(unsafe_code, reason = "a number from the command line becomes a descriptor here and nowhere else")]
pub fn claim_one(number: RawFd) -> Result<OwnedFd, ClaimError> {
    let not_open = |errno: rustix::io::Errno| ClaimError::NotOpen { number, source: errno.into() };
    // SAFETY: the number is not -1 (it is 3 or above), and the borrow ends within this function; if the number is not
    // open the kernel says so and it is not used further.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(borrowed).map_err(not_open)?;
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC).map_err(not_open)?;
    // SAFETY: it is open, as was just seen, and the one who started the process gave it away; the callers take every number
    // once and before any other code can have opened it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn a_name_and_a_number_are_needed() {
        let parsed: NamedFd = "disk0=5".parse().expect("well formed");
        assert_eq!(parsed, NamedFd { name: "disk0".to_owned(), number: 5 });
        for wrong in ["disk0", "=5", "disk0=", "disk0=x", "disk0=2", "disk0=-1"] {
            assert!(wrong.parse::<NamedFd>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_open_descriptor_is_taken_once() {
        let number = std::fs::File::open("/dev/null").expect("it is always there").into_raw_fd();
        let named = |name: &str| NamedFd { name: name.to_owned(), number };
        assert!(matches!(claim(&[named("a"), named("b")]), Err(ClaimError::Twice { .. })));
    }

    #[test]
    fn a_closed_descriptor_is_named() {
        let closed = NamedFd { name: "a".to_owned(), number: 1_000_000 };
        let error = claim(&[closed]).expect_err("far beyond any limit");
        assert!(error.to_string().starts_with("descriptor 1000000 is not open"), "{error}");
    }
}
