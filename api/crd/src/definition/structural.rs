//! From the JSON schema of a type to a structural schema, the only kind that an API server takes.
//!
//! Structural (Kubernetes, "Specifying a structural schema"): every part has a type, nothing refers elsewhere, and
//! choices do not describe fields. What a type says beyond that is told in the description: the values of an
//! enumeration are listed there, and refused by admission with KubeVirt's words, except for the few that KubeVirt's own
//! schemas close.

use serde_json::{Map, Value, json};

/// Quantities, as KubeVirt's and Kubernetes' own definitions bound them.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// Fields that may be `null`: KubeVirt writes the times of a condition so.
const NULLABLE: [&str; 2] = ["lastProbeTime", "lastTransitionTime"];

/// Enumerations that the API server itself holds closed, by the fields that have them.
const CLOSED: [&str; 4] = ["dnsPolicy", "imagePullPolicy", "qosClass", "volumeMode"];

/// Whether descriptions are kept. The deprecated version does without, so that an object stays small enough for
/// `kubectl apply`, which keeps a copy of it in an annotation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Descriptions {
    Kept,
    Dropped,
}

/// The structural schema of a root type, from its JSON schema (2020-12).
pub(super) fn structural(root: &Value, descriptions: Descriptions) -> Value {
    let mut schema = Converter { root, descriptions }.convert(root, None);
    // The API server knows metadata itself, and wants to hear no more of it.
    schema["properties"]["metadata"] = json!({ "type": "object" });
    for header in ["apiVersion", "kind"] {
        if let Some(field) = schema["properties"][header].as_object_mut() {
            field.remove("enum");
        }
    }
    schema
}

struct Converter<'s> {
    root: &'s Value,
    descriptions: Descriptions,
}

impl Converter<'_> {
    /// The schema of one part; `field` is its name where it is a field.
    fn convert(&self, schema: &Value, field: Option<&str>) -> Value {
        let Some(object) = schema.as_object() else { return anything() };
        let mut converted = match self.special(object, field) {
            Some(special) => special,
            None => self.plain(object),
        };
        if let Some(part) = converted.as_object_mut() {
            self.describe(part, object);
            for extension in ["x-kubernetes-list-type", "x-kubernetes-list-map-keys"] {
                if let Some(value) = object.get(extension) {
                    part.insert(extension.to_owned(), value.clone());
                }
            }
            if field.is_some_and(|field| NULLABLE.contains(&field)) {
                part.insert("nullable".to_owned(), Value::Bool(true));
            }
        }
        converted
    }

    /// References, choices and enumerations.
    fn special(&self, object: &Map<String, Value>, field: Option<&str>) -> Option<Value> {
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            return Some(self.referenced(reference, field));
        }
        if let Some(choices) = object.get("anyOf").and_then(Value::as_array) {
            let value = choices.iter().find(|choice| choice["type"] != "null")?;
            return Some(self.convert(value, field));
        }
        let values = values(object)?;
        if !field.is_some_and(|field| CLOSED.contains(&field)) {
            return Some(json!({ "type": "string" }));
        }
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        Some(json!({ "type": "string", "enum": names }))
    }

    fn referenced(&self, reference: &str, field: Option<&str>) -> Value {
        let name = reference.trim_start_matches("#/$defs/");
        match name.strip_prefix("io.k8s.apimachinery.pkg.") {
            Some("api.resource.Quantity") => json!({
                "anyOf": [{ "type": "integer" }, { "type": "string" }],
                "pattern": QUANTITY,
                "x-kubernetes-int-or-string": true,
            }),
            Some("util.intstr.IntOrString") => json!({
                "anyOf": [{ "type": "integer" }, { "type": "string" }],
                "x-kubernetes-int-or-string": true,
            }),
            // Of templates: a client may send what it likes, such as `creationTimestamp: null`.
            Some("apis.meta.v1.ObjectMeta") => json!({
                "type": "object",
                "nullable": true,
                "x-kubernetes-preserve-unknown-fields": true,
            }),
            _ => self.convert(&self.root["$defs"][name], field),
        }
    }

    fn plain(&self, object: &Map<String, Value>) -> Value {
        match type_name(object) {
            Some("object") => self.object(object),
            Some("array") => {
                let items = object.get("items").unwrap_or(&Value::Null);
                json!({ "type": "array", "items": self.convert(items, None) })
            }
            Some("integer") => integer(object.get("format").and_then(Value::as_str)),
            Some("number") => json!({ "type": "number" }),
            Some("string") => match object.get("format").and_then(Value::as_str) {
                Some(format @ ("date-time" | "byte")) => json!({ "type": "string", "format": format }),
                _ => json!({ "type": "string" }),
            },
            Some("boolean") => json!({ "type": "boolean" }),
            _ if object.contains_key("x-kubernetes-int-or-string") => json!({
                "anyOf": [{ "type": "integer" }, { "type": "string" }],
                "x-kubernetes-int-or-string": true,
            }),
            _ => anything(),
        }
    }

    fn object(&self, object: &Map<String, Value>) -> Value {
        if let Some(values) = object.get("additionalProperties").filter(|values| values.is_object()) {
            return json!({ "type": "object", "additionalProperties": self.convert(values, None) });
        }
        let mut converted = json!({ "type": "object" });
        let fields = object.get("properties").and_then(Value::as_object);
        let fields: Map<String, Value> = fields
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.clone(), self.convert(schema, Some(name))))
            .collect();
        if !fields.is_empty() {
            converted["properties"] = Value::Object(fields);
        }
        if let Some(required) =
            object.get("required").and_then(Value::as_array).filter(|list| !list.is_empty())
        {
            converted["required"] = Value::Array(required.clone());
        }
        converted
    }

    /// The field's own description, else that of its type; then the values of an enumeration.
    fn describe(&self, part: &mut Map<String, Value>, object: &Map<String, Value>) {
        if self.descriptions == Descriptions::Dropped {
            return;
        }
        let below = part.remove("description").and_then(|text| text.as_str().map(str::to_owned));
        let own = object.get("description").and_then(Value::as_str).map(prose);
        let listed = values(object).map(|values| list(&values));
        // Of a type below, only the list of values goes with the field's own words.
        let below_list = below.as_deref().and_then(|text| text.find(LIST).map(|at| text[at..].to_owned()));
        let text = match (own, listed.or(below_list), below) {
            (Some(own), Some(list), _) => format!("{own}{list}"),
            (Some(own), None, _) => own,
            (None, _, Some(below)) => below,
            (None, Some(list), None) => list.trim_start().to_owned(),
            (None, None, None) => return,
        };
        part.insert("description".to_owned(), Value::String(text));
    }
}

