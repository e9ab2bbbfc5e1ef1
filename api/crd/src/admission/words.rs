//! Values that our types hold as enumerations: those that are none of them are refused in KubeVirt's words, before the
//! object is decoded.
//!
//! The schemas in the API server leave these fields open, as KubeVirt's do, so that its messages are heard. An empty
//! text means unset, as in Go.

use serde_json::Value;

use super::cause::{Cause, CauseType, Path};

/// A field whose value is one of a few words.
struct Word {
    /// Where it stands below the spec, `[]` for every element of a list.
    pattern: &'static str,
    allowed: &'static [&'static str],
    /// What is said of another.
    say: fn(&Found<'_>) -> Cause,
}

/// A value that is none of the words.
struct Found<'v> {
    /// The field.
    field: Path,
    /// The object that it stands in, and that object's path.
    object: &'v Value,
    object_path: Path,
    /// The list that the object is an element of, and the object's place in it.
    list_path: Path,
    index: usize,
    /// The spec.
    root: &'v Path,
    value: &'v str,
}

const BUSES: &[&str] = &["virtio", "scsi", "sata", "usb"];

static WORDS: [Word; 20] = [
    Word { pattern: "domain.devices.disks[].disk.bus", allowed: BUSES, say: bus },
    Word { pattern: "domain.devices.disks[].lun.bus", allowed: BUSES, say: bus },
    Word { pattern: "domain.devices.disks[].cdrom.bus", allowed: BUSES, say: bus },
    Word { pattern: "domain.devices.disks[].cdrom.tray", allowed: &["open", "closed"], say: invalid_value },
    Word {
        pattern: "domain.devices.disks[].cache",
        allowed: &["none", "writethrough", "writeback"],
        say: invalid_value,
    },
    Word { pattern: "domain.devices.disks[].io", allowed: &["native", "threads", "default"], say: io },
    Word {
        pattern: "domain.devices.disks[].errorPolicy",
        allowed: &["stop", "ignore", "report", "enospace"],
        say: |found| invalid(&found.field, format!("{} has invalid value \"{}\"", found.field, found.value)),
    },
    Word {
        pattern: "domain.devices.interfaces[].model",
        allowed: &["virtio", "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139"],
        say: |found| {
            let name = found.object_path.child("name");
            let message = format!("interface {name} uses model {} that is not supported.", found.value);
            cause(CauseType::NotSupported, &found.field, message)
        },
    },
    Word {
        pattern: "domain.devices.interfaces[].state",
        allowed: &["up", "down", "absent"],
        say: |found| {
            let name = found.object["name"].as_str().unwrap_or_default();
            let message = format!("logical {name} interface state value is unsupported: {}", found.value);
            invalid(&found.field, message)
        },
    },
    Word {
        pattern: "domain.devices.interfaces[].ports[].protocol",
        allowed: &["TCP", "UDP"],
        say: |found| invalid(&found.field, "Unknown protocol, only TCP or UDP allowed".to_owned()),
    },
    Word {
        pattern: "domain.devices.inputs[].bus",
        allowed: &["virtio", "usb"],
        say: |found| invalid(&found.field, "Input device can have only virtio or usb bus.".to_owned()),
    },
    Word {
        pattern: "domain.devices.inputs[].type",
        allowed: &["tablet"],
        say: |found| invalid(&found.field, "Input device can have only tablet type.".to_owned()),
    },
    Word {
        pattern: "domain.devices.sound.model",
        allowed: &["ich9", "ac97"],
        say: |found| {
            let message = "Sound device type is not supported. Options: 'ich9' or 'ac97'";
            invalid(&found.root.child("Sound"), message.to_owned())
        },
    },
    Word {
        pattern: "domain.ioThreadsPolicy",
        allowed: &["shared", "auto", "supplementalPool"],
        say: |found| invalid(&found.field, format!("Invalid IOThreadsPolicy ({})", found.value)),
    },
    Word {
        pattern: "domain.cpu.features[].policy",
        allowed: &["force", "require", "optional", "disable", "forbid"],
        say: |found| {
            let name = found.object["name"].as_str().unwrap_or_default();
            let message = format!("CPU feature {name} uses policy {} that is not supported.", found.value);
            cause(CauseType::NotSupported, &found.field, message)
        },
    },
    Word { pattern: "startStrategy", allowed: &["Paused"], say: unrecognized },
    Word {
        pattern: "evictionStrategy",
        allowed: &["None", "LiveMigrate", "LiveMigrateIfPossible", "External"],
        say: unrecognized,
    },
    Word {
        pattern: "dnsPolicy",
        allowed: &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        say: |found| {
            let valid = "[ClusterFirstWithHostNet ClusterFirst Default None ]";
            let message = format!("DNSPolicy: {} is not supported, valid values: {valid}", found.value);
            cause(CauseType::NotSupported, &found.field, message)
        },
    },
    Word {
        pattern: "volumes[].hostDisk.type",
        allowed: &["Disk", "DiskOrCreate"],
        say: |found| {
            let allowed = "allowed are 'Disk' or 'DiskOrCreate'";
            invalid(&found.field, format!("{} has invalid value '{}', {allowed}", found.field, found.value))
        },
    },
    Word {
        pattern: "architecture",
        allowed: &["amd64", "arm64", "s390x"],
        say: |found| {
            invalid(&found.field, format!("{} is not an architecture: {}", found.field, found.value))
        },
    },
];

