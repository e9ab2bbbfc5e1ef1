//! Manifests as users write them, and what they are told.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::shape::{Shape, shape};
use super::*;

const GOOD: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: web
spec:
  domain:
    cpu:
      cores: 2
    memory:
      guest: 512Mi
    devices:
      rng: {}
      disks:
      - name: root
        disk:
          bus: virtio
      interfaces:
      - name: default
        masquerade: {}
  networks:
  - name: default
    pod: {}
  volumes:
  - name: root
    emptyDisk:
      capacity: 1Gi
";

/// What a manifest that cannot be read is answered, line by line.
fn answer(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(documents) => panic!("accepted: {documents:?}"),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

/// The good manifest with one text in place of another.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replacen(old, new, 1)
}

/// Whether JSON that was read back is what went in: unset and empty are the same, as are a number and its
/// text where a quantity may be either.
fn same(written: &Value, read: &Value) -> bool {
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            let null = &Value::Null;
            written.keys().chain(read.keys()).all(|key| {
                let (a, b) = (written.get(key).unwrap_or(null), read.get(key).unwrap_or(null));
                empty(a) && empty(b) || same(a, b)
            })
        }
        (Value::Array(written), Value::Array(read)) => {
            written.len() == read.len() && written.iter().zip(read).all(|(a, b)| same(a, b))
        }
        (Value::Number(number), Value::String(text)) => number.to_string() == *text,
        _ => written == read,
    }
}

#[test]
fn a_good_manifest_is_read() {
    let documents = parse(GOOD).unwrap();
    let [Document::VirtualMachineInstance(vmi)] = &documents[..] else { panic!("{documents:?}") };
    assert_eq!(documents[0].name(), Some("web"));
    assert_eq!(vmi.spec.domain.topology().vcpus(), Some(2));
    let json = documents[0].to_json().unwrap();
    assert_eq!(json.pointer("/spec/domain/devices/rng"), Some(&json!({})));
    assert_eq!(json.pointer("/spec/domain/devices/interfaces/0/masquerade"), Some(&json!({})));
    assert_eq!(json.pointer("/spec/domain/devices/tpm"), None);
}

#[test]
fn a_misspelt_field_is_named_with_its_path_and_place() {
    assert_eq!(
        answer(&with("bus: virtio", "buss: virtio")),
        ["spec.domain.devices.disks[0].disk.buss: unknown field, did you mean `bus`? (line 16, column 11)"]
    );
}

#[test]
fn a_field_one_level_too_high_is_sent_down() {
    let lines = answer(&with("    devices:\n", "    disks: []\n    devices:\n"));
    assert_eq!(
        lines,
        ["spec.domain.disks: unknown field, did you mean `devices.disks`? (line 11, column 5)"]
    );
}

#[test]
fn all_mistakes_are_named_in_the_order_of_the_text() {
    let text = GOOD
        .replace("cores: 2", "cores: two")
        .replace("guest: 512Mi", "guest: 512MB")
        .replace("bus: virtio", "bus: virtoi")
        .replace("masquerade: {}", "masquerade: yes")
        .replace("capacity: 1Gi", "capcity: 1Gi");
    assert_eq!(
        answer(&text),
        [
            "spec.domain.cpu.cores: expected a whole number, found the string `two` (line 8, column 14)",
            "spec.domain.memory.guest: `512MB` is not a quantity: expected a number with an optional suffix, \
             such as `512Mi`, `2G` or `100m` (line 10, column 14)",
            "spec.domain.devices.disks[0].disk.bus: `virtoi` is not one of `sata`, `scsi`, `usb`, `virtio`, \
             did you mean `virtio`? (line 16, column 16)",
            "spec.domain.devices.interfaces[0].masquerade: expected an object, found the boolean `true` \
             (line 19, column 21)",
            "spec.volumes[0].emptyDisk.capcity: unknown field, did you mean `capacity`? (line 26, column 7)",
            "spec.volumes[0].emptyDisk.capacity: missing (line 26, column 7)",
        ]
    );
}

