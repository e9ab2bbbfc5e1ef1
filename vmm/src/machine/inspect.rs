//! The machine as the API shows it.

use std::collections::BTreeMap;

use orlop_api::device::{DeviceInfo, DeviceKind, QueueInfo, VirtioInfo, feature_bits};
use orlop_api::vcpu::VcpuInfo;
use orlop_virtio::QueueInspection;

use super::machine::DeviceSeat;
use super::platform::Platform;
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
        counters: counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// A virtio device with its queues.
pub fn device(seat: &DeviceSeat) -> DeviceInfo {
    let found = seat.function.inspect();
    let mut counters: BTreeMap<String, u64> =
        found.counters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    counters.insert("guest_faults".to_owned(), found.faults);
    counters.insert("config_interrupts".to_owned(), found.config_interrupts);
    for (name, value) in [
        ("kicks", found.queues.iter().map(|q| q.kicks).sum()),
        ("requests", found.queues.iter().map(|q| q.requests).sum()),
        ("interrupts", found.queues.iter().map(|q| q.interrupts).sum()),
    ] {
        counters.insert(format!("queue_{name}"), value);
    }
    let virtio = VirtioInfo {
        status: found.status,
        features_offered: feature_bits(found.offered),
        features_accepted: feature_bits(found.features),
        fault: found.fault.map(str::to_owned),
        queues: found.queues.iter().zip(0..).map(|(q, index)| queue(index, q)).collect(),
    };
    DeviceInfo {
        id: seat.id.clone(),
        kind: seat.kind,
        pci_address: Some(seat.bdf.to_string()),
        virtio: Some(virtio),
        counters,
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
