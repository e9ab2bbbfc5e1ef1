//! A tree against a schema: all mistakes, or the JSON that serde can read.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::node::{Key, Node, Scalar};
use super::path::Path;
use super::problem::{Position, Problem, Reason, closest};
use super::shape::{Shape, shape};
use crate::quantity;

/// Nobody reads more at once, and a hostile document could have as many as it has bytes.
const MAX_PROBLEMS: usize = 100;

/// The document as JSON without its unset fields, or everything that is wrong with it, in the text's order.
pub(super) fn check(root: &Value, node: &Node) -> Result<Value, Vec<Problem>> {
    let mut checker = Checker { root, path: Path::default(), problems: Vec::new() };
    let json = checker.value(root, node);
    let mut problems = checker.problems;
    problems.sort_by_key(|problem| problem.at);
    if problems.is_empty() { Ok(json) } else { Err(problems) }
}

struct Checker<'s> {
    root: &'s Value,
    path: Path,
    problems: Vec<Problem>,
}

impl<'s> Checker<'s> {
    fn problem(&mut self, at: Position, reason: Reason) -> Value {
        if !self.is_full() {
            self.problems.push(Problem { path: self.path.text(), reason, at });
        }
        Value::Null
    }

    fn is_full(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS
    }

    fn wrong_type(&mut self, expected: impl Into<String>, node: &Node) -> Value {
        let reason = Reason::WrongType { expected: expected.into(), found: node.describe() };
        self.problem(node.at, reason)
    }

    fn value(&mut self, schema: &'s Value, node: &Node) -> Value {
        let shape = shape(self.root, schema);
        match (shape, &node.value) {
            (Shape::Any, _) => plain(node),
            (Shape::Object { fields, required }, Scalar::Map(_)) => self.object(fields, &required, node),
            (Shape::Map(values), Scalar::Map(_)) => self.map(values, node),
            (Shape::Object { .. } | Shape::Map(_), _) => self.wrong_type("an object", node),
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
        }
    }

    fn object(&mut self, fields: Option<&'s Map<String, Value>>, required: &[&str], node: &Node) -> Value {
        let mut json = Map::new();
        for (key, value) in self.entries(node) {
            let Some(schema) = fields.and_then(|fields| fields.get(&key.text)) else {
                self.unknown(fields, key);
                continue;
            };
            if !matches!(value.value, Scalar::Null) {
                let value = self.below(&key.text, |checker| checker.value(schema, value));
                json.insert(key.text.clone(), value);
            }
        }
        for field in required.iter().filter(|&&field| !json.contains_key(field)) {
            self.below(field, |checker| checker.problem(node.at, Reason::Missing { example: None }));
        }
        Value::Object(json)
    }

    fn map(&mut self, values: &'s Value, node: &Node) -> Value {
        let entries = self.entries(node).into_iter().map(|(key, value)| {
            let value = self.below(&key.text, |checker| checker.value(values, value));
            (key.text.clone(), value)
        });
        Value::Object(entries.collect())
    }

    fn list(&mut self, items: &'s Value, list: &[Node]) -> Value {
        let items = list.iter().enumerate().map(|(index, node)| {
            let mark = self.path.push_index(index);
            let value = self.value(items, node);
            self.path.pop(mark);
            value
        });
        Value::Array(items.collect())
    }

    /// The entries of an object, each key once.
    fn entries<'n>(&mut self, node: &'n Node) -> Vec<(&'n Key, &'n Node)> {
        let Scalar::Map(entries) = &node.value else { return Vec::new() };
        let mut seen: HashMap<&str, Position> = HashMap::new();
        let mut once = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            match seen.entry(&key.text) {
                Entry::Vacant(slot) => {
                    slot.insert(key.at);
                    once.push((key, value));
                }
                Entry::Occupied(slot) => {
                    let first = *slot.get();
                    self.below(&key.text, |checker| checker.problem(key.at, Reason::Duplicate { first }));
                }
            }
        }
        once
    }

    fn unknown(&mut self, fields: Option<&'s Map<String, Value>>, key: &Key) {
        let suggestion = fields.filter(|_| !self.is_full()).and_then(|fields| {
            let misplaced = || self.one_level_down(fields, &key.text);
            closest(&key.text, fields.keys().map(String::as_str)).map(str::to_owned).or_else(misplaced)
        });
        self.below(&key.text, |checker| checker.problem(key.at, Reason::Unknown { suggestion }));
    }

    /// The field of that name in one of the objects here: `disks` is meant as `devices.disks`.
    fn one_level_down(&self, fields: &'s Map<String, Value>, name: &str) -> Option<String> {
        fields.iter().find_map(|(field, schema)| match shape(self.root, schema) {
            Shape::Object { fields: Some(inner), .. } => {
                inner.contains_key(name).then(|| format!("{field}.{name}"))
            }
            _ => None,
        })
    }

    fn below<T>(&mut self, key: &str, then: impl FnOnce(&mut Self) -> T) -> T {
        let mark = self.path.push_key(key);
        let result = then(self);
        self.path.pop(mark);
        result
    }

    fn integer(&mut self, min: i128, max: i128, node: &Node) -> Value {
        let Scalar::Number(number) = &node.value else { return self.wrong_type("a whole number", node) };
        let value = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        match value {
            Some(value) if (min..=max).contains(&value) => Value::Number(number.clone()),
            Some(_) => self.wrong_type(format!("a whole number from {min} to {max}"), node),
            None => self.wrong_type("a whole number", node),
        }
    }

    fn one_of(&mut self, allowed: &[&str], text: &str, node: &Node) -> Value {
        if !allowed.contains(&text) && !self.is_full() {
            let problem = Problem::not_allowed(self.path.text(), text, allowed, node.at);
            self.problems.push(problem);
        }
        Value::from(text)
    }

    fn string(&mut self, format: Option<&str>, text: &str, node: &Node) -> Value {
        let json = Value::from(text);
        match format {
            Some("date-time") if !readable::<Time>(&json) => {
                self.wrong_type("a time such as `2026-01-31T12:00:00Z` (RFC 3339)", node)
            }
            Some("byte") if !readable::<ByteString>(&json) => self.wrong_type("base64", node),
            _ => json,
        }
    }

    fn quantity(&mut self, node: &Node) -> Value {
        let text = match &node.value {
            Scalar::String(text) => text.clone(),
            Scalar::Number(number) => number.to_string(),
            _ => return self.wrong_type("a quantity such as `512Mi` or `2`", node),
        };
        match quantity::check(&text) {
            Ok(()) => Value::from(text),
            Err(error) => self.problem(node.at, Reason::Invalid(error.to_string())),
        }
    }
}

fn readable<T: DeserializeOwned>(json: &Value) -> bool {
    T::deserialize(json).is_ok()
}

fn quoted(values: &[&str]) -> String {
    values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
}

/// A value of which nothing is known, as it is. Of keys that are given twice the last stays.
fn plain(node: &Node) -> Value {
    match &node.value {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::from(*value),
        Scalar::Number(number) => Value::Number(number.clone()),
        Scalar::String(text) => Value::from(text.as_str()),
        Scalar::List(list) => Value::Array(list.iter().map(plain).collect()),
        Scalar::Map(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.text.clone(), plain(value))).collect())
        }
    }
}