#[test]
fn wrong_types_say_what_was_expected() {
    for (old, new, want) in [
        (
            "name: web",
            "name: 12",
            "metadata.name: expected a string (put it in quotes), found the number `12`",
        ),
        (
            "cores: 2",
            "cores: -1",
            "spec.domain.cpu.cores: expected a whole number from 0 to 4294967295, found the number `-1`",
        ),
        ("cores: 2", "cores: 1.5", "spec.domain.cpu.cores: expected a whole number, found the number `1.5`"),
        (
            "guest: 512Mi",
            "guest: []",
            "spec.domain.memory.guest: expected a quantity such as `512Mi` or `2`, found a list",
        ),
        ("pod: {}", "pod: none", "spec.networks[0].pod: expected an object, found the string `none`"),
        (
            "bus: virtio",
            "bus: 1",
            "spec.domain.devices.disks[0].disk.bus: expected one of `sata`, `scsi`, `usb`, `virtio`, found the number `1`",
        ),
        (
            "  name: web",
            "  name: web\n  creationTimestamp: today",
            "metadata.creationTimestamp: expected a time such as `2026-01-31T12:00:00Z` (RFC 3339), found the string `today`",
        ),
        (
            "  name: web",
            "  name: web\n  labels:\n    a.b/c: 1",
            "metadata.labels[\"a.b/c\"]: expected a string (put it in quotes), found the number `1`",
        ),
    ] {
        let lines = answer(&with(old, new));
        assert!(lines.len() == 1 && lines[0].starts_with(want), "{lines:#?}\n{want}");
    }
}

#[test]
fn a_key_given_twice_is_refused() {
    assert_eq!(
        answer(&with("cores: 2", "cores: 2\n      cores: 4")),
        ["spec.domain.cpu.cores: given twice, first at line 8, column 7 (line 9, column 7)"]
    );
}

#[test]
fn kind_and_version_are_corrected() {
    let lines = answer(&with("VirtualMachineInstance", "VirtualMachinInstance"));
    assert_eq!(
        lines,
        [
            "kind: `VirtualMachinInstance` is not one of `VirtualMachineInstance`, `VirtualMachine`, `Secret`, \
          `ConfigMap`, did you mean `VirtualMachineInstance`? (line 2, column 7)"
        ]
    );
    assert_eq!(
        answer(&with("kubevirt.io/v1", "kubevirt/v1")),
        ["apiVersion: `kubevirt/v1` is not one of `kubevirt.io/v1`, `kubevirt.io/v1alpha3`, did you mean \
          `kubevirt.io/v1`? (line 1, column 13)"]
    );
    assert_eq!(
        answer(&with("apiVersion: kubevirt.io/v1\n", "")),
        ["apiVersion: missing, for example `kubevirt.io/v1` (line 1, column 1)"]
    );
    assert_eq!(answer("- a"), ["the document: expected an object, found a list (line 1, column 1)"]);
}

#[test]
fn several_documents_are_read_and_empty_ones_passed_over() {
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {key: ssh-ed25519 AAAA}\n";
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: files}\ndata: {a: b}\n";
    let documents = parse(&format!("---\n{secret}---\n# nothing\n---\n{map}---\n{GOOD}")).unwrap();
    let kinds: Vec<_> = documents.iter().map(Document::kind).collect();
    assert_eq!(kinds, ["Secret", "ConfigMap", "VirtualMachineInstance"]);
    assert_eq!(parse("---\n# nothing\n"), Err(ManifestError::Empty));
    assert_eq!(parse(""), Err(ManifestError::Empty));
}

