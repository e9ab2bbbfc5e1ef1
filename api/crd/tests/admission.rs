//! Every rule of admission: the smallest manifest that breaks it, with the causes that are expected, and one that does
//! not.

mod rules;

use orlop_crd::admission::platform::{TABLE, verdict};
use orlop_crd::admission::{Cause, CauseType, Site, defaults, instance, machine, migration, others, read};
use orlop_crd::instancetype::VirtualMachinePreference;
use orlop_crd::preset::VirtualMachineInstancePreset;
use orlop_crd::replica_set::VirtualMachineInstanceReplicaSet;
use orlop_crd::vmim::VirtualMachineInstanceMigration;
use orlop_crd::{VirtualMachine, VirtualMachineInstance};
use proptest::prelude::*;
use rules::Rule;
use serde_json::{Value, json};

const USER: &str = "jane";

fn site() -> Site {
    let configuration = serde_json::from_value(json!({
        "developerConfiguration": { "featureGates": ["HostDisk"] },
        "network": { "permitBridgeInterfaceOnPodNetwork": false, "defaultNetworkInterface": "masquerade" },
    }));
    Site::new(&configuration.unwrap(), true)
}

/// Puts `value` at the dotted `path` of `object`; numbers are places in lists, one past the end appends.
fn set(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for part in path.split('.') {
        place = match part.parse::<usize>() {
            Ok(index) => {
                if place.is_null() {
                    *place = json!([]);
                }
                let list = place.as_array_mut().unwrap();
                if list.len() == index {
                    list.push(Value::Null);
                }
                &mut list[index]
            }
            Err(_) => &mut place[part],
        };
    }
    *place = value;
}

/// The spec that all rules start from, and keep.
fn good() -> Value {
    json!({
        "domain": {
            "devices": {
                "disks": [{ "name": "root", "disk": { "bus": "virtio" } }],
                "interfaces": [{ "name": "default", "masquerade": {} }],
            },
            "memory": { "guest": "1Gi" },
        },
        "networks": [{ "name": "default", "pod": {} }],
        "volumes": [{ "name": "root", "containerDisk": { "image": "example.org/disk:1" } }],
    })
}

fn admit(spec: Value, metadata: Value) -> Result<(), Vec<Cause>> {
    let object = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": metadata, "spec": spec,
    });
    let mut vmi: VirtualMachineInstance = read(&object)?;
    defaults::instance(&mut vmi, &site());
    instance::create(&vmi, USER, &site())
}

fn short(causes: Result<(), Vec<Cause>>) -> Vec<(CauseType, String, String)> {
    let causes = causes.err().unwrap_or_default();
    causes.into_iter().map(|cause| (cause.reason, cause.field, cause.message)).collect()
}

#[test]
fn what_breaks_no_rule_is_admitted() {
    assert_eq!(short(admit(good(), json!({ "name": "vmi" }))), []);
}

#[test]
fn every_rule_is_broken_by_its_smallest_manifest_and_says_so() {
    for Rule { changes, causes } in rules::instance() {
        let mut spec = good();
        for (path, value) in &changes {
            set(&mut spec, path, value.clone());
        }
        let want: Vec<_> = causes
            .iter()
            .map(|&(reason, field, message)| (reason, field.to_owned(), message.to_owned()))
            .collect();
        assert_eq!(short(admit(spec, json!({ "name": "vmi" }))), want, "{changes:?}");
    }
}

#[test]
fn what_keeps_a_rule_narrowly_is_admitted() {
    for changes in rules::narrowly() {
        let mut spec = good();
        for (path, value) in &changes {
            set(&mut spec, path, value.clone());
        }
        assert_eq!(short(admit(spec, json!({ "name": "vmi" }))), [], "{changes:?}");
    }
}

#[test]
fn a_list_that_is_too_long_is_the_only_thing_said() {
    let many = |name: &str| (0..257).map(|n| json!({ "name": format!("{name}{n}") })).collect::<Vec<_>>();
    for (path, field) in [
        ("domain.devices.disks", "spec.domain.devices.disks"),
        ("volumes", "spec.volumes"),
        ("domain.devices.interfaces", "spec.domain.devices.interfaces"),
        ("networks", "spec.networks"),
    ] {
        let mut spec = good();
        set(&mut spec, path, Value::from(many("x")));
        // Defaults would make a disk for each volume.
        let object = json!({ "metadata": {}, "spec": spec });
        let vmi: VirtualMachineInstance = read(&object).unwrap();
        let message = format!("{field} list exceeds the 256 element limit in length");
        let causes = instance::create(&vmi, USER, &site());
        assert_eq!(short(causes)[0], (CauseType::Invalid, field.to_owned(), message));
    }
}

