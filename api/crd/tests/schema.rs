//! Our types against KubeVirt's, field by field and in both directions.

mod checkout;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use orlop_crd::instancetype::{
    VirtualMachineClusterInstancetype, VirtualMachineClusterPreference, VirtualMachineInstancetype,
    VirtualMachinePreference,
};
use orlop_crd::kubevirt::KubeVirt;
use orlop_crd::manifest::schema;
use orlop_crd::preset::VirtualMachineInstancePreset;
use orlop_crd::replica_set::VirtualMachineInstanceReplicaSet;
use orlop_crd::vmim::VirtualMachineInstanceMigration;
use orlop_crd::{VirtualMachine, VirtualMachineInstance};
use serde_json::{Map, Value};
use table::{Field, Table};

const FIELDS: &str = include_str!("../fields.tsv");
const VALUES: &str = include_str!("../values.tsv");

/// Values that KubeVirt's document leaves open and its own checks, or our reference, enumerate.
fn known_values() -> BTreeMap<String, BTreeSet<String>> {
    let lines = VALUES.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.map(|line| line.split_once('\t').expect("values.tsv has two columns"));
    rows.map(|(field, values)| (field.to_owned(), values.split(',').map(str::to_owned).collect())).collect()
}

/// Compares one of our root types with the table and collects all differences.
struct Comparison<'t> {
    table: &'t Table,
    values: &'t mut BTreeMap<String, BTreeSet<String>>,
    root: &'t Value,
    seen: BTreeSet<String>,
    differences: Vec<String>,
}

/// A schema as the table would say it, with the schema of the objects that it leads to.
struct Ours<'t> {
    kind: String,
    values: BTreeSet<String>,
    object: Option<&'t Value>,
}

impl<'t> Comparison<'t> {
    fn definition(&mut self, name: &str, ours: &'t Value) {
        if !self.seen.insert(name.to_owned()) {
            return;
        }
        let empty = Map::new();
        let properties = ours["properties"].as_object().unwrap_or(&empty);
        let Some(fields) = self.table.get(name) else {
            self.differences.push(format!("{name}: no such definition in the table"));
            return;
        };
        for field in properties.keys().filter(|&field| !fields.contains_key(field)) {
            self.differences.push(format!("{name}.{field}: only in our types"));
        }
        let required = ours["required"].as_array().into_iter().flatten();
        let required: BTreeSet<_> = required.filter_map(Value::as_str).collect();
        for (field, theirs) in fields {
            match ours["properties"].get(field) {
                Some(schema) => {
                    let is_required = required.contains(field.as_str());
                    self.field(&format!("{name}.{field}"), theirs, schema, is_required);
                }
                None => self.differences.push(format!("{name}.{field}: missing in our types")),
            }
        }
    }

    fn field(&mut self, path: &str, theirs: &Field, schema: &'t Value, required: bool) {
        let ours = self.describe(schema);
        if required != theirs.required {
            self.differences.push(format!("{path}: required is {required}, should be {}", theirs.required));
        }
        let open = theirs.values.is_empty();
        let known = if open { self.values.remove(path).unwrap_or_default() } else { theirs.values.clone() };
        if ours.values != known {
            self.differences.push(format!("{path}: values are {:?}, should be {known:?}", ours.values));
        }
        // An object is compared by its fields, whatever its name is with us.
        match (ours.object, theirs.kind.rsplit(' ').next()) {
            (Some(object), Some(definition)) if self.table.contains_key(definition) => {
                let want = theirs.kind.replace(definition, "object");
                if ours.kind != want {
                    self.differences.push(format!("{path}: type is {}, should be {want}", ours.kind));
                }
                self.definition(definition, object);
            }
            _ if ours.kind != theirs.kind => {
                self.differences.push(format!("{path}: type is {}, should be {}", ours.kind, theirs.kind));
            }
            _ => {}
        }
    }

    fn describe(&self, schema: &'t Value) -> Ours<'t> {
        let plain = |kind: &str| Ours { kind: kind.to_owned(), values: BTreeSet::new(), object: None };
        if let Some(choices) = schema["anyOf"].as_array() {
            let choice = choices.iter().find(|choice| choice["type"] != "null");
            return choice.map_or_else(|| plain("any"), |choice| self.describe(choice));
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.trim_start_matches("#/$defs/");
            return match name.strip_prefix("io.k8s.") {
                Some("apimachinery.pkg.api.resource.Quantity") => plain("quantity"),
                Some("apimachinery.pkg.apis.meta.v1.Time") => plain("time"),
                Some(_) => plain(name),
                None => self.describe(&self.root["$defs"][name]),
            };
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            let values = variants.iter().filter_map(|variant| variant["const"].as_str());
            return Ours { values: values.map(str::to_owned).collect(), ..plain("string") };
        }
        let name = match &schema["type"] {
            Value::Array(names) => names.iter().find(|&name| name != "null").and_then(Value::as_str),
            name => name.as_str(),
        };
        match name {
            Some("array") => self.of(&table::list_type(schema), &schema["items"]),
            Some("object") if schema["additionalProperties"].is_object() => {
                self.of("map", &schema["additionalProperties"])
            }
            Some("object") => Ours { object: Some(schema), ..plain("object") },
            name => plain(name.unwrap_or("any")),
        }
    }

    fn of(&self, container: &str, inner: &'t Value) -> Ours<'t> {
        let ours = self.describe(inner);
        Ours { kind: format!("{container} {}", ours.kind), ..ours }
    }
}

#[test]
fn our_types_have_exactly_the_fields_of_the_table() {
    let table = table::read(FIELDS);
    let mut values = known_values();
    let roots = [
        schema::<VirtualMachine>(),
        schema::<VirtualMachineInstance>(),
        schema::<VirtualMachineInstanceReplicaSet>(),
        schema::<VirtualMachineInstanceMigration>(),
        schema::<VirtualMachineInstancePreset>(),
        schema::<KubeVirt>(),
        schema::<VirtualMachineInstancetype>(),
        schema::<VirtualMachineClusterInstancetype>(),
        schema::<VirtualMachinePreference>(),
        schema::<VirtualMachineClusterPreference>(),
    ];
    let mut seen = BTreeSet::new();
    let mut differences = Vec::new();
    for (name, root) in table::ROOTS.into_iter().zip(&roots) {
        let mut comparison =
            Comparison { table: &table, values: &mut values, root, seen, differences: Vec::new() };
        comparison.definition(name, root);
        differences.append(&mut comparison.differences);
        seen = comparison.seen;
    }
    let unseen = table.keys().filter(|&name| !seen.contains(name));
    differences.extend(unseen.map(|name| format!("{name}: nothing in our types leads to it")));
    differences.extend(values.keys().map(|field| format!("{field}: in values.tsv, but not in our types")));
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn the_table_is_what_kubevirts_document_says() {
    let Some(path) = checkout::beside("swagger.json") else { return };
    let swagger = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let fresh = table::write(&swagger);
    let stale = FIELDS.lines().zip(fresh.lines()).find(|(ours, fresh)| ours != fresh);
    assert!(FIELDS == fresh, "fields.tsv is stale at {stale:?}: cargo run -p orlop-crd --example fields");
}
