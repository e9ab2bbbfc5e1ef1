//! Why an object is refused, as KubeVirt's API server says it.

use std::fmt;

use serde::Serialize;

/// One reason for a refusal: an entry of `status.details.causes` in the API server's answer.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The sort of mistake.
    pub reason: CauseType,
    /// What is wrong, in KubeVirt's words.
    pub message: String,
    /// The field that is meant; empty where KubeVirt names none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// Sorts of mistake (Kubernetes `metav1.CauseType`).
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseType {
    /// It refers to something that is not there.
    #[serde(rename = "FieldValueNotFound")]
    NotFound,
    /// Something is missing.
    #[serde(rename = "FieldValueRequired")]
    Required,
    /// Something is there twice.
    #[serde(rename = "FieldValueDuplicate")]
    Duplicate,
    /// The value makes no sense.
    #[serde(rename = "FieldValueInvalid")]
    Invalid,
    /// The value makes sense, but not here.
    #[serde(rename = "FieldValueNotSupported")]
    NotSupported,
}

/// The path of a field: `spec.domain.devices.disks[0].name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path from the object's root.
    pub fn new(root: &str) -> Path {
        Path(root.to_owned())
    }

    /// A field below; `names` may hold several levels, with dots between.
    pub fn child(&self, names: &str) -> Path {
        Path(format!("{}.{names}", self.0))
    }

    /// An element of a list.
    pub fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Collects reasons.
#[derive(Default)]
pub(super) struct Causes(Vec<Cause>);

impl Causes {
    pub fn push(&mut self, reason: CauseType, field: impl fmt::Display, message: impl Into<String>) {
        self.0.push(Cause { reason, message: message.into(), field: field.to_string() });
    }

    pub fn invalid(&mut self, field: impl fmt::Display, message: impl Into<String>) {
        self.push(CauseType::Invalid, field, message);
    }

    pub fn required(&mut self, field: impl fmt::Display, message: impl Into<String>) {
        self.push(CauseType::Required, field, message);
    }

    pub fn duplicate(&mut self, field: impl fmt::Display, message: impl Into<String>) {
        self.push(CauseType::Duplicate, field, message);
    }

    pub fn not_supported(&mut self, field: impl fmt::Display, message: impl Into<String>) {
        self.push(CauseType::NotSupported, field, message);
    }

    pub fn extend(&mut self, causes: Vec<Cause>) {
        self.0.extend(causes);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_vec(self) -> Vec<Cause> {
        self.0
    }

    /// Nothing, or all reasons.
    pub fn into_result(self) -> Result<(), Vec<Cause>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}
