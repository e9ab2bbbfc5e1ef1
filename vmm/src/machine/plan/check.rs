//! What a configuration may say, field by field.

use std::collections::BTreeMap;

use orlop_api::config::{FileSource, FirmwareConfig, KernelConfig, RateLimit, SmbiosConfig, VmConfig};
use orlop_firmware::layout::CMDLINE_MAX_BYTES;
use orlop_firmware::smbios::STRING_MAX_BYTES;

use super::PlanError;
use crate::machine::registry::Wanted;

type Checked = Result<(), PlanError>;

/// Longest path of a unix socket in bytes (`unix(7)`: 108 with the NUL).
const SOCKET_MAX_BYTES: usize = 107;
/// Longest name of a device.
const ID_MAX_BYTES: usize = 64;

/// Refuses with `problem` unless `holds`.
pub fn ensure(holds: bool, field: &str, problem: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(PlanError::new(field, problem())) }
}

/// What concerns the machine as a whole.
pub(super) fn machine(config: &VmConfig) -> Checked {
    let name = &config.name;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    ensure((1..=253).contains(&name.len()) && name.chars().all(allowed), "name", || {
        format!("'{name}' is not 1 to 253 characters of a-z, 0-9, '-' and '.'")
    })?;
    if let Some(uuid) = &config.uuid {
        ensure(is_uuid(uuid), "uuid", || {
            format!("'{uuid}' is not of the form 123e4567-e89b-12d3-a456-426614174000")
        })?;
    }
    let backlog = config.serial.backlog_bytes;
    ensure((4 << 10..=16 << 20).contains(&backlog), "serial.backlog_bytes", || {
        format!("{backlog} is not between 4096 and 16777216")
    })?;
    config.serial.log.iter().try_for_each(|log| source(log, "serial.log"))?;
    smbios(&config.smbios)
}

/// What SMBIOS shows.
fn smbios(config: &SmbiosConfig) -> Checked {
    let SmbiosConfig { system, chassis } = config;
    let texts = [
        ("system.manufacturer", &system.manufacturer),
        ("system.product", &system.product),
        ("system.version", &system.version),
        ("system.serial", &system.serial),
        ("system.sku", &system.sku),
        ("system.family", &system.family),
        ("chassis.manufacturer", &chassis.manufacturer),
        ("chassis.version", &chassis.version),
        ("chassis.serial", &chassis.serial),
        ("chassis.asset", &chassis.asset),
        ("chassis.sku", &chassis.sku),
    ];
    texts.into_iter().try_for_each(|(field, text)| {
        let fits = text.len() <= STRING_MAX_BYTES && !text.chars().any(char::is_control);
        ensure(fits, &format!("smbios.{field}"), || {
            format!("it is not at most {STRING_MAX_BYTES} bytes without control characters")
        })
    })
}

/// Firmware that is started.
pub(super) fn firmware(firmware: &FirmwareConfig) -> Checked {
    source(&firmware.code, "boot.firmware.code")?;
    let variables = firmware.variables.iter();
    variables
        .map(|store| &store.source)
        .try_for_each(|file| source(file, "boot.firmware.variables.source"))?;
    let order = &firmware.boot_order;
    (0..).zip(order).try_for_each(|(index, name)| {
        ensure(!order[..index].contains(name), &format!("boot.firmware.boot_order[{index}]"), || {
            format!("'{name}' is in the order already")
        })
    })
}

/// What is started.
pub(super) fn kernel(kernel: &KernelConfig) -> Checked {
    source(&kernel.kernel, "boot.kernel.kernel")?;
    kernel.initramfs.iter().try_for_each(|file| source(file, "boot.kernel.initramfs"))?;
    let (field, len) = ("boot.kernel.cmdline", kernel.cmdline.len());
    ensure(len <= CMDLINE_MAX_BYTES, field, || {
        format!("{len} bytes are too long; at most {CMDLINE_MAX_BYTES} are possible")
    })?;
    ensure(!kernel.cmdline.contains('\0'), field, || "it has a NUL byte".to_owned())
}

/// The names of all devices together.
pub(super) fn names(wanted: &[Wanted]) -> Checked {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let own = wanted.iter().map(|device| (device.id.clone(), device.field.clone()));
    let members = wanted.iter().flat_map(|device| device.spec.members());
    for (id, place) in own.chain(members) {
        let field = format!("{place}.id");
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        ensure((1..=ID_MAX_BYTES).contains(&id.len()) && id.chars().all(allowed), &field, || {
            format!("'{id}' is not 1 to {ID_MAX_BYTES} letters, digits, '-', '.' and '_'")
        })?;
        if let Some(other) = seen.get(&id) {
            return Err(PlanError::new(field, format!("'{id}' is the name of {other} already")));
        }
        seen.insert(id, place);
    }
    Ok(())
}

/// A file of the host.
pub fn source(file: &FileSource, field: &str) -> Checked {
    match file {
        FileSource::Path(path) => absolute(path, field),
        FileSource::Fd(name) => ensure(!name.is_empty(), field, || "a descriptor has a name".to_owned()),
    }
}

/// A path that means the same wherever the process stands.
pub fn absolute(path: &str, field: &str) -> Checked {
    ensure(path.starts_with('/') && !path.contains('\0'), field, || {
        format!("'{path}' is not an absolute path")
    })
}

/// Where a unix socket is to be.
pub fn socket(path: &str, field: &str, reserve_bytes: usize) -> Checked {
    absolute(path, field)?;
    let most = SOCKET_MAX_BYTES - reserve_bytes;
    ensure(path.len() <= most, field, || {
        format!("'{path}' is too long for a unix socket: at most {most} bytes")
    })
}

/// A token bucket.
pub fn limit(limit: Option<RateLimit>, field: &str) -> Checked {
    let Some(RateLimit { per_second, burst }) = limit else { return Ok(()) };
    ensure(per_second > 0, &format!("{field}.per_second"), || "0 would let nothing through".to_owned())?;
    ensure(burst != Some(0), &format!("{field}.burst"), || "0 would let nothing through".to_owned())
}

/// A number between two others.
pub fn between(value: u16, least: u16, most: u16, field: &str) -> Checked {
    ensure((least..=most).contains(&value), field, || format!("{value} is not between {least} and {most}"))
}

/// The size of a queue (virtio 1.3 §2.7).
pub fn queue_size(value: u16, least: u16, most: u16, field: &str) -> Checked {
    ensure(value.is_power_of_two() && (least..=most).contains(&value), field, || {
        format!("{value} is not a power of two from {least} to {most}")
    })
}

/// The address of a network card, of a single station.
pub fn mac(text: &str, field: &str) -> Result<[u8; 6], PlanError> {
    let refuse = || PlanError::new(field, format!("'{text}' is not a MAC address like 52:54:00:12:34:56"));
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refuse)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
    }
    if parts.next().is_some() {
        return Err(refuse());
    }
    let single = mac[0] & 1 == 0 && mac != [0; 6];
    ensure(single, field, || format!("'{text}' is not the address of a single station"))?;
    Ok(mac)
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}
