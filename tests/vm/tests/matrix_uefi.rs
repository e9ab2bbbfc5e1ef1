//! Guests that OVMF boots, by bus.

mod matrix;

use matrix::{a_live_system_boots, a_medium_says, debian_logs_in};
use orlop_api::config::DiskBus;
use orlop_kit::FirmwareKind::Uefi;

#[tokio::test]
async fn uefi_boots_debian_from_virtio_to_its_login_with_8_vcpus() {
    debian_logs_in(Uefi, DiskBus::Virtio, 8).await;
}

#[tokio::test]
async fn uefi_boots_debian_from_scsi_to_its_login() {
    debian_logs_in(Uefi, DiskBus::Scsi, 1).await;
}

#[tokio::test]
async fn uefi_boots_debian_from_sata_to_its_login() {
    debian_logs_in(Uefi, DiskBus::Sata, 1).await;
}

#[tokio::test]
async fn uefi_boots_a_live_system_from_a_virtio_disk() {
    a_live_system_boots(Uefi, DiskBus::Virtio).await;
}

#[tokio::test]
async fn uefi_boots_a_live_system_from_a_scsi_cdrom() {
    a_live_system_boots(Uefi, DiskBus::Scsi).await;
}

#[tokio::test]
async fn uefi_boots_a_live_system_from_a_sata_cdrom() {
    a_live_system_boots(Uefi, DiskBus::Sata).await;
}

#[tokio::test]
async fn uefi_boots_ipxe_from_a_sata_cdrom_to_its_banner() {
    a_medium_says(Uefi, DiskBus::Sata, "ipxe.iso", "Open Source Network Boot Firmware").await;
}
