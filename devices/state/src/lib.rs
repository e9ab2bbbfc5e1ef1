//! Saved state: versioned records of plain data.
//!
//! Every device describes what must survive a snapshot as plain structs that are apart from its living types, each
//! with a kind and a version. A [`Record`] is such a struct on its way: `{kind, name, version, body}`, the body in
//! postcard's wire format (<https://postcard.jamesmunns.com/wire-format>), which has one encoding per value, so that
//! equal states are equal bytes.
//!
//! A record is hostile input: reading one checks kind, version, length and trailing bytes, and the device then checks
//! every value before it uses it.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest body accepted, in bytes: devices keep registers and short backlogs, never guest memory.
pub const BODY_MAX_BYTES: usize = 4 << 20;

/// Plain data that can be put into a [`Record`].
pub trait State: Serialize + DeserializeOwned {
    /// What the record describes, for example `virtio-blk`.
    const KIND: &'static str;
    /// The version that is written. A field that is added, taken away or changes its meaning needs a new one.
    const VERSION: u16;
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The record is of another kind.
    #[error("saved state is of kind '{found}', not '{expected}'")]
    Kind {
        /// What was asked for.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The record has a version that this build does not read.
    #[error("saved state of '{kind}' has version {found}; this build reads {reads}")]
    Version {
        /// The record's kind.
        kind: &'static str,
        /// What is there.
        found: u16,
        /// What this build reads.
        reads: u16,
    },
    /// The body is longer than [`BODY_MAX_BYTES`].
    #[error("saved state of '{kind}' is {len} bytes long, more than {BODY_MAX_BYTES}")]
    TooLong {
        /// The record's kind.
        kind: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The body is not the encoding of such a state.
    #[error("saved state of '{kind}' is malformed: {reason}")]
    Malformed {
        /// The record's kind.
        kind: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// The body decodes, but a value in it cannot be.
    #[error("saved state of '{kind}' has an impossible value: {reason}")]
    Invalid {
        /// The record's kind.
        kind: &'static str,
        /// Which value, and why.
        reason: String,
    },
}

/// One component's saved state on its way to or from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it describes: [`State::KIND`].
    pub kind: String,
    /// Which one of its kind, for example the device's id; empty where there is only one.
    pub name: String,
    /// [`State::VERSION`] of the writer.
    pub version: u16,
    /// The encoded state.
    pub body: Vec<u8>,
}

impl Record {
    /// Encodes `state` under `name`.
    pub fn write<S: State>(name: &str, state: &S) -> Result<Self, StateError> {
        let body = postcard::to_stdvec(state)
            .map_err(|e| StateError::Malformed { kind: S::KIND, reason: e.to_string() })?;
        if body.len() > BODY_MAX_BYTES {
            return Err(StateError::TooLong { kind: S::KIND, len: body.len() });
        }
        Ok(Self { kind: S::KIND.to_owned(), name: name.to_owned(), version: S::VERSION, body })
    }

    /// Decodes the state, refusing another kind, another version, and bytes left over.
    pub fn read<S: State>(&self) -> Result<S, StateError> {
        if self.kind != S::KIND {
            return Err(StateError::Kind { expected: S::KIND, found: self.kind.clone() });
        }
        if self.version != S::VERSION {
            return Err(StateError::Version { kind: S::KIND, found: self.version, reads: S::VERSION });
        }
        if self.body.len() > BODY_MAX_BYTES {
            return Err(StateError::TooLong { kind: S::KIND, len: self.body.len() });
        }
        let malformed = |reason: String| StateError::Malformed { kind: S::KIND, reason };
        match postcard::take_from_bytes(&self.body) {
            Ok((state, [])) => Ok(state),
            Ok((_, rest)) => Err(malformed(format!("{} bytes are left over", rest.len()))),
            Err(e) => Err(malformed(e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Lamp {
        on: bool,
        lumen: u32,
    }

    impl State for Lamp {
        const KIND: &'static str = "lamp";
        const VERSION: u16 = 2;
    }

    #[test]
    fn a_state_survives_its_record() {
        let record = Record::write("left", &Lamp { on: true, lumen: 800 }).unwrap();
        assert_eq!(record.name, "left");
        assert_eq!(record.read::<Lamp>().unwrap(), Lamp { on: true, lumen: 800 });
    }

    #[test]
    fn a_record_that_was_tampered_with_is_refused() {
        let record = Record::write("", &Lamp { on: true, lumen: 800 }).unwrap();
        let with = |change: fn(&mut Record)| {
            let mut r = record.clone();
            change(&mut r);
            r.read::<Lamp>()
        };
        assert!(matches!(with(|r| r.kind = "lump".into()), Err(StateError::Kind { .. })));
        assert!(matches!(with(|r| r.version = 3), Err(StateError::Version { found: 3, reads: 2, .. })));
        assert!(matches!(with(|r| r.body.push(0)), Err(StateError::Malformed { .. })));
        assert!(matches!(with(|r| r.body.truncate(1)), Err(StateError::Malformed { .. })));
        assert!(matches!(with(|r| r.body[0] = 7), Err(StateError::Malformed { .. })));
        assert!(matches!(with(|r| r.body = vec![0; BODY_MAX_BYTES + 1]), Err(StateError::TooLong { .. })));
    }
}
