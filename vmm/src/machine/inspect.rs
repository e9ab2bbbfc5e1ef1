//! The machine as the API shows it.

use std::collections::BTreeMap;

use orlop_api::device::{DeviceInfo, DeviceKind, QueueInfo, TrayInfo, VirtioInfo, feature_bits};
use orlop_api::vcpu::VcpuInfo;
use orlop_virtio::{Inspection, QueueInspection};

use super::machine::DeviceSeat;
use super::platform::Platform;
use super::registry::{Inspected, Member};
use super::vcpu::VcpuHandle;
use super::windows::PciWindows;
use crate::kvm::MsiSender;

/// The board itself, with what it counts.
pub fn platform(msi: &MsiSender, windows: &PciWindows, board: &Platform) -> DeviceInfo {
    let (sent, dropped) = msi.counts();
    let mut counters =
        vec![("msi_sent", sent), ("msi_dropped", dropped), ("pci_windows_refused", windows.refused())];
    counters.extend(board.counters());
    DeviceInfo {
        id: "platform".to_owned(),
        kind: DeviceKind::Platform,
        pci_address: None,
        virtio: None,
        tray: None,
        counters: counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// A device with its queues, and the devices behind it.
pub fn device(seat: &DeviceSeat) -> Vec<DeviceInfo> {
    let Inspected { virtio, counters } = seat.function.inspect();
    let mut counters = named(counters);
    let virtio = virtio.map(|found| frame(&found, &mut counters));
    let address = Some(seat.bdf.to_string());
    let own = DeviceInfo {
        id: seat.id.clone(),
        kind: seat.kind,
        pci_address: address.clone(),
        virtio,
        tray: None,
        counters,
    };
    let members = seat.members.iter().map(|member| behind(member, address.clone()));
    [own].into_iter().chain(members).collect()
}

fn behind(member: &Member, pci_address: Option<String>) -> DeviceInfo {
    let tray = member.tray.as_ref().map(|tray| {
        let state = tray.state();
        TrayInfo { open: state.open, locked: state.locked, medium: state.medium }
    });
    let counters = named((member.counters)());
    DeviceInfo { id: member.id.clone(), kind: member.kind, pci_address, virtio: None, tray, counters }
}

fn named(counters: Vec<(&'static str, u64)>) -> BTreeMap<String, u64> {
    counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the virtio frame says of a device; what it counts goes to `counters`.
fn frame(found: &Inspection, counters: &mut BTreeMap<String, u64>) -> VirtioInfo {
    counters.insert("guest_faults".to_owned(), found.faults);
    counters.insert("config_interrupts".to_owned(), found.config_interrupts);
    for (name, value) in [
        ("kicks", found.queues.iter().map(|q| q.kicks).sum()),
        ("requests", found.queues.iter().map(|q| q.requests).sum()),
        ("interrupts", found.queues.iter().map(|q| q.interrupts).sum()),
    ] {
        counters.insert(format!("queue_{name}"), value);
    }
    VirtioInfo {
        status: found.status,
        features_offered: feature_bits(found.offered),
        features_accepted: feature_bits(found.features),
        fault: found.fault.map(str::to_owned),
        queues: found.queues.iter().zip(0..).map(|(q, index)| queue(index, q)).collect(),
    }
}

fn queue(index: u16, found: &QueueInspection) -> QueueInfo {
    QueueInfo {
        index,
        size: found.size,
        max_size: found.max_size,
        ready: found.ready,
        next_avail: Some(found.next_avail),
        next_used: Some(found.next_used),
        vector: found.vector,
    }
}

/// A vCPU with its exits.
pub fn vcpu(index: u32, handle: &VcpuHandle) -> VcpuInfo {
    VcpuInfo {
        index,
        apic_id: handle.apic_id(),
        thread_id: Some(handle.thread().0),
        exits: handle.exits().snapshot(),
    }
}
