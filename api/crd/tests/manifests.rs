//! Whole manifests: KubeVirt's examples where they are at hand, and our own samples.

mod checkout;

use std::path::{Path, PathBuf};

use orlop_crd::manifest::{ManifestError, Reason, parse};
use serde_json::Value;

/// The YAML files of a directory, in order; none where there is no such directory.
fn manifests(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

/// What is unset is written as nothing.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Reads a manifest, writes it and reads it again: all three are the same.
fn round_trips(name: &Path, text: &str) {
    let documents = parse(text).unwrap_or_else(|error| panic!("{}:\n{error}", name.display()));
    let given: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    assert_eq!(documents.len(), given.len());
    for (document, given) in documents.iter().zip(given) {
        let written = document.to_json().unwrap();
        assert_eq!(without_nulls(written.clone()), without_nulls(given), "{}", name.display());
        assert_eq!(
            parse(&written.to_string()).unwrap(),
            std::slice::from_ref(document),
            "{}",
            name.display()
        );
    }
}

#[test]
fn kubevirts_examples_round_trip_or_are_of_another_kind() {
    let Some(directory) = checkout::beside("examples") else { return };
    let mut machines = 0;
    for file in manifests(&directory) {
        let text = std::fs::read_to_string(&file).unwrap();
        match parse(&text) {
            Err(ManifestError::Invalid(problems)) if problems.iter().all(of_another_kind) => {}
            _ => {
                round_trips(&file, &text);
                machines += 1;
            }
        }
    }
    assert!(machines > 0, "no machine in {}", directory.display());
}

fn of_another_kind(problem: &orlop_crd::manifest::Problem) -> bool {
    problem.path == "kind" && matches!(problem.reason, Reason::NotAllowed { .. })
}

#[test]
fn our_samples_round_trip() {
    for file in manifests(&checkout::root().join("deploy/samples")) {
        round_trips(&file, &std::fs::read_to_string(&file).unwrap());
    }
}
