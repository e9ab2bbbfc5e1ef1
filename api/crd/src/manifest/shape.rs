//! What a JSON schema says of one value, in the few words that the schemas of our types need.

use serde_json::{Map, Value};

/// What a value may be.
pub(super) enum Shape<'s> {
    /// An object with known fields.
    Object { fields: Option<&'s Map<String, Value>>, required: Vec<&'s str> },
    /// An object with keys of the user's choice and values of one schema.
    Map(&'s Value),
    /// A list of values of one schema.
    List(&'s Value),
    /// One of these strings.
    Enum(Vec<&'s str>),
    /// A string, perhaps in a format.
    String(Option<&'s str>),
    /// A whole number in a range.
    Integer { min: i128, max: i128 },
    /// Any number.
    Number,
    /// A boolean.
    Boolean,
    /// A Kubernetes quantity: string or number.
    Quantity,
    /// A whole number or a string.
    IntOrString,
    /// Anything.
    Any,
}

/// The shape that a schema describes; `root` holds the definitions that it refers to.
pub(super) fn shape<'s>(root: &'s Value, schema: &'s Value) -> Shape<'s> {
    let Some(object) = schema.as_object() else { return Shape::Any };
    if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
        return referenced(root, reference);
    }
    if object.contains_key("x-kubernetes-int-or-string") {
        return Shape::IntOrString;
    }
    if let Some(choices) = object.get("anyOf").and_then(Value::as_array) {
        let value = choices.iter().find(|choice| choice.get("type") != Some(&Value::from("null")));
        return value.map_or(Shape::Any, |value| shape(root, value));
    }
    if let Some(values) = enumerated(object) {
        return Shape::Enum(values);
    }
    match type_name(object) {
        Some("object") => match object.get("additionalProperties") {
            Some(values) if values.is_object() => Shape::Map(values),
            _ => Shape::Object {
                fields: object.get("properties").and_then(Value::as_object),
                required: strings(object.get("required")),
            },
        },
        Some("array") => Shape::List(object.get("items").unwrap_or(&Value::Null)),
        Some("string") => Shape::String(object.get("format").and_then(Value::as_str)),
        Some("integer") => integer(object),
        Some("number") => Shape::Number,
        Some("boolean") => Shape::Boolean,
        _ => Shape::Any,
    }
}

fn referenced<'s>(root: &'s Value, reference: &str) -> Shape<'s> {
    let Some(name) = reference.strip_prefix("#/$defs/") else { return Shape::Any };
    match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Shape::Quantity,
        // Managed fields, which no user writes, are any JSON.
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" => Shape::Any,
        _ => root.pointer(&format!("/$defs/{name}")).map_or(Shape::Any, |schema| shape(root, schema)),
    }
}

/// The type, where `["string", "null"]` is a string: unset is always allowed where it is not required.
fn type_name(schema: &Map<String, Value>) -> Option<&str> {
    match schema.get("type")? {
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|&name| name != "null"),
        name => name.as_str(),
    }
}

fn enumerated(schema: &Map<String, Value>) -> Option<Vec<&str>> {
    if let Some(value) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![value]);
    }
    if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
        let values = variants.iter().filter_map(Value::as_object).filter_map(enumerated);
        return Some(values.flatten().collect());
    }
    schema.contains_key("enum").then(|| strings(schema.get("enum")))
}

fn strings(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn integer<'s>(schema: &Map<String, Value>) -> Shape<'s> {
    let (min, max) = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (0, i128::from(u8::MAX)),
        Some("uint16") => (0, i128::from(u16::MAX)),
        Some("uint32") => (0, i128::from(u32::MAX)),
        Some("uint64") => (0, i128::from(u64::MAX)),
        Some("int32") => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    Shape::Integer { min, max }
}