#[test]
fn labels_and_annotations_need_a_right_or_a_gate() {
    let reserved = admit(good(), json!({ "labels": { "kubevirt.io/nodeName": "n" } }));
    let message = "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited";
    assert_eq!(
        short(reserved),
        [(CauseType::NotSupported, "metadata.labels".to_owned(), message.to_owned())]
    );
    let hooks = admit(good(), json!({ "annotations": { "hooks.kubevirt.io/hookSidecars": "[]" } }));
    let message = "sidecar feature gate is not enabled in kubevirt-config, invalid entry \
                   metadata.annotations.hooks.kubevirt.io/hookSidecars";
    assert_eq!(short(hooks), [(CauseType::Invalid, "metadata.annotations".to_owned(), message.to_owned())]);
}

fn vm(changes: &[(&str, Value)]) -> Value {
    let mut object = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": { "name": "vm", "namespace": "default" },
        "spec": { "runStrategy": "Halted", "template": { "spec": good() } },
    });
    for (path, value) in changes {
        set(&mut object, path, value.clone());
    }
    object
}

fn admit_vm(object: &Value) -> Result<(), Vec<Cause>> {
    machine::create(&read::<VirtualMachine>(object)?, machine::Referred::default(), USER, &site())
}

#[test]
fn every_rule_of_a_machine_is_broken_by_its_smallest_manifest_and_says_so() {
    assert_eq!(short(admit_vm(&vm(&[]))), []);
    for Rule { changes, causes } in rules::machine() {
        let want: Vec<_> = causes
            .iter()
            .map(|&(reason, field, message)| (reason, field.to_owned(), message.to_owned()))
            .collect();
        assert_eq!(short(admit_vm(&vm(&changes))), want, "{changes:?}");
    }
}

#[test]
fn an_instances_spec_is_immutable_for_users_and_its_status_is_not_theirs() {
    let old: VirtualMachineInstance =
        read(&json!({ "metadata": {}, "spec": good(), "status": { "phase": "Running" } })).unwrap();
    let mut new = old.clone();
    new.spec.hostname = Some("other".to_owned());
    let refused = instance::update(&new, &old, USER, &site());
    let message = "update of VMI object is restricted";
    assert_eq!(short(refused), [(CauseType::NotSupported, String::new(), message.to_owned())]);

    let mut new = old.clone();
    new.metadata.labels = Some([("kubevirt.io/nodeName".to_owned(), "n".to_owned())].into());
    let refused = instance::update(&new, &old, USER, &site());
    let message = "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited";
    assert_eq!(short(refused), [(CauseType::NotSupported, String::new(), message.to_owned())]);

    let mut new = old.clone();
    new.metadata.labels = Some([("mine".to_owned(), "1".to_owned())].into());
    new.status = None;
    assert_eq!(instance::update(&new, &old, USER, &site()), Ok(()));
    instance::keep_status(&mut new, Some(&old), USER, &site());
    assert_eq!(new.status, old.status);

    let mut site = site();
    site.platform_users.insert("system:serviceaccount:orlop:virt-controller".to_owned());
    let platform = "system:serviceaccount:orlop:virt-controller";
    let mut new = old.clone();
    new.status = None;
    new.spec.termination_grace_period_seconds = Some(1);
    assert_eq!(instance::update(&new, &old, platform, &site), Ok(()));
    instance::keep_status(&mut new, Some(&old), platform, &site);
    assert_eq!(new.status, None);
}

#[test]
fn while_a_snapshot_is_taken_disks_and_strategy_stay() {
    let old: VirtualMachine = read(&vm(&[("status", json!({ "snapshotInProgress": "snap" }))])).unwrap();
    let update =
        |new: &VirtualMachine| short(machine::update(new, &old, machine::Referred::default(), USER, &site()));
    let mut new = old.clone();
    new.spec.run_strategy = Some(orlop_crd::vm::RunStrategy::Always);
    let message = "Cannot update VM running state until snapshot \"snap\" completes";
    assert_eq!(update(&new), [(CauseType::NotSupported, "spec".to_owned(), message.to_owned())]);
    let mut new = old.clone();
    new.spec.template.spec.as_mut().unwrap().volumes[0].container_disk.as_mut().unwrap().image =
        "x:2".to_owned();
    let message = "Cannot update VM disks or volumes until snapshot \"snap\" completes";
    assert_eq!(update(&new), [(CauseType::NotSupported, "spec".to_owned(), message.to_owned())]);
    assert_eq!(update(&old), []);
}

