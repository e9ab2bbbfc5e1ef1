//! A tree against a schema: all mistakes, or the JSON that serde can read.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::node::{Key, Node, Scalar, shorten};
use super::path::Path;
use super::problem::{Position, Problem, Reason, closest};
use super::shape::{Shape, shape};
use crate::quantity;

/// Nobody reads more at once.
const MAX_PROBLEMS: usize = 100;

/// The document as JSON without its unset fields, or everything that is wrong with it, in the text's order.
pub(super) fn check(root: &Value, node: &Node) -> Result<Value, Vec<Problem>> {
    let mut checker = Checker { root, path: Path::default(), problems: Vec::new() };
    let json = checker.value(root, node);
    let mut problems = checker.problems;
    if problems.is_empty() {
        return Ok(json);
    }
    problems.sort_by_key(|problem| problem.at);
    problems.truncate(MAX_PROBLEMS);
    Err(problems)
}

struct Checker<'s> {
    root: &'s Value,
    path: Path,
    problems: Vec<Problem>,
}

impl<'s> Checker<'s> {
    fn problem(&mut self, at: Position, reason: Reason) -> Value {
        self.problems.push(Problem { path: self.path.text(), reason, at });
        Value::Null
    }

    fn wrong_type(&mut self, expected: impl Into<String>, node: &Node) -> Value {
        let reason = Reason::WrongType { expected: expected.into(), found: node.describe() };
        self.problem(node.at, reason)
    }

    fn value(&mut self, schema: &'s Value, node: &Node) -> Value {
        let shape = shape(self.root, schema);
        match (shape, &node.value) {
            (Shape::Any, _) => plain(node),
            (Shape::Object { fields, required }, Scalar::Map(entries)) => {
                self.object(fields, &required, entries, node.at)
            }
            (Shape::Object { .. } | Shape::Map(_), _) if !matches!(node.value, Scalar::Map(_)) => {
                self.wrong_type("an object", node)
            }
            (Shape::Map(values), Scalar::Map(entries)) => self.map(values, entries),
            (Shape::List(items), Scalar::List(list)) => self.list(items, list),
            (Shape::List(_), _) => self.wrong_type("a list", node),
            (Shape::Boolean, Scalar::Bool(value)) => Value::from(*value),
            (Shape::Boolean, _) => self.wrong_type("a boolean (`true` or `false`)", node),
            (Shape::Number, Scalar::Number(value)) => Value::Number(value.clone()),
            (Shape::Number, _) => self.wrong_type("a number", node),
            (Shape::Integer { min, max }, _) => self.integer(min, max, node),
            (Shape::Enum(allowed), Scalar::String(text)) => self.one_of(&allowed, text, node),
            (Shape::Enum(allowed), _) => self.wrong_type(format!("one of {}", quoted(&allowed)), node),
            (Shape::String(format), Scalar::String(text)) => self.string(format, text, node),
            (Shape::String(_), Scalar::Bool(_) | Scalar::Number(_)) => {
                self.wrong_type("a string (put it in quotes)", node)
            }
            (Shape::String(_), _) => self.wrong_type("a string", node),
            (Shape::Quantity, _) => self.quantity(node),
            (Shape::IntOrString, Scalar::String(_)) => plain(node),
            (Shape::IntOrString, Scalar::Number(number)) if number.as_i64().is_some() => plain(node),
            (Shape::IntOrString, _) => self.wrong_type("a whole number or a string", node),
            (Shape::Object { .. } | Shape::Map(_), _) => Value::Null,
        }
    }

    fn object(
        &mut self,
        fields: Option<&'s Map<String, Value>>,
        required: &[&str],
        entries: &[(Key, Node)],
        at: Position,
    ) -> Value {
        let mut json = Map::new();
        for (index, (key, node)) in entries.iter().enumerate() {
            self.duplicate(&entries[..index], key);
            let schema = fields.and_then(|fields| fields.get(&key.text));
            match (schema, &node.value) {
                (None, _) => self.unknown(fields, key),
                (Some(_), Scalar::Null) => {}
                (Some(schema), _) => {
                    let value = self.deeper(&key.text, |checker| checker.value(schema, node));
                    json.insert(key.text.clone(), value);
                }
            }
        }
        for field in required.iter().filter(|&&field| !json.contains_key(field)) {
            self.deeper(field, |checker| checker.problem(at, Reason::Missing { example: None }));
        }
        Value::Object(json)
    }

    fn map(&mut self, values: &'s Value, entries: &[(Key, Node)]) -> Value {
        let mut json = Map::new();
        for (index, (key, node)) in entries.iter().enumerate() {
            self.duplicate(&entries[..index], key);
            let value = self.deeper(&key.text, |checker| checker.value(values, node));
            json.insert(key.text.clone(), value);
        }
        Value::Object(json)
    }

    fn list(&mut self, items: &'s Value, list: &[Node]) -> Value {
        let mut json = Vec::with_capacity(list.len());
        for (index, node) in list.iter().enumerate() {
            let mut path = std::mem::take(&mut self.path);
            path.index(index, |path| {
                std::mem::swap(&mut self.path, path);
                json.push(self.value(items, node));
                std::mem::swap(&mut self.path, path);
            });
            self.path = path;
        }
        Value::Array(json)
    }
}

impl Checker<'_> {
    fn todo(&self) {}
}
