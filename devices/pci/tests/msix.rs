//! MSI-X: masks, pending bits, and what a guest can do to the table.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use orlop_pci::{ConfigSpace, ENTRY_BYTES, Identity, LayoutError, MsiSink, Msix};
use proptest::prelude::*;

const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;

#[derive(Default)]
struct Sink(Mutex<Vec<(u64, u32)>>);

impl MsiSink for Sink {
    fn signal(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

impl Sink {
    fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Vectors whose messages are their own numbers, unmasked and enabled.
fn ready(count: u16) -> (Msix, Arc<Sink>) {
    let sink = Arc::new(Sink::default());
    let msix = Msix::new(count.into(), sink.clone()).unwrap();
    for vector in 0..count {
        program(&msix, vector, u32::from(vector), 0);
    }
    msix.set_control(ENABLE);
    (msix, sink)
}

fn program(msix: &Msix, vector: u16, data: u32, control: u32) {
    let entry = u64::from(vector) * ENTRY_BYTES;
    msix.table_write(entry, &0xfee0_0000u64.to_le_bytes());
    msix.table_write(entry + 8, &data.to_le_bytes());
    msix.table_write(entry + 12, &control.to_le_bytes());
}

fn pending(msix: &Msix) -> u64 {
    let mut word = [0; 8];
    msix.pba_read(0, &mut word);
    u64::from_le_bytes(word)
}

#[test]
fn an_open_vector_signals_at_once() {
    let (msix, sink) = ready(3);
    assert!(msix.signal(2));
    assert_eq!(sink.take(), [(0xfee0_0000, 2)]);
    assert_eq!(pending(&msix), 0);
}

#[test]
fn a_vector_that_does_not_exist_does_nothing() {
    let (msix, sink) = ready(3);
    for vector in [3, 4, 0x7ff, u16::MAX] {
        assert!(!msix.signal(vector));
    }
    assert_eq!(sink.take(), []);
}

#[test]
fn a_masked_vector_waits_and_goes_once_when_unmasked() {
    let (msix, sink) = ready(3);
    program(&msix, 1, 7, 1);
    msix.signal(1);
    msix.signal(1);
    assert_eq!((sink.take(), pending(&msix)), (vec![], 0b10));
    program(&msix, 1, 8, 1);
    assert_eq!(sink.take(), [], "a new message while masked sends nothing");
    program(&msix, 1, 8, 0);
    assert_eq!((sink.take(), pending(&msix)), (vec![(0xfee0_0000, 8)], 0), "the new message goes");
}

#[test]
fn the_function_mask_holds_every_vector() {
    let (msix, sink) = ready(3);
    msix.set_control(ENABLE | MASK_ALL);
    (0..3).for_each(|vector| assert!(msix.signal(vector)));
    program(&msix, 1, 1, 0);
    assert_eq!((sink.take(), pending(&msix)), (vec![], 0b111));
    msix.set_control(ENABLE);
    assert_eq!(sink.take().len(), 3);
    msix.set_control(ENABLE);
    assert_eq!((sink.take(), pending(&msix)), (vec![], 0));
}

#[test]
fn a_disabled_function_sends_and_keeps_nothing() {
    let (msix, sink) = ready(1);
    msix.set_control(0);
    assert!(!msix.signal(0));
    msix.set_control(ENABLE);
    assert_eq!((sink.take(), pending(&msix)), (vec![], 0));
}

#[test]
fn accesses_of_other_shapes_change_nothing_and_reads_of_any_shape_answer() {
    let (msix, _) = ready(2);
    let before = msix.save();
    for size in [1, 2, 3, 5, 6, 7] {
        (0..64).for_each(|offset| msix.table_write(offset, &[0xff; 8][..size]));
    }
    for offset in [1, 2, 3, 5, 33, u64::MAX] {
        msix.table_write(offset, &[0xff; 4]);
        msix.table_write(offset.wrapping_add(3) | 1, &[0xff; 8]);
    }
    assert_eq!(before, msix.save());
    let mut data = [0; 8];
    for size in 1..=8 {
        for offset in (0..64).chain([u64::MAX - 8, u64::MAX]) {
            msix.table_read(offset, &mut data[..size]);
            msix.pba_read(offset, &mut data[..size]);
        }
    }
    msix.table_read(12, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0, 0, 0xe0, 0xfe], "control of one vector, address of the next");
}

#[test]
fn the_capability_describes_table_and_pending_bits() {
    let (msix, _) = ready(65);
    assert_eq!((msix.table_bytes(), msix.pba_bytes()), (65 * 16, 16));
    let identity =
        Identity { vendor: 1, device: 2, revision: 0, class: [0; 3], subsystem_vendor: 0, subsystem: 0 };
    let mut config = ConfigSpace::new(identity);
    let control = msix.add_capability(&mut config, 4, 0x1000, 0x2000).unwrap();
    assert_eq!(config.register(control), 64);
    config.write(control, &[0xff; 2]);
    assert_eq!(config.register(control), 64 | ENABLE | MASK_ALL);
    assert_eq!(config.register(control + 2), 0x1004);
    assert_eq!(config.register(control + 6), 0x2004);
}

#[test]
fn too_many_vectors_are_refused() {
    for count in [0, 2049] {
        let result = Msix::new(count, Arc::new(Sink::default())).map(|_| ());
        assert_eq!(result, Err(LayoutError::Vectors { count }));
    }
}

#[test]
fn a_state_survives_and_one_of_another_device_is_refused() {
    let (msix, _) = ready(3);
    program(&msix, 1, 9, 1);
    msix.signal(1);
    let saved = msix.save();
    let (other, sink) = ready(3);
    other.check("test", &saved).unwrap();
    other.restore(&saved, ENABLE);
    assert_eq!(other.save(), saved);
    program(&other, 1, 9, 0);
    assert_eq!(sink.take(), [(0xfee0_0000, 9)], "what was pending before goes after");
    let mut bad = saved.clone();
    bad.vectors.pop();
    assert!(other.check("test", &bad).is_err());
    bad = saved.clone();
    bad.vectors[0].address |= 1;
    assert!(other.check("test", &bad).is_err());
    other.reset();
    assert!(other.save().vectors.iter().all(|v| v.masked && !v.pending && v.address == 0));
}

#[test]
fn no_interrupt_is_lost_while_masks_come_and_go() {
    struct Count(AtomicU64);
    impl MsiSink for Count {
        fn signal(&self, _: u64, _: u32) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let sink = Arc::new(Count(AtomicU64::new(0)));
    let msix = Msix::new(1, sink.clone()).unwrap();
    msix.set_control(ENABLE);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                program(&msix, 0, 0, 1);
                program(&msix, 0, 0, 0);
            }
        });
        for _ in 0..2_000 {
            let before = sink.0.load(SeqCst);
            msix.signal(0);
            // The other thread leaves the vector open in the end, so the message must come.
            while sink.0.load(SeqCst) == before {
                std::thread::yield_now();
            }
        }
    });
    assert_eq!(pending(&msix), 0);
}

proptest! {
    #[test]
    fn any_table_content_is_survived(
        writes in prop::collection::vec((0u64..80, any::<u64>(), prop::sample::select(vec![4usize, 8])), 1..80),
        control: u16,
    ) {
        let (msix, _) = ready(4);
        msix.set_control(control);
        for (offset, value, size) in writes {
            msix.table_write(offset, &value.to_le_bytes()[..size]);
            (0..5).for_each(|vector| { msix.signal(vector); });
        }
        let saved = msix.save();
        msix.check("test", &saved).unwrap();
        msix.restore(&saved, control);
        prop_assert_eq!(msix.save(), saved);
    }
}
