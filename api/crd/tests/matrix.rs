//! KubeVirt's examples, one by one: admitted, or refused for the reason that is written here. Those beside the checkout
//! are read from there; of the rest, manifests of our own wording stand for what matters about them.

mod checkout;

use orlop_crd::admission::{Cause, Site, defaults, instance, machine, migration, others, read};
use orlop_crd::instancetype::{
    VirtualMachineClusterInstancetype, VirtualMachineInstancetype, VirtualMachineInstancetypeSpec,
    VirtualMachinePreference, VirtualMachinePreferenceSpec,
};
use orlop_crd::preset::VirtualMachineInstancePreset;
use orlop_crd::replica_set::VirtualMachineInstanceReplicaSet;
use orlop_crd::vmim::VirtualMachineInstanceMigration;
use orlop_crd::{VirtualMachine, VirtualMachineInstance};
use serde_json::{Value, json};

const USER: &str = "jane";

/// The gates under which KubeVirt checks its examples.
fn site() -> Site {
    let configuration = json!({
        "developerConfiguration": { "featureGates": ["HostDisk", "HostDevices", "Sidecar"] },
    });
    Site::new(&serde_json::from_value(configuration).unwrap(), true)
}

/// The answer to an object, of whatever kind it is. The instance type `csmall` and the preferences exist.
fn admit(object: &Value) -> Result<(), Vec<Cause>> {
    let site = site();
    match object["kind"].as_str().unwrap() {
        "VirtualMachineInstance" => {
            let mut vmi: VirtualMachineInstance = read(object)?;
            defaults::instance(&mut vmi, &site);
            instance::create(&vmi, USER, &site)
        }
        "VirtualMachine" => {
            let vm: VirtualMachine = read(object)?;
            let (size, taste) = (size(), taste());
            let referred = machine::Referred {
                instancetype: vm.spec.instancetype.as_ref().map(|_| &size),
                preference: vm.spec.preference.as_ref().map(|_| &taste),
            };
            machine::create(&vm, referred, USER, &site)
        }
        "VirtualMachineInstanceReplicaSet" => {
            others::replica_set(&read::<VirtualMachineInstanceReplicaSet>(object)?, &site)
        }
        "VirtualMachineInstancePreset" => others::preset(&read::<VirtualMachineInstancePreset>(object)?),
        "VirtualMachineInstancetype" => {
            others::instancetype(&read::<VirtualMachineInstancetype>(object)?.spec).map(drop)
        }
        "VirtualMachineClusterInstancetype" => {
            others::instancetype(&read::<VirtualMachineClusterInstancetype>(object)?.spec).map(drop)
        }
        "VirtualMachinePreference" => {
            others::preference(&read::<VirtualMachinePreference>(object)?.spec).map(drop)
        }
        "VirtualMachineInstanceMigration" => {
            let wish: VirtualMachineInstanceMigration = read(object)?;
            migration::create(&wish, Some(&VirtualMachineInstance::default()), &[], USER, &site)
        }
        kind => panic!("{kind} is of no kind that is admitted here"),
    }
}

fn size() -> VirtualMachineInstancetypeSpec {
    serde_json::from_value(json!({ "cpu": { "guest": 1 }, "memory": { "guest": "128Mi" } })).unwrap()
}

fn taste() -> VirtualMachinePreferenceSpec {
    serde_json::from_value(json!({ "devices": { "preferredDiskBus": "virtio" } })).unwrap()
}

/// The fields that are complained about, with what is said of them.
fn complaints(object: &Value) -> Vec<(String, String)> {
    let causes = admit(object).err().unwrap_or_default();
    causes.into_iter().map(|cause| (cause.field, cause.message)).collect()
}

/// Fields that are complained about, and what is said of them.
type Expected = &'static [(&'static str, &'static str)];

const CONFLICT: (&str, &str) = (
    "spec.template.spec.domain.memory.guest",
    "VM field(s) spec.template.spec.domain.memory.guest conflicts with selected instance type",
);
const TPM: (&str, &str) = (
    "spec.domain.devices.tpm",
    "spec.domain.devices.tpm is not supported: there is no trusted platform module yet",
);
const E1000: (&str, &str) = (
    "spec.domain.devices.interfaces[0].model",
    "spec.domain.devices.interfaces[0].model is not supported: only virtio network adapters are supported",
);

const HYPERV: (&str, &str) = (
    "spec.domain.features.hyperv",
    "spec.domain.features.hyperv is not supported: Hyper-V interfaces are not shown yet",
);