#[test]
fn a_replica_set_selects_what_it_makes() {
    let set = |labels: Value| {
        let object = json!({
            "metadata": {},
            "spec": {
                "selector": { "matchLabels": { "app": "a" } },
                "template": { "metadata": { "labels": labels }, "spec": good() },
            },
        });
        read::<VirtualMachineInstanceReplicaSet>(&object).unwrap()
    };
    assert_eq!(others::replica_set(&set(json!({ "app": "a", "b": "c" })), &site()), Ok(()));
    let refused = others::replica_set(&set(json!({ "app": "b" })), &site());
    let message = "selector does not match labels.".to_owned();
    assert_eq!(short(refused), [(CauseType::Invalid, "spec.selector".to_owned(), message)]);
    let missing = read::<VirtualMachineInstanceReplicaSet>(&json!({ "spec": { "selector": {} } }));
    let message = "missing virtual machine template.".to_owned();
    assert_eq!(short(missing.map(|_| ())), [(CauseType::Required, "spec.template".to_owned(), message)]);
}

#[test]
fn a_preset_has_a_domain() {
    let preset =
        |spec: Value| read::<VirtualMachineInstancePreset>(&json!({ "metadata": {}, "spec": spec })).unwrap();
    let good = preset(json!({ "selector": {}, "domain": { "devices": {}, "memory": { "guest": "1Gi" } } }));
    assert_eq!(others::preset(&good), Ok(()));
    let refused = others::preset(&preset(json!({ "selector": {} })));
    assert_eq!(
        short(refused),
        [(CauseType::Required, "spec.domain".to_owned(), "missing domain.".to_owned())]
    );
}

#[test]
fn a_volume_that_no_disk_shows_is_named() {
    let mut spec = good();
    set(&mut spec, "volumes.1", json!({ "name": "x", "emptyDisk": { "capacity": "1Gi" } }));
    let vmi: VirtualMachineInstance = read(&json!({ "metadata": {}, "spec": spec })).unwrap();
    let field = "spec.domain.volumes[1].name".to_owned();
    let message = "spec.domain.volumes[1].name 'x' not found.".to_owned();
    assert_eq!(short(instance::create(&vmi, USER, &site())), [(CauseType::Invalid, field, message)]);
}

#[test]
fn a_migration_is_of_one_instance_that_can_move() {
    let wish = |name: &str| -> VirtualMachineInstanceMigration {
        read(&json!({ "metadata": { "name": "m", "namespace": "ns" }, "spec": { "vmiName": name } })).unwrap()
    };
    let vmi = |status: Value| -> VirtualMachineInstance {
        read(&json!({ "metadata": {}, "spec": good(), "status": status })).unwrap()
    };
    let running = vmi(json!({ "phase": "Running" }));
    let create =
        |wish: &_, vmi: Option<&_>, others: &[_]| short(migration::create(wish, vmi, others, USER, &site()));
    let said = |reason, message: &str| vec![(reason, String::new(), message.to_owned())];
    assert_eq!(create(&wish("a"), Some(&running), &[]), []);
    assert_eq!(
        create(&wish(""), Some(&running), &[]),
        [(CauseType::Required, "spec.vmiName".to_owned(), "vmiName is missing".to_owned())]
    );
    assert_eq!(create(&wish("a"), None, &[]), said(CauseType::NotFound, "the VMI \"ns/a\" does not exist"));
    let over = vmi(json!({ "phase": "Succeeded" }));
    assert_eq!(
        create(&wish("a"), Some(&over), &[]),
        said(CauseType::Invalid, "Cannot migrate VMI in finalized state.")
    );
    let stuck = vmi(json!({ "phase": "Running", "conditions": [{
        "type": "LiveMigratable", "status": "False", "reason": "DisksNotLiveMigratable", "message": "why",
    }] }));
    assert_eq!(
        create(&wish("a"), Some(&stuck), &[]),
        said(CauseType::Invalid, "Cannot migrate VMI, Reason: DisksNotLiveMigratable, Message: why")
    );
    let mut other = wish("a");
    other.metadata.uid = Some("u".to_owned());
    let message =
        "in-flight migration detected. Active migration job (u) is currently already in progress for VMI a.";
    assert_eq!(create(&wish("a"), Some(&running), &[other.clone()]), said(CauseType::Invalid, message));
    assert_eq!(create(&wish("b"), Some(&running), &[other]), []);

    let mut old = wish("a");
    defaults::migration(&mut old);
    assert_eq!(old.metadata.labels.as_ref().unwrap()["kubevirt.io/vmi-name"], "a");
    let update = |new: &_| short(migration::update(new, &old));
    assert_eq!(update(&old), []);
    assert_eq!(
        update(&wish("b")),
        said(CauseType::NotSupported, "update of Migration object's spec is restricted")
    );
    assert_eq!(
        update(&wish("a")),
        said(CauseType::NotSupported, "selector label can't be removed from an in-flight migration")
    );
    let mut new = old.clone();
    new.metadata.labels = Some([("kubevirt.io/vmi-name".to_owned(), "b".to_owned())].into());
    assert_eq!(
        update(&new),
        said(CauseType::NotSupported, "selector label can't be modified on an in-flight migration")
    );
}

