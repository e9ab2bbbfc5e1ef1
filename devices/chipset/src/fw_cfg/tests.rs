//! What firmware asks, and what hostile firmware asks.

use std::collections::BTreeMap;

use super::*;
use crate::testing::{survives_every_access, survives_every_mutation};

/// 64 KiB of memory at 0.
struct Memory(Mutex<Vec<u8>>);

impl DmaMemory for Memory {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let memory = self.0.lock().unwrap();
        let range =
            usize::try_from(address).ok().and_then(|at| at.checked_add(data.len()).map(|end| at..end));
        let found = range.and_then(|range| memory.get(range));
        found.is_some_and(|bytes| {
            data.copy_from_slice(bytes);
            true
        })
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        let mut memory = self.0.lock().unwrap();
        let range =
            usize::try_from(address).ok().and_then(|at| at.checked_add(data.len()).map(|end| at..end));
        let found = range.and_then(|range| memory.get_mut(range));
        found.is_some_and(|bytes| {
            bytes.copy_from_slice(data);
            true
        })
    }
}

fn device() -> (FwCfg, Arc<Memory>) {
    let memory = Arc::new(Memory(Mutex::new(vec![0xEE; 64 << 10])));
    let counter = AtomicU64::new(0);
    let make = move || vec![u8::try_from(counter.fetch_add(1, Ordering::Relaxed)).unwrap()];
    let files: BTreeMap<FileName, Content> = [
        (FileName::new("etc/b").unwrap(), Content::Made { len: 3, make: Box::new(make) }),
        (FileName::new("etc/a").unwrap(), b"alpha".to_vec().into()),
    ]
    .into();
    (FwCfg::new(Items::new([(5, vec![4, 0])].into(), files), memory.clone()), memory)
}

fn select(device: &FwCfg, key: u16) {
    device.write(0, &key.to_le_bytes());
}

fn read(device: &FwCfg, count: usize) -> Vec<u8> {
    let byte = |_| {
        let mut byte = [0];
        device.read(1, &mut byte);
        byte[0]
    };
    (0..count).map(byte).collect()
}

/// Puts a descriptor at 0x100 and starts it; what its control word is afterwards.
fn dma(device: &FwCfg, memory: &Memory, control: u32, length: u32, address: u64) -> u32 {
    let mut descriptor = control.to_be_bytes().to_vec();
    descriptor.extend(length.to_be_bytes());
    descriptor.extend(address.to_be_bytes());
    assert!(memory.write(0x100, &descriptor));
    device.write(4, &0u32.to_be_bytes());
    device.write(8, &0x100u32.to_be_bytes());
    let mut control = [0; 4];
    assert!(memory.read(0x100, &mut control));
    u32::from_be_bytes(control)
}

#[test]
fn the_signature_says_that_it_is_there() {
    let (device, _) = device();
    assert_eq!(read(&device, 6), b"QEMU\0\0");
    select(&device, 1);
    assert_eq!(read(&device, 4), [3, 0, 0, 0]);
    let mut signature = [0; 8];
    device.read(4, &mut signature);
    assert_eq!(&signature, b"QEMU CFG");
}

#[test]
fn files_are_found_by_their_names() {
    let (device, _) = device();
    select(&device, 0x19);
    let directory = read(&device, 4 + 2 * 64);
    assert_eq!(directory[..4], [0, 0, 0, 2]);
    assert_eq!(directory[4..16], *b"\0\0\0\x05\0\x20\0\0etc/");
    assert_eq!(directory[68..82], *b"\0\0\0\x03\0\x21\0\0etc/b\0");
    select(&device, 0x20);
    assert_eq!(read(&device, 7), b"alpha\0\0");
    select(&device, 5);
    assert_eq!(read(&device, 2), [4, 0]);
    select(&device, 0x4020);
    assert_eq!(read(&device, 1), b"a");
    select(&device, 0x7777);
    assert_eq!(read(&device, 1), [0]);
}

#[test]
fn what_is_made_is_made_at_each_selection_and_keeps_its_length() {
    let (device, _) = device();
    for round in 0..3 {
        select(&device, 0x21);
        assert_eq!(read(&device, 4), [round, 0, 0, 0]);
    }
}

#[test]
fn a_descriptor_moves_an_item_into_memory() {
    let (device, memory) = device();
    assert_eq!(dma(&device, &memory, 0x20 << 16 | CONTROL_SELECT | CONTROL_READ, 3, 0x200), 0);
    assert_eq!(dma(&device, &memory, CONTROL_SKIP, 1, 0), 0);
    assert_eq!(dma(&device, &memory, CONTROL_READ, 5000, 0x300), 0);
    let all = memory.0.lock().unwrap();
    assert_eq!(all[0x200..0x204], *b"alp\xEE");
    assert_eq!(all[0x300], b'a');
    assert!(all[0x301..0x300 + 5000].iter().all(|b| *b == 0));
    assert_eq!(all[0x300 + 5000], 0xEE);
    assert_eq!(device.faults(), 0);
}

#[test]
fn a_descriptor_may_be_addressed_by_one_access_of_eight_bytes() {
    let (device, memory) = device();
    let descriptor = [0, 0x20, 0, 0x0A, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0x02, 0];
    assert!(memory.write(0x100, &descriptor));
    device.write(4, &0x100u64.to_be_bytes());
    assert_eq!(memory.0.lock().unwrap()[0x200..0x202], *b"al");
}

