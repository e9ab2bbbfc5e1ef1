//! Firmware that reads its configuration through the ports and by descriptors in its memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use orlop_bus::BusDevice;
use orlop_chipset::{Content, DmaMemory, FileName, FwCfg, Items};

use crate::input::Input;

const MEMORY_BYTES: usize = 16 << 10;
/// Where descriptors are put.
const DESCRIPTOR: usize = 0x100;

/// A page that remembers the farthest byte that was asked for.
struct Memory(Mutex<Vec<u8>>);

fn range(address: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(address).ok()?;
    Some(start..start.checked_add(len)?)
}

impl DmaMemory for Memory {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let memory = self.0.lock().expect("nobody panics with it");
        let Some(bytes) = range(address, data.len()).and_then(|range| memory.get(range)) else {
            return false;
        };
        data.copy_from_slice(bytes);
        true
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        let mut memory = self.0.lock().expect("nobody panics with it");
        let Some(bytes) = range(address, data.len()).and_then(|range| memory.get_mut(range)) else {
            return false;
        };
        bytes.copy_from_slice(data);
        true
    }
}

fn device() -> (FwCfg, Arc<Memory>) {
    let name = |text: &str| FileName::new(text).expect("a short name");
    let made = Content::Made { len: 300, make: Box::new(|| vec![0x5a; 300]) };
    let files: BTreeMap<FileName, Content> =
        [(name("etc/made"), made), (name("etc/fixed"), b"fixed".to_vec().into())].into();
    let memory = Arc::new(Memory(Mutex::new(vec![0; MEMORY_BYTES])));
    (FwCfg::new(Items::new([(5, vec![4, 0])].into(), files), Arc::clone(&memory) as _), memory)
}

/// Accesses of any width, and descriptors. Every one ends, and the device goes on.
pub fn run(bytes: &[u8]) {
    let (device, memory) = device();
    let mut input = Input(bytes);
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        match input.u8() % 4 {
            0 => device.write(0, &input.u16().to_le_bytes()),
            1 => {
                let (offset, len) = (u64::from(input.u8() % 16), usize::from(input.u8() % 9));
                device.read(offset, &mut vec![0; len]);
            }
            2 => {
                let (offset, len) = (u64::from(input.u8() % 16), usize::from(input.u8() % 9));
                device.write(offset, input.take(len));
            }
            _ => {
                let descriptor = input.take(16);
                memory.0.lock().expect("nobody panics with it")[DESCRIPTOR..][..descriptor.len()]
                    .copy_from_slice(descriptor);
                device.write(4, &(DESCRIPTOR as u64).to_be_bytes());
            }
        }
    }
    let state = device.save().expect("it can always be saved");
    device.restore(&state).expect("its own state is taken back");
    device.write(0, &0_u16.to_le_bytes());
    let mut byte = [0];
    device.read(1, &mut byte);
    assert_eq!(byte, *b"Q", "the signature is gone");
}

/// What firmware does, and descriptors that cannot be.
pub fn corpus() -> crate::Corpus {
    let dma = |control: u32, len: u32, address: u64| {
        let fields = [&control.to_be_bytes()[..], &len.to_be_bytes(), &address.to_be_bytes()];
        [&[3][..], &fields.concat()].concat()
    };
    let select = |key: u16| [&[0][..], &key.to_le_bytes()].concat();
    let scripts: [(&str, Vec<Vec<u8>>); 8] = [
        ("signature", vec![select(0), vec![1, 1, 1], vec![1, 1, 1]]),
        ("directory", vec![select(0x19), dma(2, 132, 0x200)]),
        ("select-and-read", vec![dma(0x20 << 16 | 8 | 2, 300, 0x200), dma(2, 10, 0x400)]),
        ("skip", vec![dma(0x21 << 16 | 8 | 4, 4, 0), dma(2, 10, 0x400)]),
        ("beyond-memory", vec![dma(0x20 << 16 | 8 | 2, 64, MEMORY_BYTES as u64 - 8)]),
        ("endless", vec![dma(2, u32::MAX, 0), dma(4, u32::MAX, 0), dma(2, 1 << 24, 0)]),
        ("onto-itself", vec![dma(0x20 << 16 | 8 | 2, 64, DESCRIPTOR as u64)]),
        ("write", vec![dma(0x20 << 16 | 8 | 16, 4, 0x200), vec![2, 4, 8, 0, 0, 0, 0, 0, 0, 0xff, 0xff]]),
    ];
    scripts.into_iter().map(|(name, script)| (name.to_owned(), script.concat())).collect()
}
