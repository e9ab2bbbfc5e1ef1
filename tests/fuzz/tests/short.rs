//! A short run of every target without a fuzzer: its corpus, and a fixed number of mutations, the same each time.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use orlop_fuzz::TARGETS;
use orlop_fuzz::mutation::Chance;

const MUTATIONS: usize = 2000;

/// Panics on any thread, those of devices too.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn input_is_survived(name: &str, run: fn(&[u8]), input: &str, bytes: &[u8]) {
    let before = PANICS.load(Ordering::SeqCst);
    let result = panic::catch_unwind(AssertUnwindSafe(|| run(bytes)));
    if result.is_err() || PANICS.load(Ordering::SeqCst) != before {
        panic!("{name} panics on {input}: {}", bytes.escape_ascii());
    }
}

/// One run at a time: a panic is counted whosever thread it is on.
static ALONE: Mutex<()> = Mutex::new(());

fn short_run(name: &str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        usual(info);
    }));
    let corpus = (target.corpus)();
    for (input, bytes) in &corpus {
        input_is_survived(name, target.run, input, bytes);
    }
    let mut chance = Chance::default();
    for round in 0..MUTATIONS {
        let (input, bytes) = &corpus[round % corpus.len()];
        input_is_survived(name, target.run, &format!("{input}, round {round}"), &chance.mutate(bytes));
    }
}

macro_rules! short_runs {
    ($($test:ident: $target:ident)*) => {
        $(
            #[test]
            fn $test() {
                short_run(stringify!($target));
            }
        )*

        #[test]
        fn every_target_has_a_short_run() {
            let with: &[&str] = &[$(stringify!($target)),*];
            let all: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(all, with);
        }
    };
}

short_runs! {
    ahci_survives_any_script: ahci
    dhcp_survives_any_packet: dhcp
    fw_cfg_survives_any_script: fw_cfg
    kernels_of_any_bytes_are_loaded_or_refused: kernel
    manifests_of_any_text_are_planned_or_refused: manifest
    archives_of_any_bytes_are_read_or_refused: oci_archive
    documents_of_any_bytes_are_read_or_refused: oci_documents
    layers_of_any_bytes_are_taken_or_refused: oci_layer
    images_of_any_bytes_are_read_or_refused: qcow2
    virtio_blk_survives_any_chain: virtio_blk
    virtio_scsi_survives_any_command: virtio_scsi
    configurations_of_any_bytes_are_planned_or_refused: vm_config
}