#[test]
fn a_malformed_descriptor_is_a_counted_fault() {
    let (device, memory) = device();
    select(&device, 0x20);
    // Out of memory: where the descriptor is, and where it points to.
    device.write(4, &u64::MAX.to_be_bytes());
    device.write(4, &0xffffu64.to_be_bytes());
    assert_eq!(device.faults(), 2);
    let hostile = [
        (CONTROL_READ, 2, u64::MAX),
        (CONTROL_READ, 4096, 0xffff),
        (CONTROL_READ, 6, 0xfffe),
        (CONTROL_READ, u32::MAX, 0),
        (CONTROL_READ, TRANSFER_MAX_BYTES + 1, 0),
        (CONTROL_SKIP, u32::MAX, 0),
        (CONTROL_WRITE, 4, 0x200),
        (0x7777 << 16 | CONTROL_SELECT | CONTROL_WRITE, 4, 0x200),
    ];
    for (count, (control, length, address)) in (3..).zip(hostile) {
        assert_eq!(
            dma(&device, &memory, control, length, address),
            CONTROL_ERROR,
            "{control:#x} {length:#x}"
        );
        assert_eq!(device.faults(), count);
    }
    // It goes on all the same.
    assert_eq!(dma(&device, &memory, 0x20 << 16 | CONTROL_SELECT | CONTROL_READ, 5, 0x200), 0);
    assert_eq!(memory.0.lock().unwrap()[0x200..0x205], *b"alpha");
}

#[test]
fn a_descriptor_that_overwrites_itself_does_no_harm() {
    let (device, memory) = device();
    assert_eq!(dma(&device, &memory, 0x20 << 16 | CONTROL_SELECT | CONTROL_READ, 64, 0x100), 0);
    assert_eq!(device.faults(), 0);
}

#[test]
fn no_access_harms_it() {
    let (device, _) = device();
    survives_every_access(&device);
}

#[test]
fn reading_goes_on_where_it_was_saved() {
    let (device, _) = device();
    select(&device, 0x20);
    read(&device, 2);
    let record = device.save().unwrap();
    let (other, _) = self::device();
    other.restore(&record).unwrap();
    assert_eq!(other.save().unwrap(), record);
    assert_eq!(read(&other, 3), b"pha");
    survives_every_mutation(&record, |record| other.restore(record));
    other.reset();
    assert_eq!(read(&other, 4), b"QEMU");
}

#[test]
fn a_name_must_fit_the_directory() {
    assert!(FileName::new(&"x".repeat(55)).is_ok());
    for bad in [String::new(), "x".repeat(56), "a\0b".to_owned()] {
        assert!(FileName::new(&bad).unwrap_err().to_string().contains("1 to 55 bytes"));
    }
}

/// An item of four bytes, of which the last may not be written.
struct Register(Mutex<Vec<u8>>);

impl Held for Register {
    fn read(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
    fn write(&self, offset: usize, data: &[u8]) -> bool {
        let may = offset + data.len() < 4;
        if may {
            self.0.lock().unwrap()[offset..][..data.len()].copy_from_slice(data);
        }
        may
    }
}

#[test]
fn what_is_held_is_written_by_a_descriptor_and_nothing_else_is() {
    let memory = Arc::new(Memory(Mutex::new(vec![0xEE; 64 << 10])));
    let register = Arc::new(Register(Mutex::new(vec![0; 4])));
    let files: BTreeMap<FileName, Content> = [
        (FileName::new("etc/a").unwrap(), b"alpha".to_vec().into()),
        (FileName::new("etc/r").unwrap(), Content::Held { len: 4, held: register.clone() }),
    ]
    .into();
    let device = FwCfg::new(Items::new(BTreeMap::new(), files), memory.clone());
    let write = |item: u32, length, address| {
        dma(&device, &memory, item << 16 | CONTROL_SELECT | CONTROL_WRITE, length, address)
    };
    assert!(memory.write(0x200, &[1, 2, 3, 4]));
    assert_eq!(write(0x21, 3, 0x200), 0);
    select(&device, 0x21);
    assert_eq!(read(&device, 4), [1, 2, 3, 0]);
    // Further on, after what was written before.
    select(&device, 0x21);
    assert_eq!(read(&device, 1), [1]);
    assert_eq!(dma(&device, &memory, CONTROL_WRITE, 2, 0x202), 0);
    assert_eq!(*register.0.lock().unwrap(), [1, 3, 4, 0]);
    // Not the last byte, not beyond the end, not from where there is no memory, not another item, not by the port.
    for (item, length, address) in [
        (0x21, 4, 0x200),
        (0x21, 5, 0x200),
        (0x21, u32::MAX, 0x200),
        (0x21, 2, 0xffff),
        (0x20, 1, 0x200),
        (9, 1, 0),
    ] {
        assert_eq!(write(item, length, address), CONTROL_ERROR, "{item:#x} {length} {address:#x}");
    }
    select(&device, 0x21 | WRITE_CHANNEL);
    device.write(1, &[0xFF]);
    assert_eq!((register.0.lock().unwrap().clone(), device.faults()), (vec![1, 3, 4, 0], 6));
}
