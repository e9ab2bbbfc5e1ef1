//! The table of all fields, made from KubeVirt's OpenAPI document.
//!
//! One line is one field: definition, field, type, `required` or nothing, and the values of an enumeration.
//! A definition without fields has one line with an empty field. Definitions of Kubernetes itself are named
//! and not followed: their types are k8s-openapi's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Where the definitions start.
pub const ROOTS: [&str; 10] = [
    "v1.VirtualMachine",
    "v1.VirtualMachineInstance",
    "v1.VirtualMachineInstanceReplicaSet",
    "v1.VirtualMachineInstanceMigration",
    "v1.VirtualMachineInstancePreset",
    "v1.KubeVirt",
    "v1beta1.VirtualMachineInstancetype",
    "v1beta1.VirtualMachineClusterInstancetype",
    "v1beta1.VirtualMachinePreference",
    "v1beta1.VirtualMachineClusterPreference",
];

const HEAD: &str = "\
# Every field of the kinds of kubevirt.io/v1 and instancetype.kubevirt.io/v1beta1 that we serve.
# Made by `cargo run -p orlop-crd --example fields`; do not edit.
# definition\tfield\ttype\trequired\tvalues
";

/// What the table says of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub kind: String,
    pub required: bool,
    pub values: BTreeSet<String>,
}

/// Fields by definition and name.
pub type Table = BTreeMap<String, BTreeMap<String, Field>>;

/// The table as text.
pub fn write(swagger: &Value) -> String {
    let mut table = BTreeMap::new();
    for root in ROOTS {
        collect(&swagger["definitions"], root, &mut table);
    }
    let mut text = HEAD.to_owned();
    for (definition, lines) in table {
        for line in lines {
            text.push_str(&format!("{definition}\t{line}\n"));
        }
    }
    text
}

fn collect(definitions: &Value, name: &str, table: &mut BTreeMap<String, Vec<String>>) {
    if table.contains_key(name) {
        return;
    }
    let definition = &definitions[name];
    let empty = serde_json::Map::new();
    let fields = definition["properties"].as_object().unwrap_or(&empty);
    let required = definition["required"].as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    let mut followed = BTreeSet::new();
    for (field, schema) in fields {
        let needed = if required.contains(&Value::from(field.as_str())) { "required" } else { "" };
        let values = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let values = values.collect::<Vec<_>>().join(",");
        lines.push(
            format!("{field}\t{}\t{needed}\t{values}", kind(schema, &mut followed)).trim_end().to_owned(),
        );
    }
    if lines.is_empty() {
        lines.push("\tobject".to_owned());
    }
    table.insert(name.to_owned(), lines);
    for name in followed {
        collect(definitions, &name, table);
    }
}

/// A type in one word or two; notes the definitions that it leads to.
fn kind(schema: &Value, followed: &mut BTreeSet<String>) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.trim_start_matches("#/definitions/");
        return match name.strip_prefix("k8s.io.") {
            Some("apimachinery.pkg.api.resource.Quantity") => "quantity".to_owned(),
            Some("apimachinery.pkg.apis.meta.v1.Time") => "time".to_owned(),
            // On the wire it is text such as `24h0m0s`.
            Some("apimachinery.pkg.apis.meta.v1.Duration") => "string".to_owned(),
            Some(rest) => format!("io.k8s.{rest}"),
            None => {
                followed.insert(name.to_owned());
                name.to_owned()
            }
        };
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => {
            format!("{} {}", list_type(schema), kind(&schema["items"], followed))
        }
        Value::String(name) if name == "object" => {
            format!("map {}", kind(&schema["additionalProperties"], followed))
        }
        Value::String(name) => name.clone(),
        // The one nullable type there is: the time stamps of a condition.
        _ => "time".to_owned(),
    }
}

/// `list`, or how server-side apply merges it: `set`, or `list[key,…]` by these fields of its elements.
pub fn list_type(schema: &Value) -> String {
    let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
    let keys: Vec<&str> = keys.filter_map(Value::as_str).collect();
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => "set".to_owned(),
        Some("map") => format!("list[{}]", keys.join(",")),
        _ => "list".to_owned(),
    }
}

/// Reads the table that the repository holds.
pub fn read(text: &str) -> Table {
    let mut table = Table::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_default();
        let (definition, field, kind, required, values) = (next(), next(), next(), next(), next());
        let fields = table.entry(definition.to_owned()).or_default();
        if !field.is_empty() {
            let values = values.split(',').filter(|value| !value.is_empty()).map(str::to_owned).collect();
            let row = Field { kind: kind.to_owned(), required: required == "required", values };
            fields.insert(field.to_owned(), row);
        }
    }
    table
}