/// How the list of values begins in a description.
const LIST: &str = " Values: ";

fn list(values: &[(&str, Option<&str>)]) -> String {
    let values = values.iter().map(|(name, meaning)| match meaning {
        Some(meaning) => format!("`{name}` ({})", prose(meaning).trim_end_matches('.')),
        None => format!("`{name}`"),
    });
    format!("{LIST}{}.", values.collect::<Vec<_>>().join(", "))
}

/// The values of an enumeration, each with its meaning.
fn values(object: &Map<String, Value>) -> Option<Vec<(&str, Option<&str>)>> {
    if let Some(variants) = object.get("oneOf").and_then(Value::as_array) {
        let mut found = Vec::new();
        for variant in variants.iter().filter_map(Value::as_object) {
            found.extend(values(variant)?);
        }
        return Some(found);
    }
    let meaning = object.get("description").and_then(Value::as_str);
    if let Some(value) = object.get("const").and_then(Value::as_str) {
        return Some(vec![(value, meaning)]);
    }
    let names = object.get("enum")?.as_array()?;
    Some(names.iter().filter_map(Value::as_str).map(|name| (name, None)).collect())
}

/// A doc comment as plain text: one line, without links, of Kubernetes' long ones the first sentence.
fn prose(comment: &str) -> String {
    let mut text = String::with_capacity(comment.len());
    let mut rest = comment;
    while let Some(start) = rest.find("[`") {
        let Some(end) = rest[start..].find("`]").map(|end| start + end) else { break };
        text.push_str(&rest[..start]);
        text.push_str(&rest[start + 1..=end]);
        rest = &rest[end + 2..];
        if let Some(close) = rest.strip_prefix('(').and_then(|target| target.find(')')) {
            rest = &rest[close + 2..];
        }
    }
    text.push_str(rest);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.find(". ").filter(|_| line.len() > MAX_PROSE_BYTES) {
        Some(end) => line[..=end].to_owned(),
        None => line,
    }
}

/// Longer than any of our own comments; the types of Kubernetes have some of several kilobytes.
const MAX_PROSE_BYTES: usize = 330;

fn type_name(schema: &Map<String, Value>) -> Option<&str> {
    match schema.get("type")? {
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|&name| name != "null"),
        name => name.as_str(),
    }
}

/// Whole numbers. OpenAPI knows no unsigned formats; where KubeVirt's words say what is wrong with a port or an
/// option (8 and 16 bits), admission says them.
fn integer(format: Option<&str>) -> Value {
    match format {
        Some("uint8" | "uint16" | "int32") => json!({ "type": "integer", "format": "int32" }),
        Some("uint32") => json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX }),
        Some("uint64") => json!({ "type": "integer", "format": "int64", "minimum": 0 }),
        _ => json!({ "type": "integer", "format": "int64" }),
    }
}

fn anything() -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
