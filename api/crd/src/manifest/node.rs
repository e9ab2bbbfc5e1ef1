//! YAML as a tree in which every node knows where it stands. JSON is read as the YAML that it is.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Spanned};

use super::problem::Position;

/// Deeper than any manifest; ours end at about 20.
const MAX_DEPTH: usize = 64;
/// Nodes of all documents together, before and after aliases are followed.
const MAX_NODES: usize = 100_000;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub value: Scalar,
    pub at: Position,
}

/// A value, typed as YAML 1.1 does without a schema (as `kubectl` reads it: `yes` is a boolean).
#[derive(Debug)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it stands. Keys are strings, whatever they look like.
#[derive(Debug)]
pub(super) struct Key {
    pub text: String,
    pub at: Position,
}

impl Node {
    /// The value in a few words, for "found …".
    pub fn describe(&self) -> String {
        match &self.value {
            Scalar::Null => "nothing".to_owned(),
            Scalar::Bool(value) => format!("the boolean `{value}`"),
            Scalar::Number(value) => format!("the number `{value}`"),
            Scalar::String(text) => format!("the string `{}`", shorten(text)),
            Scalar::List(_) => "a list".to_owned(),
            Scalar::Map(_) => "an object".to_owned(),
        }
    }
}

/// The beginning of a text, on one line, short enough for a message.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(64).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// All documents of a text; those that hold nothing are passed over.
pub(super) fn read(text: &str) -> Result<Vec<Node>, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_recorded_anchor_events: MAX_NODES,
            max_documents: 256,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())
}

fn position(at: Location) -> Position {
    Position { line: at.line(), column: at.column() }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Scalar>::deserialize(deserializer)?;
        Ok(Node { value, at: position(referenced) })
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_none<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
        Number::from_f64(value).map(Scalar::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Scalar, E> {
        Ok(Scalar::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Scalar::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Node>()? {
            entries.push((Key { at: position(key.referenced), text: key.value }, value));
        }
        Ok(Scalar::Map(entries))
    }
}
