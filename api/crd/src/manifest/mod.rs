//! Reading what a user wrote: YAML or JSON, one document or several, every mistake named at once.
//!
//! ```text
//! text ── node (YAML with line and column) ── check (against the schema of our types) ── serde ── Document
//! ```
//!
//! The schema is generated from the types, so that field names, types and values are said in one place. Limits
//! keep a hostile text from costing more than its size: see [`MAX_BYTES`] and the limits in `node`.

mod check;
mod node;
mod path;
mod problem;
mod shape;

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use self::check::check;
use self::node::{Node, Scalar};
pub use self::problem::{Position, Problem, Reason};
use crate::vm::VirtualMachine;
use crate::vmi::VirtualMachineInstance;

/// The longest text that is read. An API server accepts less than 2 MiB for one object.
pub const MAX_BYTES: usize = 4 << 20;

/// An object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// One run of a machine.
    VirtualMachineInstance(Box<VirtualMachineInstance>),
    /// A machine.
    VirtualMachine(Box<VirtualMachine>),
    /// Secret data that machines of the same manifest refer to.
    Secret(Box<Secret>),
    /// Other data that machines of the same manifest refer to.
    ConfigMap(Box<ConfigMap>),
}

impl Document {
    /// The object's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Document::VirtualMachineInstance(_) => "VirtualMachineInstance",
            Document::VirtualMachine(_) => "VirtualMachine",
            Document::Secret(_) => "Secret",
            Document::ConfigMap(_) => "ConfigMap",
        }
    }

    /// The object's name, where it has one.
    pub fn name(&self) -> Option<&str> {
        let metadata = match self {
            Document::VirtualMachineInstance(vmi) => &vmi.metadata,
            Document::VirtualMachine(vm) => &vm.metadata,
            Document::Secret(secret) => &secret.metadata,
            Document::ConfigMap(map) => &map.metadata,
        };
        metadata.name.as_deref()
    }

    /// The object as JSON.
    pub fn to_json(&self) -> Result<Value, serde_json::Error> {
        match self {
            Document::VirtualMachineInstance(vmi) => serde_json::to_value(vmi),
            Document::VirtualMachine(vm) => serde_json::to_value(vm),
            Document::Secret(secret) => serde_json::to_value(secret),
            Document::ConfigMap(map) => serde_json::to_value(map),
        }
    }
}

/// Why a manifest cannot be carried out.
#[derive(Debug, PartialEq, Error)]
pub enum ManifestError {
    /// Longer than [`MAX_BYTES`].
    #[error("the manifest has {len_bytes} bytes; at most {MAX_BYTES} are read")]
    TooLarge {
        /// Its length.
        len_bytes: usize,
    },
    /// Neither YAML nor JSON, or beyond a limit of the reader.
    #[error("the manifest is neither YAML nor JSON: {0}")]
    Syntax(String),
    /// No document in it.
    #[error("the manifest holds no document")]
    Empty,
    /// Read well, but not what we know; lists all mistakes, up to 100 in each document.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

/// Reads a manifest: all its documents, or all its mistakes.
pub fn parse(text: &str) -> Result<Vec<Document>, ManifestError> {
    if text.len() > MAX_BYTES {
        return Err(ManifestError::TooLarge { len_bytes: text.len() });
    }
    let nodes = node::read(text).map_err(ManifestError::Syntax)?;
    if nodes.is_empty() {
        return Err(ManifestError::Empty);
    }
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for node in &nodes {
        match document(node) {
            Ok(document) => documents.push(document),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(documents) } else { Err(ManifestError::Invalid(problems)) }
}

/// A kind that a manifest may hold.
struct Kind {
    name: &'static str,
    api_versions: &'static [&'static str],
    schema: LazyLock<Value>,
    decode: fn(Value) -> Result<Document, serde_path_to_error::Error<serde_json::Error>>,
}

static KINDS: [Kind; 4] = [
    Kind {
        name: "VirtualMachineInstance",
        api_versions: &["kubevirt.io/v1", "kubevirt.io/v1alpha3"],
        schema: LazyLock::new(schema::<VirtualMachineInstance>),
        decode: |json| Ok(Document::VirtualMachineInstance(decode(json)?)),
    },
    Kind {
        name: "VirtualMachine",
        api_versions: &["kubevirt.io/v1", "kubevirt.io/v1alpha3"],
        schema: LazyLock::new(schema::<VirtualMachine>),
        decode: |json| Ok(Document::VirtualMachine(decode(json)?)),
    },
    Kind {
        name: "Secret",
        api_versions: &["v1"],
        schema: LazyLock::new(schema::<Secret>),
        decode: |json| Ok(Document::Secret(decode(json)?)),
    },
    Kind {
        name: "ConfigMap",
        api_versions: &["v1"],
        schema: LazyLock::new(schema::<ConfigMap>),
        decode: |json| Ok(Document::ConfigMap(decode(json)?)),
    },
];

/// The JSON schema (2020-12) of a type, with the schemas of its parts under `$defs`.
pub fn schema<T: JsonSchema>() -> Value {
    SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<T>().to_value()
}

fn decode<T: DeserializeOwned>(json: Value) -> Result<Box<T>, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(json).map(Box::new)
}

fn document(node: &Node) -> Result<Document, Vec<Problem>> {
    let kind = kind(node)?;
    let json = check(&kind.schema, node)?;
    (kind.decode)(json).map_err(|error| {
        let path = error.path().to_string();
        vec![Problem { path, reason: Reason::Invalid(error.into_inner().to_string()), at: node.at }]
    })
}

/// The kind of a document, by its `kind` and `apiVersion`.
fn kind(node: &Node) -> Result<&'static Kind, Vec<Problem>> {
    let Scalar::Map(entries) = &node.value else {
        let reason = Reason::WrongType { expected: "an object".to_owned(), found: node.describe() };
        return Err(vec![Problem { path: String::new(), reason, at: node.at }]);
    };
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let (name, at) = header(node, entries, "kind", &names)?;
    let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
        return Err(vec![Problem::not_allowed("kind".to_owned(), name, &names, at)]);
    };
    let (version, at) = header(node, entries, "apiVersion", kind.api_versions)?;
    if kind.api_versions.contains(&version) {
        Ok(kind)
    } else {
        Err(vec![Problem::not_allowed("apiVersion".to_owned(), version, kind.api_versions, at)])
    }
}

/// The text of `apiVersion` or `kind`, and where it is.
fn header<'a>(
    node: &Node,
    entries: &'a [(node::Key, Node)],
    field: &str,
    allowed: &[&str],
) -> Result<(&'a str, Position), Vec<Problem>> {
    let value = entries.iter().find(|(key, _)| key.text == field).map(|(_, value)| value);
    match value.map(|value| (&value.value, value)) {
        Some((Scalar::String(text), value)) => Ok((text, value.at)),
        Some((Scalar::Null, _)) | None => Err(vec![Problem {
            path: field.to_owned(),
            reason: Reason::Missing { example: allowed.first().map(|&first| first.to_owned()) },
            at: node.at,
        }]),
        Some((_, value)) => {
            let reason = Reason::WrongType { expected: "a string".to_owned(), found: value.describe() };
            Err(vec![Problem { path: field.to_owned(), reason, at: value.at }])
        }
    }
}

#[cfg(test)]
mod tests;
