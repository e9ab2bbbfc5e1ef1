//! One mistake in a manifest, and how it is said.

use std::fmt;

use super::node::shorten;

/// A place in a text. Both count from 1; 0 is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One mistake: where and what.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Path of the field in its document; empty for the document itself.
    pub path: String,
    /// What is wrong with it.
    pub reason: Reason,
    /// Where it stands in the text.
    pub at: Position,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// There is no such field.
    Unknown {
        /// The field that was probably meant.
        suggestion: Option<String>,
    },
    /// A field that must be there is not.
    Missing {
        /// What it could be.
        example: Option<String>,
    },
    /// The key is there already.
    Duplicate {
        /// Where it stands first.
        first: Position,
    },
    /// A value of another type.
    WrongType {
        /// What was expected, with article.
        expected: String,
        /// What was found, with article.
        found: String,
    },
    /// A value that is not one of the known ones.
    NotAllowed {
        /// The value.
        value: String,
        /// The known ones.
        allowed: Vec<String>,
        /// The one that was probably meant.
        suggestion: Option<String>,
    },
    /// A value of the right type that means nothing; holds the reason.
    Invalid(String),
}

impl Problem {
    /// A value that is not one of the known ones.
    pub(super) fn not_allowed(path: String, value: &str, allowed: &[&str], at: Position) -> Self {
        let reason = Reason::NotAllowed {
            value: shorten(value),
            suggestion: closest(value, allowed.iter().copied()).map(str::to_owned),
            allowed: allowed.iter().map(|&value| value.to_owned()).collect(),
        };
        Problem { path, reason, at }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the document" } else { &self.path };
        write!(f, "{path}: {}", self.reason)?;
        if self.at.line > 0 { write!(f, " ({})", self.at) } else { Ok(()) }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unknown { suggestion } => write!(f, "unknown field{}", meant(suggestion.as_deref())),
            Reason::Missing { example: None } => f.write_str("missing"),
            Reason::Missing { example: Some(example) } => write!(f, "missing, for example `{example}`"),
            Reason::Duplicate { first } => write!(f, "given twice, first at {first}"),
            Reason::WrongType { expected, found } => write!(f, "expected {expected}, found {found}"),
            Reason::NotAllowed { value, allowed, suggestion } => {
                let allowed: Vec<_> = allowed.iter().map(|value| format!("`{value}`")).collect();
                let one_of = if allowed.len() > 1 { "one of " } else { "" };
                let meant = meant(suggestion.as_deref());
                write!(f, "`{value}` is not {one_of}{}{meant}", allowed.join(", "))
            }
            Reason::Invalid(reason) => f.write_str(reason),
        }
    }
}

fn meant(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

/// The candidate that a word was probably meant to be, if any comes near.
pub(super) fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing is quadratic in length, and nothing that long was meant to be a field.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
    candidates
        .map(|candidate| (distance(candidate), candidate))
        .filter(|&(distance, candidate)| distance <= candidate.len().max(lower.len()).div_ceil(3).min(4))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}