#[test]
fn json_is_read_like_yaml() {
    let documents = parse(GOOD).unwrap();
    let mut json = documents[0].to_json().unwrap();
    json["metadata"]["annotations"] = json!({"note": "tab\t, quote\", é, 😀"});
    for text in [json.to_string(), serde_json::to_string_pretty(&json).unwrap().replace("  ", "\t")] {
        let read = parse(&text).unwrap();
        assert!(same(&json, &read[0].to_json().unwrap()), "{text}");
    }
    let surrogates = json.to_string().replace('😀', "\\ud83d\\ude00");
    assert!(same(&json, &parse(&surrogates).unwrap()[0].to_json().unwrap()));
}

#[test]
fn line_ends_and_a_byte_order_mark_of_windows_do_no_harm() {
    let text = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
    assert_eq!(parse(&text).unwrap(), parse(GOOD).unwrap());
}

#[test]
fn an_object_stored_by_a_newer_version_is_still_read_by_serde() {
    let mut json = parse(GOOD).unwrap()[0].to_json().unwrap();
    json["spec"]["domain"]["devices"]["flux"] = json!({"capacitor": true});
    let vmi: VirtualMachineInstance = serde_json::from_value(json).unwrap();
    assert_eq!(vmi.spec.domain.devices.disks.len(), 1);
}

#[test]
fn quantities_may_be_numbers() {
    let text = with("      cores: 2", "      cores: 2\n    resources: {requests: {cpu: 2, memory: 1.5e9}}");
    let documents = parse(&text).unwrap();
    let json = documents[0].to_json().unwrap();
    assert_eq!(json.pointer("/spec/domain/resources/requests/cpu"), Some(&json!("2")));
}

#[test]
fn a_null_is_as_if_it_were_not_there() {
    let text = with("      rng: {}", "      rng:\n      tpm: null");
    assert_eq!(parse(&text).unwrap(), parse(&with("      rng: {}\n", "")).unwrap());
    let lines = answer(&with("      capacity: 1Gi", "      capacity:"));
    assert_eq!(lines, ["spec.volumes[0].emptyDisk.capacity: missing (line 26, column 7)"]);
}

#[test]
fn anchors_serve_but_cannot_explode() {
    let text = with("bus: virtio", "bus: &bus virtio")
        .replace("guest: 512Mi", "guest: &m 512Mi\n      maxGuest: *m");
    parse(&text).unwrap();
    let mut bomb = String::from("a: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inner = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("b{level}: &a{level} [{inner}]\n"));
    }
    assert!(matches!(parse(&bomb), Err(ManifestError::Syntax(_))));
}

#[test]
fn depth_and_size_are_bounded() {
    for deep in ["[".repeat(100_000), "- ".repeat(10_000), "{a: ".repeat(5_000)] {
        assert!(matches!(parse(&deep), Err(ManifestError::Syntax(_))));
    }
    let wide = format!("{GOOD}  x: [{}]\n", "1,".repeat(200_000));
    assert!(matches!(parse(&wide), Err(ManifestError::Syntax(_))));
    let long = " ".repeat(MAX_BYTES + 1);
    assert_eq!(parse(&long), Err(ManifestError::TooLarge { len_bytes: MAX_BYTES + 1 }));
}

#[test]
fn what_is_no_yaml_is_told_where() {
    let lines = answer("kind: [\n");
    assert!(lines[0].starts_with("the manifest is neither YAML nor JSON: "), "{lines:?}");
    assert!(lines[0].contains("line"), "{lines:?}");
}

#[test]
fn no_more_than_a_hundred_mistakes_are_listed() {
    let lines: String = (0..500).map(|index| format!("  field{index}: 1\n")).collect();
    assert_eq!(answer(&format!("{GOOD}{lines}")).len(), 100);
}

#[test]
fn endless_keys_and_values_are_not_repeated() {
    let long = "x".repeat(1 << 18);
    let labels = format!("  name: web\n  labels:\n    ? {long}\n    : [{long}]");
    let text = with("  name: web", &labels).replace("cores: 2", &format!("cores: {long}"));
    let lines = answer(&format!("{text}? {long}\n: 1\n"));
    assert_eq!(lines.len(), 3, "{:.300}", lines[0]);
    for line in lines {
        assert!(line.len() < 300, "{} bytes", line.len());
    }
}

