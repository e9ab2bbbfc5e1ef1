use std::fs;
use std::path::{Path, PathBuf};

use orlop_api::config::{BootConfig, FileSource, TapSource};

use super::*;

pub(super) fn plan_text(text: &str) -> Result<RunPlan, PlanError> {
    plan(orlop_crd::manifest::parse(text).expect("a manifest"), uuid::Uuid::nil())
}

pub(super) fn refusals(text: &str) -> Vec<String> {
    match plan_text(text) {
        Err(PlanError::Refused(refusals)) => refusals.iter().map(Refusal::to_string).collect(),
        other => panic!("not refused: {other:?}"),
    }
}

/// A manifest with `domain` below `spec.domain` and `rest` below `spec`, both indented by two.
pub(super) fn vmi(domain: &str, rest: &str) -> String {
    let indent = |text: &str, by: &str| text.lines().map(|l| format!("{by}{l}\n")).collect::<String>();
    format!(
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {{name: a}}\nspec:\n  domain:\n{}{}",
        indent(domain, "    "),
        indent(rest, "  ")
    )
}

pub(super) const BOOT: &str =
    "firmware: {kernelBoot: {container: {image: /i, kernelPath: /k}}}\nmemory: {guest: 1000M}\ndevices: {}";

fn samples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples");
    let mut samples: Vec<_> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    samples.sort();
    assert!(!samples.is_empty());
    samples
}

