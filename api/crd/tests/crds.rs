//! The files in `deploy/crds` are what the types say, and an API server takes them.

#[expect(dead_code, reason = "nothing of KubeVirt's is read here")]
mod checkout;

use std::fs;
use std::path::PathBuf;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use orlop_crd::definition::definitions;
use serde_json::Value;

/// `kubectl apply` keeps the object in an annotation, and all annotations together have at most 256 KiB
/// (apimachinery `TotalAnnotationSizeLimitB`); etcd's limit of 1.5 MiB is far away then.
const MAX_APPLY_BYTES: usize = 256 << 10;

const HEAD: &str =
    "# Made from the types in api/crd; `ORLOP_BLESS=1 cargo test -p orlop-crd --test crds` writes it anew.\n";

fn directory() -> PathBuf {
    checkout::root().join("deploy/crds")
}

fn name(definition: &CustomResourceDefinition) -> &str {
    definition.metadata.name.as_deref().unwrap()
}

#[test]
fn the_files_are_what_the_types_say() {
    let bless = std::env::var_os("ORLOP_BLESS").is_some();
    let mut names = Vec::new();
    for definition in definitions() {
        let file = directory().join(format!("{}.yaml", definition.spec.names.plural));
        let text = format!("{HEAD}{}", serde_saphyr::to_string(&definition).unwrap());
        if bless {
            fs::create_dir_all(directory()).unwrap();
            fs::write(&file, &text).unwrap();
        }
        let there = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            there == text,
            "{} is stale: ORLOP_BLESS=1 cargo test -p orlop-crd --test crds",
            file.display()
        );
        names.push(file);
    }
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let strays: Vec<_> = files.filter(|file| !names.contains(file)).collect();
    assert!(strays.is_empty(), "of no kind of ours: {strays:?}");
}

#[test]
fn what_a_file_says_is_read_back_as_the_definition() {
    for definition in definitions() {
        let text = serde_saphyr::to_string(&definition).unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, serde_json::to_value(&definition).unwrap(), "{}", name(&definition));
    }
}

#[test]
fn every_definition_is_small_enough_for_kubectl_apply() {
    for definition in definitions() {
        let bytes = serde_json::to_string(&definition).unwrap().len();
        assert!(bytes < MAX_APPLY_BYTES, "{} has {bytes} bytes", name(&definition));
    }
}

/// Keywords that a structural schema may have beside its type (Kubernetes, "Specifying a structural schema").
const KEYWORDS: [&str; 16] = [
    "type",
    "description",
    "properties",
    "additionalProperties",
    "items",
    "required",
    "enum",
    "format",
    "minimum",
    "maximum",
    "pattern",
    "nullable",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
];

/// Everything in a schema that an API server would refuse.
fn unstructural(path: &str, schema: &Value, found: &mut Vec<String>) {
    let object = schema.as_object().expect("a schema is an object");
    let int_or_string = object.contains_key("x-kubernetes-int-or-string");
    if int_or_string {
        let both = serde_json::json!([{ "type": "integer" }, { "type": "string" }]);
        if object.get("anyOf") != Some(&both) || object.contains_key("type") {
            found.push(format!("{path}: a number or string in another form"));
        }
    } else if !object.get("type").is_some_and(Value::is_string) {
        found.push(format!("{path}: no type"));
    }
    for keyword in object.keys().filter(|&keyword| !KEYWORDS.contains(&keyword.as_str())) {
        if !(keyword == "anyOf" && int_or_string) {
            found.push(format!("{path}: {keyword}"));
        }
    }
    if object.contains_key("properties") && object.contains_key("additionalProperties") {
        found.push(format!("{path}: fields and keys of one's choice"));
    }
    let properties = object.get("properties").and_then(Value::as_object);
    for required in object.get("required").and_then(Value::as_array).into_iter().flatten() {
        if !properties.is_some_and(|fields| fields.contains_key(required.as_str().unwrap())) {
            found.push(format!("{path}: requires {required}, which is no field"));
        }
    }
    for (field, schema) in properties.into_iter().flatten() {
        unstructural(&format!("{path}.{field}"), schema, found);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(schema) = object.get(inner) {
            unstructural(&format!("{path}[]"), schema, found);
        }
    }
    list(path, object, found);
}

