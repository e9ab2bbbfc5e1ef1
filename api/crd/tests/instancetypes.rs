//! Instance types and preferences: what they fill in, what contradicts them, what a preference needs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orlop_crd::VirtualMachine;
use orlop_crd::admission::{Cause, Path};
use orlop_crd::instancetype::infer::{self, Found, InferError, Look, Name, Step};
use orlop_crd::instancetype::{
    VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec, apply, requirements,
};
use orlop_crd::vmi::{Architecture, VirtualMachineInstanceSpec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn of<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

/// What becomes of a spec, or what is said against it.
fn applied(size: Value, taste: Value, spec: Value) -> Result<Value, Vec<Cause>> {
    let size: Option<VirtualMachineInstancetypeSpec> = of(size);
    let taste: Option<VirtualMachinePreferenceSpec> = of(taste);
    let mut spec: VirtualMachineInstanceSpec = of(spec);
    let mut metadata = ObjectMeta::default();
    apply::apply(&Path::new("spec.template.spec"), size.as_ref(), taste.as_ref(), &mut spec, &mut metadata)?;
    Ok(json!({ "spec": spec, "annotations": metadata.annotations }))
}

fn small() -> Value {
    json!({ "cpu": { "guest": 4 }, "memory": { "guest": "2Gi" } })
}

#[test]
fn an_instance_type_says_how_much() {
    let size = json!({
        "annotations": { "a": "b" },
        "cpu": { "guest": 4, "model": "host-passthrough", "dedicatedCPUPlacement": true, "maxSockets": 8 },
        "memory": { "guest": "2Gi", "maxGuest": "4Gi", "overcommitPercent": 50 },
        "ioThreadsPolicy": "auto",
        "nodeSelector": { "disk": "fast" },
        "schedulerName": "other",
    });
    let got = applied(size, Value::Null, json!({ "domain": { "devices": {} } })).unwrap();
    let want = json!({
        "domain": {
            "cpu": {
                "sockets": 4, "cores": 1, "threads": 1, "maxSockets": 8,
                "model": "host-passthrough", "dedicatedCpuPlacement": true,
            },
            "devices": {},
            "ioThreadsPolicy": "auto",
            "memory": { "guest": "2Gi", "maxGuest": "4Gi" },
            "resources": { "requests": { "memory": "1073741824" } },
        },
        "nodeSelector": { "disk": "fast" },
        "schedulerName": "other",
    });
    assert_eq!(got, json!({ "spec": want, "annotations": { "a": "b" } }));
}

#[test]
fn vcpus_are_laid_out_as_the_preference_says() {
    for (cpu, want) in [
        (json!({}), [4, 1, 1]),
        (json!({ "preferredCPUTopology": "sockets" }), [4, 1, 1]),
        (json!({ "preferredCPUTopology": "preferCores" }), [1, 4, 1]),
        (json!({ "preferredCPUTopology": "threads" }), [1, 1, 4]),
        (json!({ "preferredCPUTopology": "any" }), [4, 1, 1]),
        (json!({ "preferredCPUTopology": "spread" }), [2, 2, 1]),
        (json!({ "preferredCPUTopology": "spread", "spreadOptions": { "ratio": 4 } }), [1, 4, 1]),
        (
            json!({ "preferredCPUTopology": "spread", "spreadOptions": { "across": "CoresThreads" } }),
            [1, 2, 2],
        ),
        (
            json!({ "preferredCPUTopology": "spread", "spreadOptions": { "across": "SocketsCoresThreads" } }),
            [1, 2, 2],
        ),
    ] {
        let got = applied(small(), json!({ "cpu": cpu }), json!({ "domain": { "devices": {} } })).unwrap();
        let got = &got["spec"]["domain"]["cpu"];
        assert_eq!(
            [&got["sockets"], &got["cores"], &got["threads"]],
            want.map(Value::from).each_ref(),
            "{cpu}"
        );
    }
}

#[test]
fn vcpus_that_cannot_be_spread_are_refused() {
    let taste = json!({ "cpu": { "preferredCPUTopology": "spread", "spreadOptions": { "ratio": 3 } } });
    let causes = applied(small(), taste, json!({ "domain": { "devices": {} } })).unwrap_err();
    assert_eq!(causes[0].field, "instancetype.spec.cpu.guest");
    assert_eq!(
        causes[0].message,
        "4 vCPUs provided by the instance type are not divisible by the Spec.PreferSpreadSocketToCoreRatio or \
         Spec.CPU.PreferSpreadOptions.Ratio of 3 provided by the preference"
    );
}

#[test]
fn what_an_instance_type_says_must_not_be_said_again() {
    let size = json!({
        "cpu": { "guest": 1, "model": "a", "dedicatedCPUPlacement": false, "isolateEmulatorThread": false,
                 "numa": {}, "realtime": {} },
        "memory": { "guest": "1Gi", "hugepages": {}, "maxGuest": "2Gi" },
        "gpus": [{ "name": "g" }], "hostDevices": [{ "name": "h" }], "ioThreadsPolicy": "auto",
        "launchSecurity": {}, "nodeSelector": { "a": "b" }, "schedulerName": "s",
    });
    for (spec, field) in [
        (json!({ "nodeSelector": { "c": "d" } }), "nodeSelector"),
        (json!({ "schedulerName": "t" }), "schedulerName"),
        (json!({ "domain": { "cpu": { "sockets": 1 } } }), "domain.cpu.sockets"),
        (json!({ "domain": { "cpu": { "cores": 1 } } }), "domain.cpu.cores"),
        (json!({ "domain": { "cpu": { "threads": 1 } } }), "domain.cpu.threads"),
        (json!({ "domain": { "cpu": { "model": "b" } } }), "domain.cpu.model"),
        (
            json!({ "domain": { "cpu": { "dedicatedCpuPlacement": true } } }),
            "domain.cpu.dedicatedCPUPlacement",
        ),
        (
            json!({ "domain": { "cpu": { "isolateEmulatorThread": true } } }),
            "domain.cpu.isolateEmulatorThread",
        ),
        (json!({ "domain": { "cpu": { "numa": {} } } }), "domain.cpu.numa"),
        (json!({ "domain": { "cpu": { "realtime": {} } } }), "domain.cpu.realtime"),
        (json!({ "domain": { "memory": { "guest": "1Gi" } } }), "domain.memory.guest"),
        (json!({ "domain": { "memory": { "hugepages": {} } } }), "domain.memory.hugepages"),
        (json!({ "domain": { "memory": { "maxGuest": "1Gi" } } }), "domain.memory.maxGuest"),
        (
            json!({ "domain": { "resources": { "requests": { "cpu": "1" } } } }),
            "domain.resources.requests.cpu",
        ),
        (json!({ "domain": { "resources": { "limits": { "cpu": "1" } } } }), "domain.resources.limits.cpu"),
        (
            json!({ "domain": { "resources": { "requests": { "memory": "1" } } } }),
            "domain.resources.requests.memory",
        ),
        (
            json!({ "domain": { "resources": { "limits": { "memory": "1" } } } }),
            "domain.resources.limits.memory",
        ),
        (json!({ "domain": { "ioThreadsPolicy": "shared" } }), "domain.ioThreadsPolicy"),
        (json!({ "domain": { "launchSecurity": {} } }), "domain.launchSecurity"),
        (json!({ "domain": { "devices": { "gpus": [{ "name": "x" }] } } }), "domain.devices.gpus"),
        (
            json!({ "domain": { "devices": { "hostDevices": [{ "name": "x" }] } } }),
            "domain.devices.hostDevices",
        ),
    ] {
        let mut spec = spec;
        if spec["domain"]["devices"].is_null() {
            spec["domain"]["devices"] = json!({});
        }
        let causes = applied(size.clone(), Value::Null, spec).unwrap_err();
        let field = format!("spec.template.spec.{field}");
        let message = format!("VM field(s) {field} conflicts with selected instance type");
        let said: Vec<_> = causes.iter().map(|cause| (&cause.field, &cause.message)).collect();
        assert_eq!(said, [(&field, &message)]);
    }
}

#[test]
fn a_preference_fills_in_only_what_nobody_said() {
    let taste = json!({
        "annotations": { "a": "b" },
        "clock": { "preferredClockOffset": { "timezone": "Europe/Amsterdam" } },
        "cpu": { "preferredCPUFeatures": [{ "name": "vmx", "policy": "require" }] },
        "devices": {
            "preferredDiskBus": "virtio", "preferredCdromBus": "scsi", "preferredDiskCache": "none",
            "preferredDiskDedicatedIoThread": true, "preferredInterfaceModel": "virtio",
            "preferredInterfaceMasquerade": {}, "preferredRng": {}, "preferredAutoattachMemBalloon": false,
            "preferredPanicDeviceModel": "pvpanic",
        },
        "features": { "preferredSmm": {} },
        "firmware": { "preferredEfi": { "secureBoot": true } },
        "machine": { "preferredMachineType": "pc-q35" },
        "preferredSubdomain": "sub",
        "preferredTerminationGracePeriodSeconds": 7,
    });
    let spec = json!({
        "domain": {
            "devices": {
                "disks": [{ "name": "a" }, { "name": "b", "disk": { "bus": "sata" } }, { "name": "c", "cdrom": {} }],
                "interfaces": [{ "name": "pod" }, { "name": "lan" }],
            },
        },
        "networks": [{ "name": "pod", "pod": {} }, { "name": "lan", "multus": { "networkName": "n" } }],
        "terminationGracePeriodSeconds": 0,
    });
    let got = applied(Value::Null, taste, spec).unwrap();
    let want = json!({
        "domain": {
            "clock": { "timezone": "Europe/Amsterdam" },
            "cpu": { "features": [{ "name": "vmx", "policy": "require" }] },
            "devices": {
                "autoattachMemBalloon": false,
                "disks": [
                    { "name": "a", "disk": { "bus": "virtio" }, "cache": "none", "dedicatedIOThread": true },
                    { "name": "b", "disk": { "bus": "sata" }, "cache": "none" },
                    { "name": "c", "cdrom": { "bus": "scsi" } },
                ],
                "interfaces": [
                    { "name": "pod", "model": "virtio", "masquerade": {} },
                    { "name": "lan", "model": "virtio" },
                ],
                "panicDevices": [{ "model": "pvpanic" }],
                "rng": {},
            },
            "features": { "smm": {} },
            "firmware": { "bootloader": { "efi": { "secureBoot": true } } },
            "machine": { "type": "pc-q35" },
        },
        "networks": [{ "name": "pod", "pod": {} }, { "name": "lan", "multus": { "networkName": "n" } }],
        "subdomain": "sub",
        "terminationGracePeriodSeconds": 0,
    });
    assert_eq!(got, json!({ "spec": want, "annotations": { "a": "b" } }));
}

#[test]
fn a_preference_that_is_not_satisfied_says_what_it_needs() {
    let check = |size: Value, needed: Value, spec: Value| {
        let size: Option<VirtualMachineInstancetypeSpec> = of(size);
        let taste: VirtualMachinePreferenceSpec = of(json!({ "requirements": needed }));
        let causes = requirements::check(size.as_ref(), &taste, &of(spec), Architecture::Amd64);
        causes.err().map(|causes| (causes[0].field.clone(), causes[0].message.clone()))
    };
    let bare = || json!({ "domain": { "devices": {} } });
    let said = |field: &str, message: &str| {
        Some((field.to_owned(), format!("failure checking preference requirements: {message}")))
    };
    let one = json!({ "cpu": { "guest": 1 }, "memory": { "guest": "1Gi" } });
    assert_eq!(
        check(one.clone(), json!({ "cpu": { "guest": 2 } }), bare()),
        said(
            "spec.instancetype",
            "insufficient CPU resources of 1 vCPU provided by instance type, preference requires 2 vCPU"
        )
    );
    assert_eq!(
        check(one.clone(), json!({ "memory": { "guest": "2Gi" } }), bare()),
        said(
            "spec.instancetype",
            "insufficient Memory resources of 1Gi provided by instance type, preference requires 2Gi"
        )
    );
    assert_eq!(check(one, json!({ "cpu": { "guest": 1 }, "memory": { "guest": "1024Mi" } }), bare()), None);
    assert_eq!(
        check(Value::Null, json!({ "cpu": { "guest": 2 } }), bare()),
        said(
            "spec.template.spec.domain.cpu",
            "no CPU resources provided by VirtualMachine, preference requires 2 vCPU"
        )
    );
    assert_eq!(
        check(
            Value::Null,
            json!({ "cpu": { "guest": 4 } }),
            json!({ "domain": { "devices": {}, "cpu": { "sockets": 2, "cores": 8 } } })
        ),
        said(
            "spec.template.spec.domain.cpu.sockets",
            "insufficient CPU resources of 2 vCPU provided by VirtualMachine, preference requires 4 vCPU provided as sockets"
        )
    );
    assert_eq!(
        check(Value::Null, json!({ "architecture": "arm64" }), bare()),
        said(
            "spec.template.spec.architecture",
            "preference requires architecture arm64 but amd64 is being requested"
        )
    );
}

fn vm(volume: Value, templates: Value) -> VirtualMachine {
    of(json!({
        "metadata": { "name": "vm", "namespace": "ns" },
        "spec": {
            "runStrategy": "Halted",
            "dataVolumeTemplates": templates,
            "instancetype": { "inferFromVolume": "root", "inferFromVolumeFailurePolicy": "IgnoreInferFromVolumeFailure" },
            "template": { "spec": { "domain": { "devices": {}, "memory": { "guest": "1Gi" } }, "volumes": [volume] } },
        },
    }))
}

fn name(namespace: &str, name: &str) -> Name {
    Name { namespace: namespace.to_owned(), name: name.to_owned() }
}

#[test]
fn the_search_for_labels_goes_from_volume_to_claim() {
    let claim = vm(json!({ "name": "root", "persistentVolumeClaim": { "claimName": "c" } }), json!([]));
    assert_eq!(infer::start(&claim, "root"), Ok(Step::Look(Look::Claim(name("ns", "c")))));
    assert_eq!(infer::start(&claim, "none"), Err(InferError::NoVolume("none".to_owned())));
    let empty = vm(json!({ "name": "root", "emptyDisk": { "capacity": "1Gi" } }), json!([]));
    assert_eq!(infer::start(&empty, "root"), Err(InferError::VolumeType("root".to_owned())));
    let data = json!({ "name": "root", "dataVolume": { "name": "dv" } });
    assert_eq!(
        infer::start(&vm(data.clone(), json!([])), "root"),
        Ok(Step::Look(Look::DataVolume(name("ns", "dv"))))
    );
    let template = |spec: Value| json!([{ "metadata": { "name": "dv" }, "spec": spec }]);
    let reference =
        template(json!({ "sourceRef": { "kind": "DataSource", "name": "os", "namespace": "images" } }));
    assert_eq!(
        infer::start(&vm(data.clone(), reference), "root"),
        Ok(Step::Look(Look::DataSource(name("images", "os"))))
    );
    let blank = template(json!({ "source": { "blank": {} } }));
    assert_eq!(infer::start(&vm(data, blank), "root"), Err(InferError::Source));

    let none = BTreeMap::new();
    let labels: BTreeMap<_, _> = [
        (infer::INSTANCETYPE_LABEL.to_owned(), "u1.small".to_owned()),
        (infer::INSTANCETYPE_KIND_LABEL.to_owned(), "VirtualMachineInstancetype".to_owned()),
    ]
    .into();
    let next = |found: Found<'_>| {
        infer::next(&found, "ns", infer::INSTANCETYPE_LABEL, infer::INSTANCETYPE_KIND_LABEL)
    };
    let named = Step::Named("u1.small".to_owned(), Some("VirtualMachineInstancetype".to_owned()));
    assert_eq!(next(Found::Claim(&labels)), Ok(named.clone()));
    assert_eq!(next(Found::DataSource(&labels, None)), Ok(named));
    assert_eq!(next(Found::Claim(&none)), Err(InferError::NoLabel(infer::INSTANCETYPE_LABEL.to_owned())));
    assert_eq!(
        next(Found::DataSource(&none, Some(name("images", "c")))),
        Ok(Step::Look(Look::Claim(name("images", "c"))))
    );
    assert_eq!(next(Found::DataSource(&none, None)), Err(InferError::DataSource));
}

#[test]
fn what_was_inferred_takes_the_place_of_the_wish() {
    let wish = || vm(json!({ "name": "root", "emptyDisk": { "capacity": "1Gi" } }), json!([]));
    let mut found = wish();
    infer::instancetype(&mut found, Ok(("u1.small".to_owned(), None))).unwrap();
    let matcher = found.spec.instancetype.unwrap();
    assert_eq!((matcher.name.as_deref(), matcher.infer_from_volume), (Some("u1.small"), None));
    assert_eq!(found.spec.template.spec.unwrap().domain.memory, None);

    let mut ignored = wish();
    infer::instancetype(&mut ignored, Err(InferError::Source)).unwrap();
    assert_eq!(ignored.spec.instancetype, None);

    let mut minded = wish();
    let error = InferError::NoVolume("root".to_owned());
    assert_eq!(infer::instancetype(&mut minded, Err(error.clone())), Err(error));
}