/// The files that KubeVirt's users start from, with what is said of each; `None` for a kind that is not served.
const FILES: [(&str, Option<Expected>); 14] = [
    ("csmall.yaml", Some(&[])),
    ("example-migration-policy.yaml", None),
    ("migration-job.yaml", Some(&[])),
    ("vm-cirros-csmall.yaml", Some(&[CONFLICT])),
    ("vm-cirros.yaml", Some(&[])),
    ("vmi-alpine-efi.yaml", Some(&[])),
    ("vmi-ephemeral.yaml", Some(&[])),
    ("vmi-kernel-boot.yaml", Some(&[])),
    ("vmi-masquerade.yaml", Some(&[])),
    ("vmi-migratable.yaml", Some(&[])),
    ("vmi-nocloud.yaml", Some(&[])),
    ("vmi-pvc.yaml", Some(&[])),
    ("vmi-replicaset-cirros.yaml", Some(&[])),
    ("vmi-windows.yaml", Some(&[E1000, TPM, HYPERV])),
];

#[test]
fn kubevirts_examples_are_admitted_or_refused_for_the_reason_written_here() {
    let Some(directory) = checkout::beside("examples") else { return };
    let mut there: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(there, FILES.map(|(name, _)| name), "a file without a row, or a row without a file");
    for (name, want) in FILES {
        let text = std::fs::read_to_string(directory.join(name)).unwrap();
        let object: Value = serde_saphyr::from_str(&text).unwrap();
        let Some(want) = want else {
            assert_eq!(object["kind"], "MigrationPolicy", "{name}");
            continue;
        };
        let want: Vec<_> =
            want.iter().map(|&(field, message)| (field.to_owned(), message.to_owned())).collect();
        assert_eq!(complaints(&object), want, "{name}");
    }
}

/// An instance with one container disk on virtio and a seed, and more.
fn instance_with(more: Value) -> Value {
    let mut spec = json!({
        "terminationGracePeriodSeconds": 0,
        "domain": {
            "devices": {
                "disks": [
                    { "name": "system", "disk": { "bus": "virtio" } },
                    { "name": "seed", "disk": { "bus": "virtio" } },
                ],
            },
            "memory": { "guest": "1Gi" },
        },
        "volumes": [
            { "name": "system", "containerDisk": { "image": "example.org/system:1" } },
            { "name": "seed", "cloudInitNoCloud": { "userData": "#cloud-config" } },
        ],
    });
    merge(&mut spec, more);
    json!({ "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": { "name": "x" }, "spec": spec })
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn machine_with(spec: Value) -> Value {
    let mut vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": { "name": "x" },
        "spec": { "runStrategy": "Halted", "template": { "spec": instance_with(json!({}))["spec"] } },
    });
    merge(&mut vm["spec"], spec);
    vm
}