/// A document in which the source of choices decides what is set; `depth` bounds lists and objects.
fn generate(root: &Value, schema: &Value, depth: usize, choices: &mut impl FnMut() -> usize) -> Value {
    match shape(root, schema) {
        Shape::Object { fields, required } => {
            let fields = fields.into_iter().flatten().filter(|(name, _)| {
                required.contains(&name.as_str()) || depth > 0 && !choices().is_multiple_of(3)
            });
            let fields: Vec<_> = fields.collect();
            let value = |(name, schema): (&String, &Value)| {
                (name.clone(), generate(root, schema, depth.saturating_sub(1), choices))
            };
            Value::Object(fields.into_iter().map(value).collect())
        }
        Shape::Map(values) => {
            json!({"a.b/c": generate(root, values, depth.saturating_sub(1), choices)})
        }
        Shape::List(items) => {
            let count = 1 + choices() % 2;
            (0..count).map(|_| generate(root, items, depth.saturating_sub(1), choices)).collect()
        }
        Shape::Enum(values) => json!(values[choices() % values.len()]),
        Shape::String(Some("date-time")) => json!("2026-01-31T12:00:00Z"),
        Shape::String(Some("byte")) => json!("b3Jsb3A="),
        Shape::String(_) => json!(["", "yes", "1.10", "null", "~", "a: b\n- c", "# é 😀\t"][choices() % 7]),
        Shape::Integer { max, .. } => json!(choices() as i64 % (max as i64).clamp(1, 1 << 31)),
        Shape::Number => json!(1.5),
        Shape::Boolean => json!(choices().is_multiple_of(2)),
        Shape::Quantity => json!(["1Gi", "100m", "1.5", "2e3"][choices() % 4]),
        Shape::IntOrString => [json!(80), json!("http")][choices() % 2].clone(),
        Shape::Any => json!({"f:spec": {}}),
    }
}

/// A document of a kind, complete with kind and version.
fn generated(kind: &Kind, depth: usize, mut choices: impl FnMut() -> usize) -> Value {
    let schema: &Value = &kind.schema;
    let mut json = generate(schema, schema, depth, &mut choices);
    // Always written, as by every Kubernetes client.
    json["metadata"]["name"] = json!("generated");
    json["kind"] = json!(kind.name);
    json["apiVersion"] = json!(kind.api_versions[0]);
    json
}

#[test]
fn a_document_with_every_field_set_round_trips() {
    for kind in &KINDS {
        let json = generated(kind, 64, || 1);
        let documents = parse(&json.to_string()).unwrap_or_else(|error| panic!("{error}"));
        assert!(same(&json, &documents[0].to_json().unwrap()), "{}", kind.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn generated_documents_round_trip(kind in 0..KINDS.len(), depth in 1_usize..12, seed: u64) {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as usize
        };
        let json = generated(&KINDS[kind], depth, next);
        let documents = parse(&json.to_string()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let read = documents[0].to_json().unwrap();
        prop_assert!(same(&json, &read), "{json}\n{read}");
        prop_assert_eq!(parse(&read.to_string()).unwrap(), documents);
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_text_of_yaml_s_own_characters_is_answered(text in "[-:?,\\[\\]{}#&*!|>'\"%@` \n\ta-c0-9<.~]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn a_mutated_manifest_is_answered(at in 0..GOOD.len(), len in 0_usize..40, new in "\\PC{0,12}|[-:{}\\[\\]&*\n ]{0,12}") {
        let end = (at + len).min(GOOD.len());
        let _ = parse(&format!("{}{new}{}", &GOOD[..at], &GOOD[end..]));
    }
}