#[test]
fn instance_types_and_preferences_are_refused_or_warned_about() {
    let size = |memory: Value| {
        others::instancetype(
            &serde_json::from_value(json!({ "cpu": { "guest": 1 }, "memory": memory })).unwrap(),
        )
    };
    let field = "spec.memory.overcommitPercent";
    assert_eq!(size(json!({ "guest": "1Gi", "overcommitPercent": 100 })), Ok(Vec::new()));
    let message = "spec.memory.overcommitPercent '101': must be in range between 0 and 100.";
    let refused = size(json!({ "guest": "1Gi", "overcommitPercent": 101 }));
    assert_eq!(short(refused.map(drop)), [(CauseType::Invalid, field.to_owned(), message.to_owned())]);
    let message = "spec.memory.overcommitPercent and spec.memory.hugepages should not be requested together.";
    let refused = size(json!({ "guest": "1Gi", "overcommitPercent": 1, "hugepages": {} }));
    assert_eq!(short(refused.map(drop)), [(CauseType::Invalid, field.to_owned(), message.to_owned())]);

    let taste = |cpu: Value| {
        let object = json!({ "metadata": {}, "spec": { "cpu": cpu } });
        read::<VirtualMachinePreference>(&object).and_then(|preference| others::preference(&preference.spec))
    };
    assert_eq!(taste(json!({ "preferredCPUTopology": "cores" })), Ok(Vec::new()));
    let warning = "PreferredCPUTopology preferCores is deprecated for removal in a future release, please use cores instead";
    assert_eq!(taste(json!({ "preferredCPUTopology": "preferCores" })), Ok(vec![warning.to_owned()]));
    for (cpu, field, message) in [
        (json!({ "preferredCPUTopology": "x" }), "preferredCPUTopology", "unknown preferredCPUTopology x"),
        (json!({ "spreadOptions": { "across": "x" } }), "spreadOptions.across", "across x is not supported"),
        (
            json!({ "preferredCPUTopology": "spread", "spreadOptions": { "across": "CoresThreads", "ratio": 3 } }),
            "spreadOptions.ratio",
            "only a ratio of 2 (1 core 2 threads) is allowed when spreading vCPUs over cores and threads",
        ),
    ] {
        let want = [(CauseType::Invalid, format!("spec.cpu.{field}"), message.to_owned())];
        assert_eq!(short(taste(cpu).map(drop)), want);
    }
}

/// Any JSON, small.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z0-9:./é -]{0,12}".prop_map(Value::from),
        Just(json!({})),
        Just(json!([])),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,8}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    /// Whatever stands in whichever field, there is an answer.
    #[test]
    fn any_value_in_any_field_is_answered(field in 0..10_000_usize, value in anything()) {
        let patterns = patterns();
        let path = patterns[field % patterns.len()].replace("[]", ".0");
        let mut object = vm(&[]);
        let mut place = &mut object["spec"]["template"]["spec"];
        for part in path.split('.') {
            let is_there = match part.parse::<usize>() {
                Ok(_) => place.is_null() || place.is_array(),
                Err(_) => place.is_null() || place.is_object(),
            };
            if !is_there {
                *place = Value::Null;
            }
            place = match part.parse::<usize>() {
                Ok(index) => {
                    if place.as_array().is_none_or(|list| list.len() <= index) {
                        *place = json!([null]);
                    }
                    &mut place[index]
                }
                Err(_) => &mut place[part],
            };
        }
        *place = value;
        let _ = admit_vm(&object);
        let _ = admit(object["spec"]["template"]["spec"].clone(), json!({}));
    }
}