/// Lists: elements are described, and the keys of a map are required fields of them with plain values.
fn list(path: &str, object: &serde_json::Map<String, Value>, found: &mut Vec<String>) {
    let is_list = object.get("type").is_some_and(|name| name == "array");
    if is_list != object.contains_key("items") {
        found.push(format!("{path}: a list and its elements go together"));
    }
    let merge = object.get("x-kubernetes-list-type").and_then(Value::as_str);
    let keys = object.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    if (merge == Some("map")) != keys.is_some() {
        found.push(format!("{path}: a list map and its keys go together"));
    }
    let items = &object.get("items").unwrap_or(&Value::Null);
    let required = items["required"].as_array().cloned().unwrap_or_default();
    for key in keys.into_iter().flatten() {
        let kind = &items["properties"][key.as_str().unwrap()]["type"];
        if !required.contains(key) || kind == "object" || kind == "array" {
            found.push(format!("{path}: {key} is no key"));
        }
    }
}

#[test]
fn every_schema_is_structural() {
    for definition in definitions() {
        for version in &definition.spec.versions {
            let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
            let schema = serde_json::to_value(schema).unwrap();
            let mut found = Vec::new();
            unstructural(&definition.spec.names.kind, &schema, &mut found);
            assert!(found.is_empty(), "{}:\n{}", name(&definition), found.join("\n"));
            assert_eq!(schema["properties"]["metadata"], serde_json::json!({ "type": "object" }));
        }
    }
}

#[test]
fn kubectl_explain_teaches_every_field() {
    fn silent(path: &str, schema: &Value, found: &mut Vec<String>) {
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{field}");
            let text = schema["description"].as_str().unwrap_or_default();
            if text.len() < 3 || text.contains('[') && text.contains("](") {
                found.push(format!("{path}: {text:?}"));
            }
            silent(&path, schema, found);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                silent(path, &schema[inner], found);
            }
        }
    }
    for definition in definitions() {
        let schema = definition.spec.versions[0].schema.as_ref().unwrap();
        let mut schema = serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap();
        schema["properties"].as_object_mut().unwrap().remove("metadata");
        let mut found = Vec::new();
        silent(&definition.spec.names.kind, &schema, &mut found);
        assert!(found.is_empty(), "{}:\n{}", name(&definition), found.join("\n"));
    }
}

#[test]
fn exactly_one_version_is_stored_and_the_old_one_warns() {
    for definition in definitions() {
        let spec = &definition.spec;
        let stored: Vec<_> = spec.versions.iter().filter(|version| version.storage).collect();
        assert_eq!(stored.len(), 1, "{}", name(&definition));
        let preset = spec.names.kind == "VirtualMachineInstancePreset";
        assert_eq!(stored[0].name == "v1alpha3", preset, "{}", name(&definition));
        for version in spec.versions.iter().filter(|version| version.name == "v1alpha3") {
            assert!(version.served && version.deprecated == Some(true));
            assert!(version.deprecation_warning.as_ref().unwrap().contains("v1alpha3 is now deprecated"));
        }
    }
}

#[test]
fn status_and_scale_are_subresources_where_upstream_has_them() {
    let found: Vec<_> = definitions()
        .iter()
        .filter_map(|definition| {
            let subresources = definition.spec.versions[0].subresources.as_ref()?;
            let both = (subresources.status.is_some(), subresources.scale.is_some());
            Some((definition.spec.names.kind.clone(), both))
        })
        .collect();
    let want = [
        ("KubeVirt", (true, false)),
        ("VirtualMachineInstanceMigration", (true, false)),
        ("VirtualMachineInstanceReplicaSet", (true, true)),
        ("VirtualMachine", (true, false)),
    ];
    assert_eq!(found, want.map(|(kind, both)| (kind.to_owned(), both)));
}
