//! Random operations on a disk, and on a plain array that says what the disk must be.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that goes wrong is to panic"
)]

use std::sync::Arc;

use crate::{Completion, Disk, Engine, EngineKind, Memory, Operation, open_engine};

/// Carries one operation out, and waits for it.
pub fn run<M: Memory>(engine: &mut dyn Engine<M>, operation: Operation<M>) -> Completion<M> {
    // There is room: nothing else is in flight.
    let _ = engine.submit(0, operation);
    loop {
        if let Some(completion) = engine.complete() {
            return completion;
        }
        let _ = engine.commit();
        engine.wait();
    }
}

/// A disk, what it must hold, and a source of chance.
pub struct Exercise {
    /// What the disk must hold.
    pub model: Vec<u8>,
    /// The disk.
    pub disk: Arc<Disk>,
    engines: Vec<Box<dyn Engine<Vec<u8>>>>,
    chance: u64,
}

impl Exercise {
    /// Operations on `disk` through several engines, from `seed` on.
    pub fn new(disk: Disk, model: Vec<u8>, kind: EngineKind, seed: u64) -> Self {
        let disk = Arc::new(disk);
        let engines = (0..2).map(|_| open_engine(&disk, 8, kind).0).collect();
        Self { model, disk, engines, chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// A number below `limit`, by a 64-bit xorshift (Marsaglia, 2003).
    fn below(&mut self, limit: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) % limit.max(1)
    }

    /// A range of whole blocks: its offset and length in bytes.
    fn range(&mut self, most: u64) -> (usize, usize) {
        let block = u64::from(self.disk.block_bytes());
        let blocks = self.disk.size_bytes() / block;
        let first = self.below(blocks);
        let limit = (most / block).min(blocks - first).max(1);
        // Mostly short.
        let count = if self.below(4) == 0 { 1 + self.below(limit) } else { 1 + self.below(limit.min(16)) };
        let bytes = |blocks: u64| usize::try_from(blocks * block).unwrap_or_default();
        (bytes(first), bytes(count))
    }

    /// One round: some operations at once, on parts of the disk that do not overlap, so that any order will do.
    ///
    /// Panics when the disk is not what it must be.
    #[expect(clippy::panic, reason = "it is a test's verdict")]
    pub fn round(&mut self) {
        if self.below(3) == 0 {
            self.discard();
        }
        let mut taken: Vec<(usize, usize)> = Vec::new();
        let mut waiting = 0;
        for number in 0..1 + self.below(8) {
            let (at, len) = self.range(300 << 10);
            if taken.iter().any(|(start, count)| at < start + count && *start < at + len) {
                continue;
            }
            taken.push((at, len));
            let (offset, length) = (at as u64, len as u64);
            let operation = match self.below(10) {
                0..4 => {
                    let fill = self.below(255) as u8 + 1;
                    let data: Vec<u8> = (0..len).map(|i| fill ^ (i / 512) as u8).collect();
                    self.model[at..at + len].copy_from_slice(&data);
                    Operation::Write { offset, from: data }
                }
                4..7 => Operation::Read { offset, to: vec![0xaa; len] },
                7..9 => {
                    self.model[at..at + len].fill(0);
                    Operation::WriteZeroes { offset, len: length, unmap: self.below(2) == 0 }
                }
                _ => Operation::Flush,
            };
            let engine = (number % 2) as usize;
            assert!(self.engines[engine].submit(offset << 24 | length, operation).is_ok(), "there is room");
            waiting += 1;
        }
        while waiting > 0 {
            for engine in &mut self.engines {
                let _ = engine.commit();
                while let Some(done) = engine.complete() {
                    waiting -= 1;
                    let (at, len) = ((done.token >> 24) as usize, (done.token & 0xff_ffff) as usize);
                    done.result.unwrap_or_else(|error| panic!("an operation on {at}+{len} failed: {error}"));
                    if let Some(memory) = done.memory {
                        assert!(memory == self.model[at..at + len], "{at}+{len} is not what it must be");
                    }
                }
            }
        }
    }

    /// Discards a range. What is discarded may be zeroes or what it was; from then on it stays what it is.
    #[expect(clippy::panic, reason = "it is a test's verdict")]
    fn discard(&mut self) {
        let (at, len) = self.range(300 << 10);
        let (offset, length) = (at as u64, len as u64);
        let engine = &mut self.engines[0];
        let done = run(&mut **engine, Operation::Discard { offset, len: length });
        done.result.unwrap_or_else(|error| panic!("discard {at}+{len}: {error}"));
        let read = run(&mut **engine, Operation::Read { offset, to: vec![0xaa; len] });
        let now = read.memory.unwrap_or_default();
        let fits = now.iter().zip(&self.model[at..]).all(|(new, old)| *new == 0 || new == old);
        assert!(fits, "discarded bytes are neither zero nor what they were: {at}+{len}");
        self.model[at..at + len].copy_from_slice(&now);
    }

    /// Reads everything and compares.
    #[expect(clippy::panic, reason = "it is a test's verdict")]
    pub fn compare(&mut self) {
        let len = self.model.len();
        for at in (0..len).step_by(1 << 20) {
            let part = (len - at).min(1 << 20);
            let read = Operation::Read { offset: at as u64, to: vec![0xaa; part] };
            let read = run(&mut *self.engines[0], read);
            read.result.unwrap_or_else(|error| panic!("{at}+{part} cannot be read: {error}"));
            let same = read.memory.is_some_and(|memory| memory == self.model[at..at + part]);
            assert!(same, "the disk is not what it must be at {at}+{part}");
        }
    }

    /// Makes everything durable.
    #[expect(clippy::panic, reason = "it is a test's verdict")]
    pub fn flush(&mut self) {
        let flushed = run(&mut *self.engines[1], Operation::Flush);
        flushed.result.unwrap_or_else(|error| panic!("it cannot be flushed: {error}"));
    }

    /// Makes the disk longer.
    #[expect(clippy::panic, reason = "it is a test's verdict")]
    pub fn grow(&mut self, size_bytes: u64) {
        self.disk.grow(size_bytes).unwrap_or_else(|error| panic!("it does not grow: {error}"));
        self.model.resize(size_bytes as usize, 0);
    }
}
