//! The vendor capabilities by which a driver finds the parts of the BAR (virtio 1.3 §4.1.4), and the access to the
//! BAR through one of them.

use orlop_pci::{ConfigSpace, LayoutError};

use super::layout::{
    BAR, BAR_BYTES, COMMON, COMMON_BYTES, DEVICE, ISR, NOTIFY, NOTIFY_MULTIPLIER, PAGE_BYTES,
};

const VENDOR_SPECIFIC: u8 = 0x09;
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_ISR: u8 = 3;
const TYPE_DEVICE: u8 = 4;
const TYPE_PCI: u8 = 5;
/// Bytes of `struct virtio_pci_cap`.
const BYTES: u8 = 16;

/// Adds all of them. Returns the offset of the one for access through the configuration space.
pub(super) fn add(config: &mut ConfigSpace) -> Result<u16, LayoutError> {
    let page = u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX);
    for (kind, offset, len) in
        [(TYPE_COMMON, COMMON, COMMON_BYTES), (TYPE_ISR, ISR, 1), (TYPE_DEVICE, DEVICE, page)]
    {
        config.add_capability(VENDOR_SPECIFIC, &body(BYTES, kind, offset, len), &[])?;
    }
    let mut notify = body(BYTES.saturating_add(4), TYPE_NOTIFY, NOTIFY, page);
    notify.extend(NOTIFY_MULTIPLIER.to_le_bytes());
    config.add_capability(VENDOR_SPECIFIC, &notify, &[])?;
    let mut access = body(BYTES.saturating_add(4), TYPE_PCI, 0, 0);
    access.extend([0; 4]);
    // The driver sets bar, offset, length and data (virtio 1.3 §4.1.4.9).
    let mut writable = vec![0, 0, 0xff, 0, 0, 0];
    writable.extend([0xff; 12]);
    config.add_capability(VENDOR_SPECIFIC, &access, &writable)
}

/// `struct virtio_pci_cap` from its third byte on.
fn body(len: u8, kind: u8, offset: u64, length: u32) -> Vec<u8> {
    let mut body = vec![len, kind, BAR, 0, 0, 0];
    body.extend(u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes());
    body.extend(length.to_le_bytes());
    body
}

/// Offset of `pci_cfg_data` in the capability.
pub(super) const ACCESS_DATA: u16 = 16;

/// The place in the BAR that the access capability at `capability` points to, as `(offset, length in bytes)`. A
/// driver that set up anything but 1, 2 or 4 aligned bytes inside the BAR reaches nothing (virtio 1.3 §4.1.4.9.1).
pub(super) fn access_target(config: &ConfigSpace, capability: u16) -> Option<(u64, usize)> {
    let mut bar = [0];
    let mut offset = [0; 4];
    let mut length = [0; 4];
    config.read(capability.checked_add(4)?, &mut bar);
    config.read(capability.checked_add(8)?, &mut offset);
    config.read(capability.checked_add(12)?, &mut length);
    let offset = u64::from(u32::from_le_bytes(offset));
    let length = u64::from(u32::from_le_bytes(length));
    let fits = offset.checked_add(length).is_some_and(|end| end <= BAR_BYTES);
    let shape = matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length);
    (bar == [BAR] && fits && shape).then_some((offset, usize::try_from(length).ok()?))
}
