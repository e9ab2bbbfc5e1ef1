//! Plans against what they should be, as text.

use orlop_api::config::VmConfig;
use serde_json::json;

use super::{HostFacts, Plan, PlanError, Seed, plan};

fn facts() -> HostFacts {
    HostFacts { vcpus_max: 64, smm: true, address_bits: 48, seed: Seed([7; 16]) }
}

fn minimal() -> serde_json::Value {
    json!({
        "name": "small",
        "memory": { "size_bytes": 268435456 },
        "boot": { "kernel": { "kernel": { "path": "/boot/vmlinuz" } } },
    })
}

fn of(value: serde_json::Value) -> Result<Plan, PlanError> {
    plan(serde_json::from_value::<VmConfig>(value).unwrap(), &facts())
}

/// The minimal configuration with `value` at `path`.
fn with(path: &str, value: serde_json::Value) -> serde_json::Value {
    let mut config = minimal();
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = &mut config;
    for parent in parents.split('.').filter(|p| !p.is_empty()) {
        at = &mut at[parent];
    }
    at[last] = value;
    config
}

fn check(value: serde_json::Value, expected: &str) {
    let shown = of(value).unwrap().to_string();
    let trim = |text: &str| text.lines().map(|l| l.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(trim(&shown), trim(expected.trim()), "\n{shown}");
}

fn refused(value: serde_json::Value, field: &str, problem: &str) {
    let error = of(value).err().unwrap_or_else(|| panic!("{field} is accepted"));
    assert_eq!(error.field, field, "{error}");
    assert!(error.problem.contains(problem), "{error}");
}

#[test]
fn the_smallest_machine() {
    check(
        minimal(),
        "machine small 07070707-0707-4707-8707-070707070707
         cpus 1 x 1 x 1, apic ids [0]
         ram 0x0..0x10000000 Anonymous
         pci64 0x100000000..0x900000000",
    );
}

#[test]
fn a_machine_with_everything() {
    let mut config = minimal();
    config["memory"]["size_bytes"] = json!(6_u64 << 30);
    config["cpus"] = json!({ "sockets": 2, "cores": 3, "threads": 1 });
    config["disks"] = json!([
        { "id": "root", "source": { "path": "/disk.raw" } },
        { "id": "data", "source": { "fd": "data" }, "read_only": true, "queues": 4, "serial": "D1" },
    ]);
    config["nets"] = json!([{ "id": "lan", "tap": { "name": "tap0" }, "mtu": 1400 }]);
    config["console"] = json!({ "ports": [{ "name": "org.qemu.guest_agent.0", "socket": "/run/ga" }] });
    config["rng"] = json!({});
    config["vsock"] = json!({ "cid": 3, "socket": "/run/vsock" });
    config["balloon"] = json!({});
    check(config, include_str!("golden/everything.txt"));
}

#[test]
fn every_mistake_is_refused_by_its_field() {
    let disk = |change: serde_json::Value| {
        let mut disk = json!({ "id": "a", "source": { "path": "/d" } });
        disk.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        with("disks", json!([disk]))
    };
    let net = |change: serde_json::Value| {
        let mut net = json!({ "id": "a", "tap": { "name": "tap0" } });
        net.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        with("nets", json!([net]))
    };
    refused(with("name", json!("Big")), "name", "'Big' is not");
    refused(with("uuid", json!("x")), "uuid", "'x' is not of the form");
    refused(with("cpus", json!({ "cores": 0 })), "cpus", "at least 1");
    refused(with("cpus", json!({ "cores": 65 })), "cpus", "at most 64");
    refused(with("memory.size_bytes", json!(4096)), "memory.size_bytes", "too small");
    refused(with("memory.size_bytes", json!(1048577)), "memory.size_bytes", "multiple of 4096");
    refused(
        with("memory", json!({ "size_bytes": 1 << 20, "backing": "hugetlb_2m" })),
        "memory.size_bytes",
        "pages of 2097152",
    );
    refused(with("serial", json!({ "backlog_bytes": 1 })), "serial.backlog_bytes", "between");
    refused(with("serial", json!({ "log": { "path": "log" } })), "serial.log", "absolute");
    refused(with("boot.kernel.kernel", json!({ "path": "k" })), "boot.kernel.kernel", "absolute");
    refused(with("boot.kernel.cmdline", json!("x".repeat(2048))), "boot.kernel.cmdline", "too long");
    refused(with("boot.kernel.cmdline", json!("a\u{0}b")), "boot.kernel.cmdline", "NUL");
    refused(disk(json!({ "queues": 0 })), "disks[0].queues", "between 1 and 64");
    refused(disk(json!({ "queue_size": 100 })), "disks[0].queue_size", "power of two");
    refused(disk(json!({ "serial": "x".repeat(21) })), "disks[0].serial", "at most 20");
    refused(disk(json!({ "id": "" })), "disks[0].id", "1 to 64");
    let base = json!([{ "source": { "path": "/base" } }]);
    refused(disk(json!({ "backing": base })), "disks[0].format", "said to be qcow2");
    refused(disk(json!({ "backing": base, "format": "detect" })), "disks[0].format", "said to be qcow2");
    let two = json!([{ "source": { "path": "/a" } }, { "source": { "path": "/b" } }]);
    refused(
        disk(json!({ "backing": two, "format": "qcow2" })),
        "disks[0].backing[0].format",
        "said to be qcow2",
    );
    refused(
        disk(json!({ "backing": [{ "source": { "path": "b" } }], "format": "qcow2" })),
        "disks[0].backing[0].source",
        "absolute",
    );
    refused(disk(json!({ "overlay": { "path": "/o" }, "read_only": true })), "disks[0].overlay", "read-only");
    let many: Vec<_> = (0..16).map(|_| json!({ "source": { "path": "/b" }, "format": "qcow2" })).collect();
    refused(disk(json!({ "backing": many, "format": "qcow2" })), "disks[0].backing", "at most 15");
    refused(
        disk(json!({ "bandwidth_limit": { "per_second": 0 } })),
        "disks[0].bandwidth_limit.per_second",
        "nothing through",
    );
    refused(net(json!({ "mac": "52:54:00:12:34" })), "nets[0].mac", "not a MAC address");
    refused(net(json!({ "mac": "53:54:00:12:34:56" })), "nets[0].mac", "single station");
    refused(net(json!({ "mtu": 67 })), "nets[0].mtu", "between 68 and 65535");
    refused(net(json!({ "queue_pairs": 33 })), "nets[0].queue_pairs", "between 1 and 32");
    refused(net(json!({ "tap": { "fds": ["a", "b"] } })), "nets[0].tap.fds", "2 descriptors for 1");
    refused(with("console", json!({ "ports": [] })), "console.ports", "1 to 31");
    refused(with("vsock", json!({ "cid": 2, "socket": "/v" })), "vsock.cid", "not between 3");
    refused(
        with("vsock", json!({ "cid": 3, "socket": format!("/{}", "v".repeat(100)) })),
        "vsock.socket",
        "at most 96",
    );
    refused(with("balloon", json!({ "target_bytes": 4095 })), "balloon.target_bytes", "multiple of 4096");
}

#[test]
fn disks_share_the_controllers_of_their_buses() {
    let disk = |id: &str, bus: &str| json!({ "id": id, "source": { "path": "/d" }, "bus": bus });
    let mut cd = disk("cd", "sata");
    cd["cdrom"] = json!({ "tray": "open" });
    let disks = json!([disk("s0", "scsi"), disk("v0", "virtio"), cd.clone(), disk("s1", "scsi")]);
    let shown = of(with("disks", disks)).unwrap();
    let seats: Vec<_> = shown
        .slots
        .iter()
        .map(|slot| {
            let members: Vec<_> = slot.device.spec.members().into_iter().map(|(id, _)| id).collect();
            (slot.bdf.to_string(), slot.bar_address, slot.device.id.clone(), members.join(" "))
        })
        .collect();
    let seat = |bdf: &str, bar: u64, id: &str, members: &str| (bdf.into(), bar, id.into(), members.into());
    assert_eq!(
        seats,
        [
            seat("0000:00:01.0", 0x1_0000_0000, "v0", ""),
            seat("0000:00:02.0", 0x1_0000_8000, "scsi", "s0 s1"),
            seat("0000:00:1f.2", 0xc000_0000, "sata", "cd"),
        ]
    );
    let one = |disk: serde_json::Value| with("disks", json!([disk]));
    cd["bus"] = json!("virtio");
    refused(one(cd), "disks[0].cdrom", "scsi or the sata bus");
    let mut limited = disk("a", "scsi");
    limited["bandwidth_limit"] = json!({ "per_second": 1 });
    refused(one(limited), "disks[0].bandwidth_limit", "only disks on the virtio bus");
    let twice = json!([disk("a", "scsi"), disk("a", "sata")]);
    refused(with("disks", twice), "disks[1].id", "the name of disks[0] already");
    let many = |bus: &str, count: usize| {
        with("disks", (0..count).map(|n| disk(&format!("d{n}"), bus)).collect::<Vec<_>>().into())
    };
    assert!(of(many("sata", 30)).is_ok() && of(many("scsi", 256)).is_ok());
    refused(many("sata", 31), "disks[30].bus", "room for 30");
    refused(many("scsi", 257), "disks[256].bus", "room for 256");
}

#[test]
fn two_devices_cannot_have_one_name() {
    let disks = json!([
        { "id": "a", "source": { "path": "/1" } },
        { "id": "a", "source": { "path": "/2" } },
    ]);
    refused(with("disks", disks), "disks[1].id", "the name of disks[0] already");
}

#[test]
fn there_is_room_for_thirty_devices() {
    let disks = |count: usize| {
        let disk = |n| json!({ "id": format!("d{n}"), "source": { "path": "/d" } });
        with("disks", (0..count).map(disk).collect())
    };
    assert_eq!(of(disks(30)).unwrap().slots.last().unwrap().bdf.to_string(), "0000:00:1e.0");
    refused(disks(31), "disks[30]", "has room for 30");
}

#[test]
fn memory_beyond_what_the_host_addresses_is_refused() {
    let config = serde_json::from_value(with("memory.size_bytes", json!(64_u64 << 30))).unwrap();
    let error = plan(config, &HostFacts { address_bits: 36, ..facts() }).err().unwrap();
    assert!(error.problem.contains("only 36 bits"), "{error}");
}

/// A machine whose firmware has a system management mode.
fn with_smm(size_bytes: u64) -> serde_json::Value {
    let store = json!({ "source": { "path": "/vars.fd" } });
    let firmware = json!({ "code": { "path": "/code.fd" }, "variables": store, "smm": true });
    let mut config = with("boot", json!({ "firmware": firmware }));
    config["memory"]["size_bytes"] = json!(size_bytes);
    config
}

#[test]
fn system_management_ram_is_the_end_of_low_memory() {
    check(
        with_smm(64 << 20),
        "machine small 07070707-0707-4707-8707-070707070707
         cpus 1 x 1 x 1, apic ids [0]
         ram 0x0..0x4000000 Anonymous
         smram 0x3000000..0x4000000
         pci64 0x100000000..0x900000000",
    );
    assert_eq!(of(with_smm(5 << 30)).unwrap().smram, Some(0x7f00_0000..0x8000_0000));
    let mut huge = with_smm(256 << 20);
    huge["memory"]["backing"] = json!("hugetlb_2m");
    assert!(of(huge).is_ok());
}

#[test]
fn a_system_management_mode_that_cannot_be_is_refused_by_its_field() {
    for size in [63 << 20, (64 << 20) + 4096, 2 << 20] {
        refused(with_smm(size), "memory.size_bytes", "whole MiB, at least 67108864");
    }
    let mut huge = with_smm(1 << 30);
    huge["memory"]["backing"] = json!("hugetlb_1g");
    refused(huge, "memory.backing", "no whole number of such pages");
    let mut volatile = with_smm(64 << 20);
    volatile["boot"]["firmware"].as_object_mut().unwrap().remove("variables");
    refused(volatile, "boot.firmware.smm", "needs boot.firmware.variables");
    let config = serde_json::from_value(with_smm(64 << 20)).unwrap();
    let error = plan(config, &HostFacts { smm: false, ..facts() }).err().unwrap();
    assert_eq!(error.field, "boot.firmware.smm");
    assert!(error.problem.contains("KVM_CAP_X86_SMM"), "{error}");
}
