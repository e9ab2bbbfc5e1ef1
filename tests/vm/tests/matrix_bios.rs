//! Guests that SeaBIOS boots, by bus.

mod matrix;

use matrix::{a_live_system_boots, a_medium_says, debian_logs_in};
use orlop_api::config::DiskBus;
use orlop_kit::FirmwareKind::Bios;

#[tokio::test]
async fn a_bios_boots_debian_from_virtio_to_its_login_with_8_vcpus() {
    debian_logs_in(Bios, DiskBus::Virtio, 8).await;
}

#[tokio::test]
async fn a_bios_boots_debian_from_scsi_to_its_login() {
    debian_logs_in(Bios, DiskBus::Scsi, 1).await;
}

#[tokio::test]
async fn a_bios_boots_debian_from_sata_to_its_login() {
    debian_logs_in(Bios, DiskBus::Sata, 1).await;
}

#[tokio::test]
async fn a_bios_boots_a_live_system_from_a_virtio_disk() {
    a_live_system_boots(Bios, DiskBus::Virtio).await;
}

#[tokio::test]
async fn a_bios_boots_a_live_system_from_a_scsi_cdrom() {
    a_live_system_boots(Bios, DiskBus::Scsi).await;
}

#[tokio::test]
async fn a_bios_boots_grub_rescue_from_a_scsi_cdrom_to_its_menu() {
    a_medium_says(Bios, DiskBus::Scsi, "grub-rescue.iso", "The highlighted entry will be executed").await;
}

#[tokio::test]
async fn a_bios_boots_ipxe_from_a_sata_cdrom_to_its_banner() {
    a_medium_says(Bios, DiskBus::Sata, "ipxe.iso", "Open Source Network Boot Firmware").await;
}
