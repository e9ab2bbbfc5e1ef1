//! Reads and writes of a block device by io_uring, past the page cache.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use io_uring::{IoUring, opcode, types};

/// Buffers are aligned to it, as `O_DIRECT` demands.
const PAGE_BYTES: usize = 4096;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    /// Its name in results.
    pub name: &'static str,
    /// Whether it writes.
    pub write: bool,
    /// Whether blocks are taken at random.
    pub random: bool,
    /// Bytes of a request.
    pub block_bytes: usize,
    /// Requests in flight.
    pub depth: usize,
}

/// Everything that is measured.
pub const PATTERNS: [Pattern; 4] = [
    Pattern { name: "block-randread-4k", write: false, random: true, block_bytes: 4 << 10, depth: 16 },
    Pattern { name: "block-randwrite-4k", write: true, random: true, block_bytes: 4 << 10, depth: 16 },
    Pattern { name: "block-seqread-1m", write: false, random: false, block_bytes: 1 << 20, depth: 4 },
    Pattern { name: "block-seqwrite-1m", write: true, random: false, block_bytes: 1 << 20, depth: 4 },
];

/// One page of a buffer.
#[repr(C, align(4096))]
#[derive(Clone)]
struct Page([u8; PAGE_BYTES]);

/// A device under load.
pub struct Load {
    file: File,
    ring: IoUring,
    buffers: Vec<Vec<Page>>,
    pattern: Pattern,
    blocks: u64,
    /// The block that was asked for last; with random ones, the state of the generator.
    position: u64,
}

impl Load {
    /// Opens `device` for `pattern`.
    pub fn open(device: &Path, pattern: Pattern) -> anyhow::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(pattern.write).custom_flags(libc::O_DIRECT).open(device);
        let mut file = file.with_context(|| format!("cannot open {}", device.display()))?;
        let bytes = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
        let blocks = bytes / pattern.block_bytes as u64;
        ensure!(blocks > 0, "{} is smaller than one block", device.display());
        let ring = IoUring::new(u32::try_from(pattern.depth)?).context("io_uring is not to be had")?;
        let buffers = vec![vec![Page([0x5a; PAGE_BYTES]); pattern.block_bytes / PAGE_BYTES]; pattern.depth];
        Ok(Self { file, ring, buffers, pattern, blocks, position: 1 })
    }

    /// Keeps the device busy for `duration`, and returns the requests finished per second.
    pub fn run(&mut self, duration: Duration) -> anyhow::Result<f64> {
        let started = Instant::now();
        let mut finished = 0_u64;
        for slot in 0..self.pattern.depth {
            self.submit(slot)?;
        }
        while started.elapsed() < duration {
            self.ring.submit_and_wait(1)?;
            let done: Vec<usize> = self.reap()?;
            finished += done.len() as u64;
            done.into_iter().try_for_each(|slot| self.submit(slot))?;
        }
        let elapsed = started.elapsed();
        self.ring.submit_and_wait(self.pattern.depth)?;
        self.reap()?;
        Ok(finished as f64 / elapsed.as_secs_f64())
    }

    fn reap(&mut self) -> anyhow::Result<Vec<usize>> {
        let block_bytes = i32::try_from(self.pattern.block_bytes)?;
        let mut slots = Vec::with_capacity(self.pattern.depth);
        for completion in self.ring.completion() {
            let result = completion.result();
            ensure!(result == block_bytes, "a request ended with {result} instead of {block_bytes}");
            slots.push(usize::try_from(completion.user_data())?);
        }
        Ok(slots)
    }

    #[expect(unsafe_code, reason = "the kernel reads and writes the buffers of requests in flight")]
    fn submit(&mut self, slot: usize) -> anyhow::Result<()> {
        let offset = self.next_block() * self.pattern.block_bytes as u64;
        let fd = types::Fd(self.file.as_raw_fd());
        let len = u32::try_from(self.pattern.block_bytes)?;
        let buffer = self.buffers.get_mut(slot).context("a slot has a buffer")?.as_mut_ptr().cast::<u8>();
        let entry = if self.pattern.write {
            opcode::Write::new(fd, buffer, len).offset(offset).build()
        } else {
            opcode::Read::new(fd, buffer, len).offset(offset).build()
        };
        // SAFETY: the buffer has `len` bytes, belongs to this slot alone, and is neither moved nor freed before `run` has
        // reaped the request; the file is open as long as `self`.
        unsafe { self.ring.submission().push(&entry.user_data(slot as u64)) }.context("the ring is full")
    }

    /// The next block; at random by a 64-bit xorshift (Marsaglia, 2003).
    fn next_block(&mut self) -> u64 {
        if self.pattern.random {
            self.position ^= self.position << 13;
            self.position ^= self.position >> 7;
            self.position ^= self.position << 17;
        } else {
            self.position = self.position.wrapping_add(1);
        }
        self.position % self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_finishes_requests() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory on a disk");
        let path = directory.path().join("disk");
        std::fs::write(&path, vec![0; 8 << 20]).expect("room for 8 MiB");
        for pattern in PATTERNS {
            let rate = Load::open(&path, pattern).and_then(|mut load| load.run(Duration::from_millis(50)));
            assert!(rate.expect("the disk works") > 0.0, "{pattern:?}");
        }
    }
}