fn ours() -> Vec<(&'static str, Value, Expected)> {
    let no_disks = json!({ "domain": { "devices": { "disks": [] } } });
    let bridge = json!({
        "domain": { "devices": { "interfaces": [{ "name": "second", "bridge": {} }] } },
        "networks": [{ "name": "second", "multus": { "networkName": "lan" } }],
    });
    let two = json!({
        "domain": { "devices": { "interfaces": [{ "name": "pod", "masquerade": {} }, { "name": "lan", "bridge": {} }] } },
        "networks": [{ "name": "pod", "pod": {} }, { "name": "lan", "multus": { "networkName": "lan" } }],
    });
    let sriov = json!({
        "domain": { "devices": { "interfaces": [{ "name": "vf", "sriov": {} }] } },
        "networks": [{ "name": "vf", "multus": { "networkName": "sriov" } }],
    });
    let mut hook = instance_with(json!({}));
    hook["metadata"]["annotations"] = json!({ "hooks.kubevirt.io/hookSidecars": "[{}]" });
    vec![
        ("disks that nobody listed, on sata", instance_with(no_disks), &[]),
        ("random numbers", instance_with(json!({ "domain": { "devices": { "rng": {} } } })), &[]),
        (
            "a CPU of its own, and one for the VMM",
            instance_with(json!({
                "domain": { "cpu": { "dedicatedCpuPlacement": true, "isolateEmulatorThread": true } },
            })),
            &[
                (
                    "spec.domain.cpu.dedicatedCpuPlacement",
                    "spec.domain.cpu.dedicatedCpuPlacement is not supported: processors are not pinned yet",
                ),
                (
                    "spec.domain.cpu.isolateEmulatorThread",
                    "spec.domain.cpu.isolateEmulatorThread is not supported: processors are not pinned yet",
                ),
            ],
        ),
        (
            "secure boot",
            instance_with(json!({
                "domain": {
                    "features": { "smm": { "enabled": true } },
                    "firmware": { "bootloader": { "efi": { "secureBoot": true } } },
                },
            })),
            &[],
        ),
        (
            "a disk on the node",
            instance_with(json!({
                "domain": { "devices": { "disks": [{ "name": "h", "disk": { "bus": "virtio" } }] } },
                "volumes": [{ "name": "h", "hostDisk": { "path": "/x", "type": "DiskOrCreate", "capacity": "1Gi" } }],
            })),
            &[],
        ),
        ("one network beside the pod's", instance_with(bridge), &[]),
        ("the pod's network and one beside it", instance_with(two), &[]),
        (
            "a network function passed through",
            instance_with(sriov),
            &[(
                "spec.domain.devices.interfaces[0].sriov",
                "spec.domain.devices.interfaces[0].sriov is not supported: devices cannot be passed through yet",
            )],
        ),
        (
            "a GPU passed through",
            instance_with(
                json!({ "domain": { "devices": { "gpus": [{ "name": "g", "deviceName": "a/b" }] } } }),
            ),
            &[(
                "spec.domain.devices.gpus",
                "spec.domain.devices.gpus is not supported: devices cannot be passed through yet",
            )],
        ),
        (
            "a device from a claim",
            instance_with(json!({ "resourceClaims": [{ "name": "c", "resourceClaimTemplateName": "t" }] })),
            &[(
                "spec.resourceClaims",
                "spec.resourceClaims is not supported: dynamic resource allocation is not supported yet",
            )],
        ),
        (
            "a USB device passed through",
            instance_with(json!({
                "domain": { "devices": { "hostDevices": [{ "name": "u", "deviceName": "kubevirt.io/storage" }] } },
            })),
            &[(
                "spec.domain.devices.hostDevices",
                "spec.domain.devices.hostDevices is not supported: devices cannot be passed through yet",
            )],
        ),
        (
            "a hook that rewrites the domain",
            hook,
            &[(
                "metadata.annotations",
                "metadata.annotations.hooks.kubevirt.io/hookSidecars is not supported: hooks change a domain description that there is none of here",
            )],
        ),
        ("a machine", machine_with(json!({})), &[]),
        (
            "a machine with a priority",
            machine_with(json!({ "template": { "spec": { "priorityClassName": "p" } } })),
            &[],
        ),
        (
            "a machine with a DataVolume of its own",
            machine_with(json!({
                "dataVolumeTemplates": [{
                    "metadata": { "name": "dv" },
                    "spec": { "source": { "registry": { "url": "docker://example.org/x" } }, "storage": {} },
                }],
                "template": { "spec": {
                    "domain": { "devices": { "disks": [{ "name": "d", "disk": { "bus": "virtio" } }] } },
                    "volumes": [{ "name": "d", "dataVolume": { "name": "dv" } }],
                } },
            })),
            &[],
        ),
        (
            "an instance type and memory of its own",
            machine_with(json!({ "instancetype": { "name": "csmall" }, "preference": { "name": "virtio" } })),
            &[CONFLICT],
        ),
        (
            "an instance type that says it all",
            machine_with(json!({
                "instancetype": { "name": "csmall" },
                "preference": { "name": "virtio" },
                "template": { "spec": { "domain": { "memory": null } } },
            })),
            &[],
        ),
        (
            "a preset",
            json!({
                "kind": "VirtualMachineInstancePreset", "metadata": { "name": "small" },
                "spec": {
                    "selector": { "matchLabels": { "size": "small" } },
                    "domain": { "devices": {}, "resources": { "requests": { "memory": "128Mi" } } },
                },
            }),
            &[],
        ),
        (
            "a size for all namespaces",
            json!({
                "kind": "VirtualMachineClusterInstancetype", "metadata": { "name": "c" },
                "spec": { "cpu": { "guest": 4 }, "memory": { "guest": "2Gi" } },
            }),
            &[],
        ),
        (
            "a preference for Windows",
            json!({
                "kind": "VirtualMachinePreference", "metadata": { "name": "windows" },
                "spec": {
                    "cpu": { "preferredCPUTopology": "sockets" },
                    "devices": { "preferredDiskBus": "sata", "preferredInterfaceModel": "e1000", "preferredTPM": {} },
                    "firmware": { "preferredEfi": { "secureBoot": true } },
                },
            }),
            &[],
        ),
    ]
}

#[test]
fn the_rest_of_the_matrix_is_admitted_or_refused_for_the_reason_written_here() {
    for (what, object, want) in ours() {
        let want: Vec<_> =
            want.iter().map(|&(field, message)| (field.to_owned(), message.to_owned())).collect();
        assert_eq!(complaints(&object), want, "{what}");
    }
}
