//! The driver's side of a split virtqueue (virtio 1.3 §2.7).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::{Acquire, Release};

use vm_memory::{Bytes, GuestAddress};

use super::driver::{Descriptor, Used};
use crate::Ram;

/// A chain that the device has.
struct Posted {
    entries: Vec<u16>,
    /// `(address, length, writable)`.
    buffers: Vec<(u64, u32, bool)>,
}

pub(super) struct Ring {
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    avail_idx: u16,
    last_used: u16,
    free: VecDeque<u16>,
    /// By head.
    posted: HashMap<u16, Posted>,
}

impl Ring {
    /// How many bytes a ring of `size` takes, a multiple of 4096.
    pub fn bytes(size: u16) -> u64 {
        (u64::from(size) * 16 + 4096 + u64::from(size) * 10).next_multiple_of(4096) + 4096
    }

    /// An empty ring whose parts lie at `base`, zeroed.
    pub fn new(ram: &Ram, base: u64, size: u16) -> Self {
        let len = Self::bytes(size) as usize;
        ram.write_slice(&vec![0; len], GuestAddress(base)).unwrap();
        let avail = base + u64::from(size) * 16;
        let used = (avail + 6 + 2 * u64::from(size)).next_multiple_of(16);
        let free = (0..size).collect();
        Self { size, desc: base, avail, used, avail_idx: 0, last_used: 0, free, posted: HashMap::new() }
    }

    /// Puts a chain of `parts`, as they are, into the table and makes it available. Returns its head.
    pub fn post(&mut self, ram: &Ram, parts: &[Descriptor]) -> u16 {
        let entries: Vec<u16> = (0..parts.len()).map(|_| self.free.pop_front().unwrap()).collect();
        for (index, part) in parts.iter().enumerate() {
            let chained = entries.get(index + 1);
            let flags = part.flags | if chained.is_some() { Descriptor::NEXT } else { 0 };
            let next = chained.copied().unwrap_or(part.next);
            self.write_entry(ram, entries[index], &Descriptor { flags, next, ..*part });
        }
        let head = entries[0];
        let buffers = parts.iter().map(|p| (p.address, p.len, p.flags & Descriptor::WRITE != 0)).collect();
        self.posted.insert(head, Posted { entries, buffers });
        self.offer(ram, head);
        head
    }

    /// Writes table entry `index`.
    pub fn write_entry(&self, ram: &Ram, index: u16, entry: &Descriptor) {
        ram.write_slice(&entry.bytes(), GuestAddress(self.desc + u64::from(index) * 16)).unwrap();
    }

    /// Makes `head` available, whatever it is.
    pub fn offer(&mut self, ram: &Ram, head: u16) {
        let slot = self.avail + 4 + 2 * u64::from(self.avail_idx % self.size);
        ram.write_obj(head.to_le(), GuestAddress(slot)).unwrap();
        self.jump(ram, 1);
    }

    /// Moves the available index by `count`.
    pub fn jump(&mut self, ram: &Ram, count: u16) {
        self.avail_idx = self.avail_idx.wrapping_add(count);
        ram.store(self.avail_idx.to_le(), GuestAddress(self.avail + 2), Release).unwrap();
    }

    /// Where the device stands in the used ring.
    pub fn used_idx(&self, ram: &Ram) -> u16 {
        u16::from_le(ram.load(GuestAddress(self.used + 2), Acquire).unwrap())
    }

    /// The next chain that the device returned.
    pub fn take_used(&mut self, ram: &Ram) -> Option<Used> {
        if self.used_idx(ram) == self.last_used {
            return None;
        }
        let slot = self.used + 4 + 8 * u64::from(self.last_used % self.size);
        let [id, len]: [u32; 2] = ram.read_obj(GuestAddress(slot)).unwrap();
        let head = u16::try_from(u32::from_le(id)).expect("the device returned a head that cannot be");
        self.last_used = self.last_used.wrapping_add(1);
        // used_event: interrupt for the next one (virtio 1.3 §2.7.7).
        let used_event = self.avail + 4 + 2 * u64::from(self.size);
        ram.store(self.last_used.to_le(), GuestAddress(used_event), Release).unwrap();
        let Posted { entries, buffers } =
            self.posted.remove(&head).expect("the device returned a chain that it did not have");
        self.free.extend(entries);
        let mut data = Vec::new();
        for (address, len, _) in buffers.into_iter().filter(|(.., writable)| *writable) {
            let start = data.len();
            data.resize(start + len as usize, 0);
            ram.read_slice(&mut data[start..], GuestAddress(address)).unwrap();
        }
        let written = u32::from_le(len) as usize;
        assert!(written <= data.len(), "the device says it wrote {written} of {} bytes", data.len());
        Some(Used { head, written, data })
    }

    /// The guest-physical ranges of buffers that the device has, as `(address, length)`.
    pub fn lent(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.posted.values().flat_map(|posted| &posted.buffers).map(|(at, len, _)| (*at, u64::from(*len)))
    }
}