#[test]
fn every_sample_is_planned() {
    for path in samples() {
        let plan = plan_text(&fs::read_to_string(&path).unwrap());
        plan.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn a_small_manifest_is_a_complete_machine() {
    let plan = plan_text(&vmi(BOOT, "")).unwrap();
    assert_eq!(
        (plan.name.as_str(), plan.namespace.as_str(), plan.grace_period_seconds),
        ("a", "default", 30)
    );
    assert_eq!(plan.config.memory.size_bytes, 999_997_440, "whole pages of 1000M");
    let BootConfig::Kernel(kernel) = &plan.config.boot else { panic!("a kernel") };
    assert_eq!(kernel.kernel, FileSource::Fd("kernel".into()));
    assert_eq!(kernel.cmdline, "console=ttyS0");
    assert!(plan.config.balloon.is_some() && plan.config.rng.is_none());
    let [card] = plan.config.nets.as_slice() else { panic!("the default network") };
    assert_eq!(card.tap, TapSource::Fds(vec!["net-default-q0".into()]));
    assert!(plan.nets.contains_key("net-default"));
    assert_eq!(
        plan.files["kernel"],
        FileWant::Inside {
            directory: "/i".into(),
            path: "k".into(),
            field: "spec.domain.firmware.kernelBoot.container.kernelPath".into()
        }
    );
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let found = refusals(&vmi(
        "devices:\n  autoattachPodInterface: false\n  disks: [{name: a, disk: {bus: usb}, bootOrder: 1}, \
         {name: b, disk: {bus: virtio}, bootOrder: 1}]\nfirmware: {bootloader: {efi: {}}}\nfeatures: {smm: {enabled: false}}\ncpu: {model: Haswell}",
        "volumes: [{name: a, emptyDisk: {capacity: 1Gi}}, {name: c, hostDisk: {path: x, type: Disk}}]",
    ));
    for start in [
        "spec.domain.cpu.model: 'Haswell'",
        "spec.domain.memory.guest: say how much",
        "spec.domain.firmware.bootloader.efi.secureBoot: SecureBoot requires SMM, which is currently disabled",
        "spec.domain.devices.disks[1].bootOrder: 1 is the boot order of disk-a already",
        "spec.domain.devices.disks[0].disk.bus: there is no usb",
        "spec.domain.devices.disks[1].name: there is no volume 'b'",
        "spec.volumes[1].name: no disk shows 'c'",
    ] {
        assert!(found.iter().any(|f| f.starts_with(start)), "{start} in {found:#?}");
    }
}

/// A machine with one disk and `firmware`, and how it starts.
fn started_by(firmware: &str) -> (RunPlan, orlop_api::config::FirmwareConfig) {
    let domain = format!(
        "memory: {{guest: 64Mi}}\n{firmware}\nchassis: {{asset: A7}}\ndevices:\n  autoattachPodInterface: false\n  \
         disks: [{{name: b, disk: {{bus: virtio}}, bootOrder: 2}}, {{name: a, disk: {{bus: virtio}}, bootOrder: 1}}]"
    );
    let volumes = "volumes: [{name: a, emptyDisk: {capacity: 1Mi}}, {name: b, emptyDisk: {capacity: 1Mi}}]";
    let plan = plan_text(&vmi(&domain, volumes)).unwrap();
    let BootConfig::Firmware(firmware) = plan.config.boot.clone() else { panic!("firmware") };
    (plan, firmware)
}

#[test]
fn a_machine_without_a_kernel_starts_by_its_bios() {
    let (plan, firmware) = started_by("firmware: {serial: S1, bootloader: {bios: {useSerial: true}}}");
    assert_eq!(firmware.boot_order, ["disk-a", "disk-b"]);
    assert!(firmware.serial_console && firmware.variables.is_none());
    assert!(
        matches!(&plan.files["firmware"], FileWant::Existing { path, .. } if path.ends_with("bios-256k.bin"))
    );
    assert_eq!(plan.config.smbios.system.serial, "S1");
    assert_eq!(plan.config.smbios.chassis.asset, "A7");
    let (_, unsaid) = started_by("features: {}");
    assert_eq!((unsaid.serial_console, unsaid.menu_ms), (false, 0));
}

#[test]
fn uefi_has_a_variable_store_that_lasts_where_the_manifest_says_so() {
    let (plan, firmware) = started_by("firmware: {bootloader: {efi: {secureBoot: false}}}");
    assert!(!firmware.variables.unwrap().persistent);
    assert!(matches!(&plan.files["firmware-variables"], FileWant::Existing { writable: false, .. }));
    let (plan, firmware) = started_by("firmware: {bootloader: {efi: {secureBoot: false, persistent: true}}}");
    assert!(firmware.variables.unwrap().persistent);
    let FileWant::CopyIfAbsent { path, .. } = &plan.files["firmware-variables"] else { panic!("a copy") };
    assert_eq!(path, Path::new("/var/lib/orlop/default/a.variables.fd"));
    assert!(!firmware.smm);
}

#[test]
fn secure_boot_is_what_uefi_means_and_takes_the_firmware_for_it() {
    for said in [
        "firmware: {bootloader: {efi: {}}}",
        "firmware: {bootloader: {efi: {secureBoot: true}}}\nfeatures: {smm: {}}",
    ] {
        let (plan, firmware) = started_by(said);
        assert!(firmware.smm && !firmware.variables.unwrap().persistent, "{said}");
        for (file, end) in
            [("firmware", "OVMF_CODE_4M.secboot.fd"), ("firmware-variables", "OVMF_VARS_4M.ms.fd")]
        {
            let FileWant::Existing { path, writable: false, .. } = &plan.files[file] else {
                panic!("{file}")
            };
            assert!(path.ends_with(end), "{path:?}");
        }
    }
    let (plan, _) =
        started_by("firmware: {bootloader: {efi: {persistent: true}}}\nfeatures: {smm: {enabled: true}}");
    let FileWant::CopyIfAbsent { template, .. } = &plan.files["firmware-variables"] else { panic!("a copy") };
    assert!(template.ends_with("OVMF_VARS_4M.ms.fd"));
}

#[test]
fn a_kernel_path_stays_in_its_image() {
    for bad in ["../etc/shadow", "/a/../../b", "/", "."] {
        let found = refusals(&vmi(&BOOT.replace("/k", bad), ""));
        assert!(found.iter().any(|f| f.contains("not a path inside the image")), "{bad}: {found:?}");
    }
    let nothing = refusals(&vmi(&BOOT.replace("image: /i", "image: Not/A"), ""));
    assert!(nothing[0].contains("container.image: 'Not/A' names no image"), "{nothing:?}");
}

#[test]
fn bad_networks_are_refused_by_path() {
    let with = |interface: &str, network: &str| {
        refusals(&vmi(
            &BOOT.replace("devices: {}", &format!("devices: {{interfaces: [{interface}]}}")),
            &format!("networks: [{network}]"),
        ))
        .join("\n")
    };
    let card = "{name: net, masquerade: {}, macAddress: '%'}";
    let net = "{name: net, pod: {}}";
    assert!(with(&card.replace('%', "zz"), net).contains("interfaces[0].macAddress: 'zz' is not a MAC"));
    assert!(with(&card.replace('%', "01:00:00:00:00:01"), net).contains("group address"));
    assert!(with(&card.replace('%', "02:00:00:00:00:00"), net).contains("bridge's own"));
    assert!(with("{name: other, masquerade: {}}", net).contains("no network 'other'"));
    assert!(with("{name: net, bridge: {}}", net).contains("interfaces[0].bridge: there is no pod network"));
    let masqueraded = "{name: net, masquerade: {}}";
    for (interface, network, said) in [
        (masqueraded, "{name: net, pod: {vmNetworkCIDR: x}}", "networks[0].pod.vmNetworkCIDR: 'x'"),
        (
            masqueraded,
            "{name: net, pod: {vmIPv6NetworkCIDR: 'fd00::/127'}}",
            "vmIPv6NetworkCIDR: 'fd00::/127'",
        ),
        (
            masqueraded,
            "{name: net, multus: {networkName: br0}}",
            "interfaces[0].masquerade: it is for the pod",
        ),
        (
            "{name: net, bridge: {}}",
            "{name: net, multus: {networkName: a/very-long-name}}",
            "is not the name of a bridge",
        ),
        (
            "{name: net, bridge: {}, dhcpOptions: {bootFileName: a}}",
            "{name: net, multus: {networkName: br0}}",
            "[0].dhcpOptions",
        ),
        ("{name: net, masquerade: {}, bridge: {}}", net, "say how the interface is bound"),
        (
            "{name: net, masquerade: {}, ports: [{port: 0}]}",
            net,
            "interfaces[0].ports[0]: ports are 1 to 65535",
        ),
        ("{name: net, masquerade: {}, ports: [{port: 1}, {port: 1}]}", net, "ports[1]: it is there already"),
        (
            "{name: net, masquerade: {}, portRanges: [{start: 9, end: 8, protocol: UDP}]}",
            net,
            "portRanges[0]",
        ),
        (
            "{name: net, masquerade: {}, dhcpOptions: {ntpServers: [pool.example]}}",
            net,
            "ntpServers[0]: 'pool.example'",
        ),
        (
            "{name: net, masquerade: {}, dhcpOptions: {privateOptions: [{option: 223, value: x}]}}",
            net,
            "privateOptions[0].option: 223",
        ),
        (
            "{name: net, masquerade: {}, dhcpOptions: {privateOptions: [{option: 224, value: ''}]}}",
            net,
            "dhcpOptions: a value has 1 to 255",
        ),
        (
            "{name: net, masquerade: {}}, {name: two, masquerade: {}}",
            "{name: net, pod: {}}, {name: two, pod: {}}",
            "networks[1]: more than one",
        ),
        (
            "{name: net, masquerade: {}}, {name: net, masquerade: {}}",
            net,
            "networks[0].name: only one interface",
        ),
    ] {
        let found = with(interface, network);
        assert!(found.contains(said), "{said} in {found}");
    }
}

#[test]
fn several_interfaces_are_planned_in_their_order() {
    let text = vmi(
        &BOOT.replace(
            "devices: {}",
            "devices: {interfaces: [{name: lan, bridge: {}}, {name: net, masquerade: {}, ports: [{port: 22}, {port: 53, \
             protocol: UDP}], portRanges: [{start: 8000, end: 8080, protocol: TCP}], dhcpOptions: {bootFileName: b, \
             privateOptions: [{option: 240, value: x}]}}]}",
        ),
        "networks: [{name: net, pod: {vmIPv6NetworkCIDR: 'fd99::/112'}}, {name: lan, multus: {networkName: br0}}]",
    );
    let plan = plan_text(&text).unwrap();
    let ids: Vec<&str> = plan.config.nets.iter().map(|card| card.id.as_str()).collect();
    assert_eq!(ids, ["net-lan", "net-net"]);
    assert_ne!(plan.config.nets[0].mac, plan.config.nets[1].mac);
    let NetSpec::Bridge(lan) = &plan.nets["net-lan"] else { panic!("a bridge") };
    assert_eq!(lan.bridge, "br0");
    let NetSpec::Masquerade(net) = &plan.nets["net-net"] else { panic!("masqueraded") };
    assert_eq!(net.v6.guest.to_string(), "fd99::2");
    assert_eq!(net.ports.len(), 3);
    assert_eq!(net.dhcp.private, [(240, "x".to_owned())]);
}

#[test]
fn names_that_could_leave_their_directory_are_refused() {
    for bad in ["../x", "A", "-a", "a-", "a/b", "."] {
        let text = vmi(BOOT, "").replace("name: a", &format!("name: \"{bad}\""));
        assert!(matches!(plan_text(&text), Err(PlanError::Name(_))), "{bad}");
    }
}

#[test]
fn the_readme_lists_what_has_no_effect() {
    let readme = include_str!("../../README.md");
    for (field, verdict) in fields::TABLE {
        let listed = readme.contains(&format!("`{field}`"));
        assert_eq!(listed, *verdict == fields::Verdict::NoEffect, "{field}");
    }
}

/// KubeVirt's own examples, where they lie beside the checkout: each is planned, or refused by paths.
#[test]
fn kubevirts_examples_are_planned_or_refused_by_path() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/kubevirt/examples");
    let Ok(entries) = fs::read_dir(&directory) else {
        println!("{} is not there: nothing to compare with", directory.display());
        return;
    };
    for path in entries.map(|e| e.unwrap().path()) {
        let Ok(documents) = orlop_crd::manifest::parse(&fs::read_to_string(&path).unwrap()) else { continue };
        match plan(documents, uuid::Uuid::nil()) {
            Ok(_) | Err(PlanError::Machines(_)) => {}
            Err(PlanError::Refused(refusals)) => {
                assert!(
                    refusals.iter().all(|r| r.path.starts_with("spec")),
                    "{}: {refusals:?}",
                    path.display()
                );
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

/// What disk `name` is made of.
fn generated(plan: &RunPlan, name: &str) -> Generated {
    match &plan.files[&format!("disk-{name}")] {
        FileWant::Generated(disk) => disk.clone(),
        other => panic!("{other:?}"),
    }
}

/// A machine with one volume `a`, and documents behind it.
fn with_volume(volume: &str, documents: &str) -> String {
    let domain = BOOT.replace("devices: {}", "devices: {disks: [{name: a, disk: {bus: virtio}}]}");
    let text = vmi(&domain, &format!("volumes: [{{name: a, {volume}}}]"));
    format!("{}---\n{documents}", text.replace("{name: a}\n", "{name: a, labels: {x: 'y \"z\"', k: v}}\n"))
}

const DATA: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {one: '1', two: '2'}\n---\napiVersion: \
                    v1\nkind: Secret\nmetadata: {name: hidden}\nstringData: {unattend.xml: x}\n";

#[test]
fn data_volumes_become_disks_with_a_file_for_each_key() {
    let disk = |volume: &str| {
        let disk = generated(&plan_text(&with_volume(volume, DATA)).unwrap(), "a");
        let text = |(name, bytes): (String, Vec<u8>)| (name, String::from_utf8(bytes).unwrap());
        (disk.label, disk.files.into_iter().map(text).collect::<Vec<_>>())
    };
    let files = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    };
    assert_eq!(disk("configMap: {name: map}"), ("cfgdata".into(), files(&[("one", "1"), ("two", "2")])));
    assert_eq!(disk("configMap: {name: none, optional: true, volumeLabel: l}"), ("l".into(), vec![]));
    assert_eq!(disk("secret: {secretName: hidden}"), ("cfgdata".into(), files(&[("unattend.xml", "x")])));
    assert_eq!(
        disk("sysprep: {secret: {name: hidden}}"),
        ("unattendCD".into(), files(&[("unattend.xml", "x")]))
    );
    let downward = "downwardAPI: {fields: [{path: d/name, fieldRef: {fieldPath: metadata.name}}, {path: all, fieldRef: \
                    {fieldPath: metadata.labels}}, {path: k, fieldRef: {fieldPath: \"metadata.labels['k']\"}}]}";
    let all = files(&[("all", "k=\"v\"\nx=\"y \\\"z\\\"\""), ("d/name", "a"), ("k", "v")]);
    assert_eq!(disk(downward), ("cfgdata".into(), all));
}

#[test]
fn volumes_that_cannot_be_are_refused_by_path() {
    for (volume, said) in [
        ("configMap: {name: none}", "spec.volumes[0].configMap.name: there is no ConfigMap 'none'"),
        ("secret: {secretName: none}", "spec.volumes[0].secret.secretName: there is no Secret 'none'"),
        (
            "configMap: {name: map, volumeLabel: 'ä'}",
            "spec.volumes[0].configMap.volumeLabel: 'ä' is no label",
        ),
        ("sysprep: {configMap: {name: map}}", "spec.volumes[0].sysprep: it needs a key autounattend.xml"),
        ("sysprep: {}", "spec.volumes[0].sysprep: give one of"),
        ("serviceAccount: {serviceAccountName: x}", "spec.volumes[0].serviceAccount: a service account"),
        (
            "persistentVolumeClaim: {claimName: x}",
            "spec.volumes[0].persistentVolumeClaim: claims are a cluster's",
        ),
        ("ephemeral: {persistentVolumeClaim: {claimName: x}}", "spec.volumes[0].ephemeral: claims"),
        ("containerDisk: {image: 'Bad/'}", "spec.volumes[0].containerDisk.image: 'Bad/' names no image"),
        ("containerDisk: {image: x, imagePullSecret: hidden}", "imagePullSecret: Secret 'hidden' has no key"),
        ("hostDisk: {path: /x, type: Disk, capacity: 1Gi}", "spec.volumes[0].hostDisk.capacity: goes with"),
        (
            "downwardAPI: {fields: [{path: ../x, fieldRef: {fieldPath: metadata.name}}]}",
            "spec.volumes[0].downwardAPI.fields[0].path: '../x' is no relative path",
        ),
        (
            "downwardAPI: {fields: [{path: x, fieldRef: {fieldPath: spec.nodeName}}]}",
            "spec.volumes[0].downwardAPI.fields[0].fieldRef.fieldPath: 'spec.nodeName' needs a cluster",
        ),
        (
            "downwardAPI: {fields: [{path: x, fieldRef: {fieldPath: metadata.name}}, {path: x/y, fieldRef: {fieldPath: \
             metadata.name}}]}",
            "fields[1].path: 'x/y' is in the way",
        ),
    ] {
        let found = refusals(&with_volume(volume, DATA));
        assert!(found.iter().any(|refusal| refusal.contains(said)), "{said} in {found:?}");
    }
}

#[test]
fn a_container_disk_is_fetched_as_its_policy_says_and_copied_unless_it_is_read_only() {
    let plan = plan_text(&with_volume("containerDisk: {image: 'quay.io/x:v1', path: /d}", DATA)).unwrap();
    let image = ImageWant {
        name: "quay.io/x:v1".into(),
        policy: PullPolicy::IfNotPresent,
        credentials: Credentials::Machine,
    };
    let field = "spec.volumes[0].containerDisk".to_owned();
    let want = FileWant::ImageDisk { image, path: Some("/d".into()), writable: true, field };
    assert_eq!(plan.files["disk-a"], want);
    let latest =
        with_volume("containerDisk: {image: x}", DATA).replace("bus: virtio", "bus: virtio, readonly: true");
    let FileWant::ImageDisk { image, writable, .. } = &plan_text(&latest).unwrap().files["disk-a"] else {
        panic!()
    };
    assert_eq!((image.policy, *writable), (PullPolicy::Always, false));
    let kernel = plan_text(&vmi(&BOOT.replace("image: /i", "image: 'quay.io/k:v1'"), "")).unwrap();
    assert!(matches!(&kernel.files["kernel"], FileWant::ImageFile { path, .. } if path == "/k"));
}

#[test]
fn credentials_need_a_volume_to_travel_in_and_a_way() {
    let with = |credential: &str, volume: &str| {
        let text = with_volume(volume, DATA);
        text.replace("spec:\n", &format!("spec:\n  accessCredentials: [{credential}]\n"))
    };
    let ssh = |method: &str| {
        format!(
            "{{sshPublicKey: {{source: {{secret: {{secretName: hidden}}}}, propagationMethod: {{{method}}}}}}}"
        )
    };
    let drive = plan_text(&with(&ssh("configDrive: {}"), "cloudInitConfigDrive: {userData: x}")).unwrap();
    let meta_data = &generated(&drive, "a").files["openstack/latest/meta_data.json"];
    assert!(String::from_utf8_lossy(meta_data).contains(r#""instance_id":"a.default","hostname":"a""#));
    assert!(String::from_utf8_lossy(meta_data).contains(r#""public_keys":{"0":"x"}"#));
    for (credential, said) in [
        (ssh("noCloud: {}"), "sshPublicKey.propagationMethod: the keys need a cloudInitNoCloud volume"),
        (ssh(""), "say one way for the keys"),
        (ssh("qemuGuestAgent: {users: [x]}"), "qemuGuestAgent"),
        (
            "{userPassword: {source: {secret: {secretName: hidden}}, propagationMethod: {qemuGuestAgent: {}}}}".into(),
            "spec.accessCredentials[0].userPassword",
        ),
    ] {
        let found = refusals(&with(&credential, "cloudInitConfigDrive: {userData: x}"));
        assert!(found.iter().any(|refusal| refusal.contains(said)), "{said} in {found:?}");
    }
}