/// The patterns of all fields of an instance's spec in the table of fields, down to a depth that no field exceeds.
fn patterns() -> Vec<String> {
    let mut fields: std::collections::BTreeMap<&str, Vec<(&str, &str)>> = std::collections::BTreeMap::new();
    for line in include_str!("../fields.tsv").lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split('\t');
        let (Some(definition), Some(field), Some(kind)) = (columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        fields.entry(definition).or_default().push((field, kind));
    }
    let mut found = Vec::new();
    let mut open = vec![("v1.VirtualMachineInstanceSpec", String::new())];
    while let Some((definition, at)) = open.pop() {
        for (field, kind) in
            fields.get(definition).into_iter().flatten().filter(|(field, _)| !field.is_empty())
        {
            let dot = if at.is_empty() { "" } else { "." };
            let is_list = kind.starts_with("list") || kind.starts_with("set");
            let pattern = format!("{at}{dot}{field}");
            found.push(pattern.clone());
            let below = if is_list { format!("{pattern}[]") } else { pattern };
            open.push((kind.rsplit(' ').next().unwrap(), below));
        }
    }
    found
}

#[test]
fn the_platform_has_a_verdict_on_every_field_and_none_on_others() {
    let patterns = patterns();
    assert!(patterns.len() > 300, "{} fields", patterns.len());
    let without: Vec<_> = patterns.iter().filter(|pattern| verdict(pattern).is_none()).collect();
    // What groups fields that have verdicts of their own needs none.
    let groups = ["domain", "domain.devices"];
    let without: Vec<_> = without.into_iter().filter(|pattern| !groups.contains(&pattern.as_str())).collect();
    assert!(without.is_empty(), "no verdict on {without:?}");
    for (entry, _) in TABLE {
        let field = entry.split('=').next().unwrap().to_owned();
        assert!(patterns.contains(&field), "{entry} is no field");
    }
}

#[test]
fn defaults_are_filled_in_once_and_for_all() {
    let object = json!({
        "metadata": { "name": "vmi" },
        "spec": {
            "domain": { "devices": {}, "resources": { "requests": { "memory": "1Gi", "cpu": "1500m" } } },
            "volumes": [{ "name": "root", "containerDisk": { "image": "example.org/disk" } }],
            "livenessProbe": { "exec": { "command": ["true"] } },
        },
    });
    let mut vmi: VirtualMachineInstance = read(&object).unwrap();
    let site = Site::default();
    defaults::instance(&mut vmi, &site);
    let once = vmi.clone();
    defaults::instance(&mut vmi, &site);
    assert_eq!(vmi, once);
    let got = serde_json::to_value(&vmi).unwrap();
    let want = json!({
        "architecture": "amd64",
        "domain": {
            "cpu": { "sockets": 2, "cores": 1, "threads": 1, "model": "host-model", "maxSockets": 8 },
            "devices": {
                "disks": [{ "name": "root", "disk": { "bus": "sata" } }],
                "interfaces": [{ "name": "default", "bridge": {} }],
            },
            "features": { "acpi": { "enabled": true } },
            "machine": { "type": "q35" },
            "memory": { "guest": "1Gi", "maxGuest": "4Gi" },
            "resources": { "requests": { "memory": "1Gi", "cpu": "1500m" } },
        },
        "livenessProbe": {
            "exec": { "command": ["true"] },
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
        },
        "networks": [{ "name": "default", "pod": {} }],
        "volumes": [{
            "name": "root",
            "containerDisk": { "image": "example.org/disk", "imagePullPolicy": "Always" },
        }],
    });
    assert_eq!(got["spec"], want);
    assert_eq!(got["status"], json!({ "phase": "Pending", "runtimeUser": 107 }));
    assert_eq!(got["metadata"]["finalizers"], json!(["kubevirt.io/foregroundDeleteVirtualMachine"]));
}