fn cause(reason: CauseType, field: &Path, message: String) -> Cause {
    Cause { reason, message, field: field.to_string() }
}

fn invalid(field: &Path, message: String) -> Cause {
    cause(CauseType::Invalid, field, message)
}

fn bus(found: &Found<'_>) -> Cause {
    if found.value == "ide" {
        return invalid(&found.field, "IDE bus is not supported".to_owned());
    }
    let disk = found.list_path.index(found.index);
    let known = BUSES.join(" ");
    invalid(
        &found.field,
        format!("{disk} is set with an unrecognized bus {}, must be one of: [{known}]", found.value),
    )
}

fn invalid_value(found: &Found<'_>) -> Cause {
    invalid(&found.field, format!("{} has invalid value {}", found.field, found.value))
}

/// KubeVirt names this one field oddly.
fn io(found: &Found<'_>) -> Cause {
    let field = found.list_path.child("domain.devices.disks").index(found.index).child("io");
    let disks = &found.list_path;
    let message = format!("Disk IO mode for {disks} is not supported. Supported modes are: native, threads.");
    cause(CauseType::NotSupported, &field, message)
}

fn unrecognized(found: &Found<'_>) -> Cause {
    invalid(&found.field, format!("{} is set with an unrecognized option: {}", found.field, found.value))
}

/// All wrong words of the spec at `root`; takes empty ones out.
pub(super) fn check(root: &Path, spec: &mut Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for word in &WORDS {
        let places: Vec<&str> = word.pattern.split('.').collect();
        let start = Place { path: root.clone(), list_path: root.clone(), index: 0 };
        look(&places, spec, &start, root, word, &mut causes);
    }
    ports(root, spec, &mut causes);
    causes
}

/// Where a walk is.
struct Place {
    path: Path,
    list_path: Path,
    index: usize,
}

fn look(places: &[&str], value: &mut Value, at: &Place, root: &Path, word: &Word, causes: &mut Vec<Cause>) {
    let Some((&place, rest)) = places.split_first() else { return };
    if let Some(name) = place.strip_suffix("[]") {
        let list_path = at.path.child(name);
        let elements = value.get_mut(name).and_then(Value::as_array_mut);
        for (index, element) in elements.into_iter().flatten().enumerate() {
            let at = Place { path: list_path.index(index), list_path: list_path.clone(), index };
            look(rest, element, &at, root, word, causes);
        }
        return;
    }
    let Some(object) = value.as_object_mut() else { return };
    if !rest.is_empty() {
        let at = Place { path: at.path.child(place), list_path: at.list_path.clone(), index: at.index };
        if let Some(below) = object.get_mut(place) {
            look(rest, below, &at, root, word, causes);
        }
        return;
    }
    let Some(text) = object.get(place).and_then(Value::as_str).map(str::to_owned) else { return };
    let may_be_empty =
        word.pattern != "domain.devices.inputs[].type" && word.pattern != "volumes[].hostDisk.type";
    if text.is_empty() && may_be_empty {
        object.remove(place);
    } else if !word.allowed.contains(&text.as_str()) {
        let found = Found {
            field: at.path.child(place),
            object: &Value::Object(object.clone()),
            object_path: at.path.clone(),
            list_path: at.list_path.clone(),
            index: at.index,
            root,
            value: &text,
        };
        causes.push((word.say)(&found));
    }
}

/// Numbers that our types hold in fewer bits than the schema.
fn ports(root: &Path, spec: &Value, causes: &mut Vec<Cause>) {
    let interfaces = spec["domain"]["devices"]["interfaces"].as_array();
    for (index, interface) in interfaces.into_iter().flatten().enumerate() {
        let field = root.child("domain.devices.interfaces").index(index).child("ports");
        for (index, port) in interface["ports"].as_array().into_iter().flatten().enumerate() {
            if port["port"].as_i64().is_some_and(|port| !(0..=i64::from(u16::MAX)).contains(&port)) {
                causes.push(invalid(
                    &field.index(index),
                    "Port field must be in range 0 < x < 65536.".to_owned(),
                ));
            }
        }
        let options = interface["dhcpOptions"]["privateOptions"].as_array();
        let wide = |option: &Value| option["option"].as_i64().is_some_and(|n| !(0..=255).contains(&n));
        if options.into_iter().flatten().any(wide) {
            let message = "provided DHCPPrivateOptions are out of range, must be in range 224 to 254";
            causes.push(invalid(root, message.to_owned()));
        }
    }
}

/// A word by itself, outside an instance's spec.
pub(super) fn one(
    object: &mut Value,
    pointer: &str,
    allowed: &[&str],
    say: impl FnOnce(&str) -> Cause,
) -> Option<Cause> {
    let value = object.pointer_mut(pointer)?;
    let text = value.as_str()?.to_owned();
    if text.is_empty() {
        *value = Value::Null;
        return None;
    }
    (!allowed.contains(&text.as_str())).then(|| say(&text))
}
