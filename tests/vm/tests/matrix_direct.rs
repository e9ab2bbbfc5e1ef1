//! Guests that are kernels, without firmware.

use orlop_api::config::BootConfig;
use orlop_kit::{Guest, Vm, image, path};

#[tokio::test]
async fn debians_installer_starts_from_its_kernel_to_its_first_question() {
    let guest =
        Guest::kernel(image("installer.vmlinuz"), "console=ttyS0 quiet priority=critical").memory_mib(1024);
    let guest = guest.with(|config| {
        let BootConfig::Kernel(kernel) = &mut config.boot else { panic!("a kernel") };
        kernel.initramfs = Some(path(image("installer.initrd")));
    });
    Vm::boot(&guest).await.expect("Select a language").await;
}

#[tokio::test]
async fn memtest_finds_no_error_in_guest_memory() {
    let guest = Guest::kernel(image("memtest.bin"), "console=ttyS0,115200").memory_mib(64);
    let mut vm = Vm::boot(&guest).await;
    vm.expect("Memtest86+ v").await;
    // Six tests are over. The screen is drawn every two seconds, and this one takes longer: it is seen.
    vm.expect("[Moving inversions, 64 bit pattern]").await;
    vm.expect("Errors: ").await;
    vm.expect("Errors: ").await;
    // The last number may not be whole yet.
    let numbers: Vec<&str> = vm.console().text().split("Errors: ").skip(1).collect();
    let (_, whole) = numbers.split_last().expect("at least two");
    assert!(whole.iter().all(|number| number.starts_with("0 ")), "{numbers:?}");
}
