//! A guest that attacks: every hostile mode of the probe against a machine with every device. Each attack resets the
//! device and needs it to work again; the VMM has to live through all of them and say so.

use orlop_api::config::{BalloonConfig, RngConfig};
use orlop_api::event::{EventKind, Initiator};
use orlop_api::state::VmState;
use orlop_kit::{Exit, Guest, Tap, Vm, ended, host, probe};

/// A machine with one of each device that boots the probe with `word` on its command line.
async fn attacked(word: &str) -> Vm {
    let vm = prepared(word).await;
    vm.client.boot().await.expect("a guest that boots");
    vm
}

/// The same before its first instruction.
async fn prepared(word: &str) -> Vm {
    let mut vm = Vm::process(&[]).await;
    vm.keep(Tap::new("orlopprobe0", "10.217.7.1/24", "").await);
    let disk = vm.file("disk.raw");
    host(&format!("truncate -s 16M {}", disk.display())).await;
    let guest = Guest::kernel(probe(), &format!("probe={word}"))
        .memory_mib(64)
        .disk("disk0", disk)
        .net("net0", "orlopprobe0")
        .port("org.orlop.test", vm.file("port.sock"))
        .vsock(7, vm.file("vsock"))
        .with(|config| {
            config.rng = Some(RngConfig::default());
            config.balloon = Some(BalloonConfig::default());
            config.panic = true;
            config.serial.backlog_bytes = 1 << 20;
        });
    vm.prepare(&guest).await;
    vm
}

/// Runs the attacks `word`: the API answers meanwhile, each result is good, and the guest powers off in the end.
async fn survives(word: &str) {
    let mut vm = attacked(word).await;
    vm.expect("probe: ").await;
    // Whatever the guest does: whoever asks is answered.
    if let Ok(info) = vm.client.info().await {
        assert_eq!(info.state, VmState::Running);
    }
    let Exit { code, stderr, console } = vm.exit().await;
    let failed: Vec<&str> = console.lines().filter(|line| line.starts_with("probe: fail")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(console.contains("probe: done 0"), "it did not come to its end:\n{console}\n{stderr}");
    assert_eq!(code, Some(0), "{stderr}");
}

#[tokio::test]
async fn accesses_of_every_size_to_every_port_hurt_nobody() {
    survives("hostile-ports").await;
}

#[tokio::test]
async fn wild_configuration_space_and_windows_in_impossible_places_hurt_nobody() {
    survives("hostile-pci").await;
}

#[tokio::test]
async fn registers_written_at_the_wrong_time_hurt_nobody() {
    survives("hostile-registers").await;
}

#[tokio::test]
async fn messages_to_nowhere_and_vectors_beyond_the_table_hurt_nobody() {
    survives("hostile-msix").await;
}

#[tokio::test]
async fn rings_and_descriptors_that_cannot_be_hurt_nobody() {
    survives("hostile-queues").await;
}

#[tokio::test]
async fn block_requests_that_cannot_be_hurt_nobody() {
    survives("hostile-blk").await;
}

#[tokio::test]
async fn a_guest_that_breaks_its_devices_is_counted_and_named() {
    let mut vm = attacked("hostile-queues,hang").await;
    let fault = vm.wait_event(|event| matches!(event.what, EventKind::DeviceFault { .. })).await;
    let EventKind::DeviceFault { device, detail } = fault.what else { unreachable!("it was asked for") };
    assert!(!detail.is_empty());
    assert!(vm.counter(&device, "guest_faults").await > 0);
    vm.expect("hostile-queues").await;
    vm.client.shutdown().await.expect("a guest that hangs is ended");
    assert_eq!(vm.exit().await.code, Some(20));
}

#[tokio::test]
async fn a_triple_fault_of_the_first_instruction_kind_is_told_apart_from_a_power_off() {
    let vm = prepared("triple-fault").await;
    let events = vm.client.events(0).await.expect("events");
    vm.client.boot().await.expect("a guest that boots");
    let (exit, events) = tokio::join!(vm.exit(), ended(events));
    assert_eq!(exit.code, Some(11), "{}", exit.stderr);
    assert_eq!(
        events[2..],
        [EventKind::TripleFault { vcpu: 0 }, EventKind::Shutdown { by: Initiator::Vmm }],
        "{events:?}"
    );
}
