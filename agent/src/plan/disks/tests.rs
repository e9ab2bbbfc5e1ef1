use orlop_api::config::{BlockSize, DiskBus, DiskConfig, DiskIo, ErrorPolicy};

use super::super::tests::{BOOT, plan_text, refusals, vmi};

/// The disk `a` with `options`, of a hostDisk.
fn disk(options: &str) -> DiskConfig {
    let plan = plan_text(&manifest(options)).unwrap();
    plan.config.disks.into_iter().next().unwrap()
}

fn manifest(options: &str) -> String {
    let devices = format!("devices: {{disks: [{{name: a, {options}}}]}}");
    vmi(
        &BOOT.replace("devices: {}", &devices),
        "volumes: [{name: a, hostDisk: {path: /a, type: DiskOrCreate, capacity: 1Gi}}]",
    )
}

#[test]
fn every_option_reaches_the_vmm() {
    let plain = disk("disk: {bus: virtio}");
    assert_eq!(plain.error_policy, ErrorPolicy::Stop, "KubeVirt's default");
    assert!(!plain.direct && !plain.write_through && !plain.shared && plain.block_size.is_none());
    for (word, policy) in [
        ("stop", ErrorPolicy::Stop),
        ("report", ErrorPolicy::Report),
        ("ignore", ErrorPolicy::Ignore),
        ("enospace", ErrorPolicy::StopWhenFull),
    ] {
        assert_eq!(disk(&format!("disk: {{bus: scsi}}, errorPolicy: {word}")).error_policy, policy);
    }
    let through = disk("disk: {bus: sata}, cache: writethrough, io: threads");
    assert!(through.write_through && !through.direct);
    assert_eq!((through.io, through.bus), (DiskIo::Synchronous, DiskBus::Sata));
    assert!(disk("disk: {}, cache: none, io: native").direct);
    let shared = disk("disk: {bus: virtio}, shareable: true");
    assert!(shared.shared && shared.direct, "others do not see what this host caches");
    let custom = disk("disk: {bus: virtio}, blockSize: {custom: {logical: 4096, physical: 8192}}");
    assert_eq!(
        custom.block_size,
        Some(BlockSize::Custom { logical_bytes: 4096, physical_bytes: 8192, discard_bytes: None })
    );
    assert_eq!(disk("blockSize: {matchVolume: {}}").block_size, Some(BlockSize::Storage {}));
    assert_eq!(disk("blockSize: {matchVolume: {enabled: false}}").block_size, None);
    assert!(disk("disk: {bus: virtio}, dedicatedIOThread: true").source.is_some());
    assert_eq!(disk("lun: {bus: scsi}, dedicatedIOThread: true").bus, DiskBus::Scsi);
}

#[test]
fn what_cannot_be_is_refused_by_its_path() {
    for (options, said) in [
        ("disk: {}, dedicatedIOThread: true", "disks[0].dedicatedIOThread: the disks of the sata bus"),
        (
            "disk: {}, shareable: true, cache: writeback",
            "disks[0].cache: a shareable disk requires cache = none",
        ),
        ("cdrom: {}, shareable: true", "disks[0].shareable: a CD-ROM"),
        ("cdrom: {}, errorPolicy: stop", "disks[0].errorPolicy: a CD-ROM"),
        ("cdrom: {}, blockSize: {matchVolume: {}}", "disks[0].blockSize: a CD-ROM"),
        (
            "disk: {}, blockSize: {custom: {logical: 8192}}",
            "disks[0].blockSize.custom.logical: a guest takes",
        ),
        ("disk: {}, blockSize: {custom: {logical: 0}}", "disks[0].blockSize.custom.logical"),
        (
            "disk: {}, blockSize: {custom: {logical: 4096, physical: 512}}",
            "disks[0].blockSize.custom.physical",
        ),
        (
            "disk: {}, blockSize: {custom: {logical: 4096, discardGranularity: 512}}",
            "disks[0].blockSize.custom.discardGranularity",
        ),
        ("disk: {}, blockSize: {custom: {logical: 512}, matchVolume: {}}", "disks[0].blockSize: say either"),
    ] {
        let found = refusals(&manifest(options)).join("\n");
        assert!(found.contains(&format!("spec.domain.devices.{said}")), "{options}: {found}");
    }
    let two = BOOT.replace(
        "devices: {}",
        "devices: {disks: [{name: a, disk: {bus: scsi}, dedicatedIOThread: true}, {name: b, disk: {bus: scsi}, shareable: \
         true}]}",
    );
    let found = refusals(&vmi(
        &two,
        "volumes: [{name: a, hostDisk: {path: /a, type: Disk}}, {name: b, emptyDisk: {capacity: 1Gi}}]",
    ));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("disks[0].dedicatedIOThread") && found[1].contains("disks[1].shareable"));
}

#[test]
fn a_drive_without_a_volume_is_empty() {
    let text = vmi(&BOOT.replace("devices: {}", "devices: {disks: [{name: cd, cdrom: {bus: scsi}}]}"), "");
    let plan = plan_text(&text).unwrap();
    let [drive] = plan.config.disks.as_slice() else { panic!("one drive") };
    assert!(drive.source.is_none() && drive.cdrom.is_some() && drive.error_policy == ErrorPolicy::Report);
}

#[test]
fn sizes_that_cannot_be_are_refused_by_their_path() {
    for capacity in ["0", "17Ti", "9000000Ti", "16E"] {
        let found = refusals(&vmi(
            &BOOT.replace("devices: {}", "devices: {disks: [{name: a, disk: {}}, {name: b, disk: {}}]}"),
            &format!(
                "volumes: [{{name: a, emptyDisk: {{capacity: '{capacity}'}}}}, {{name: b, hostDisk: {{path: /b, type: \
                 DiskOrCreate, capacity: '{capacity}'}}}}]"
            ),
        ));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("spec.volumes[0].emptyDisk.capacity: "), "{found:?}");
        assert!(found[1].starts_with("spec.volumes[1].hostDisk.capacity: "), "{found:?}");
    }
}

#[test]
fn a_guest_that_is_larger_than_the_machine_is_refused_by_its_path() {
    let plan = plan_text(&vmi(BOOT, "")).unwrap();
    plan.fits(1 << 30).unwrap();
    let refused = plan.fits(512 << 20).unwrap_err().to_string();
    assert_eq!(refused, "spec.domain.memory.guest: 953 MiB: this machine has 512 MiB in all");
}
