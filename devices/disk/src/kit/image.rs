//! Makes qcow2 images of every shape, byte by byte, without the code under test.

use std::collections::BTreeMap;
use std::io::Read;

/// What a guest cluster holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing of its own.
    Unallocated,
    /// Zeroes, marked as such (version 3).
    Zero,
    /// Zeroes, with a cluster kept for it (version 3).
    ZeroKept,
    /// Bytes that tell their place.
    Data,
    /// The same, compressed.
    Compressed,
}

/// The shape of an image.
#[derive(Debug, Clone)]
pub struct Shape {
    /// 2 or 3.
    pub version: u32,
    /// 9 to 21.
    pub cluster_bits: u32,
    /// 0 to 6; version 2 has 4.
    pub refcount_order: u32,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// Compress with Zstandard instead of deflate (version 3).
    pub zstd: bool,
    /// A snapshot that shares everything.
    pub snapshot: bool,
    /// The name of a backing image.
    pub backing: Option<String>,
    /// What guest clusters hold, from the first one on; others are unallocated.
    pub contents: Vec<Content>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            version: 3,
            cluster_bits: 16,
            refcount_order: 4,
            size_bytes: 4 << 20,
            zstd: false,
            snapshot: false,
            backing: None,
            contents: Vec::new(),
        }
    }
}

const COPIED: u64 = 1 << 63;

/// An image under construction.
struct Maker {
    bytes: Vec<u8>,
    cluster: usize,
    /// How often each cluster is referred to.
    counts: BTreeMap<usize, u64>,
}

impl Maker {
    /// Room for `clusters` in a row: its offset.
    fn room(&mut self, clusters: usize, count: u64) -> usize {
        let at = self.bytes.len().next_multiple_of(self.cluster);
        self.bytes.resize(at + clusters * self.cluster, 0);
        (at / self.cluster..at / self.cluster + clusters)
            .for_each(|c| *self.counts.entry(c).or_default() += count);
        at
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

impl Shape {
    fn cluster_bytes(&self) -> usize {
        1 << self.cluster_bits
    }

    /// What the disk of such an image reads as, over zeroes.
    pub fn disk(&self) -> Vec<u8> {
        let size = usize::try_from(self.size_bytes).unwrap_or_default();
        let mut disk = vec![0; size];
        for (index, (place, content)) in disk.chunks_mut(self.cluster_bytes()).zip(&self.contents).enumerate()
        {
            if matches!(content, Content::Data | Content::Compressed) {
                let bytes = pattern(index, self.cluster_bytes());
                place.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
            }
        }
        disk
    }

    /// The image itself.
    pub fn image(&self) -> Vec<u8> {
        let cluster = self.cluster_bytes();
        let mut maker = Maker { bytes: Vec::new(), cluster, counts: BTreeMap::new() };
        let per_table = cluster / 8;
        let size = usize::try_from(self.size_bytes).unwrap_or_default();
        let tables = size.div_ceil(cluster * per_table);
        let l1_clusters = (tables * 8).div_ceil(cluster);
        maker.room(1, 1);
        let l1 = maker.room(l1_clusters, 1);
        let copies = if self.snapshot { 2 } else { 1 };
        let copied = if self.snapshot { 0 } else { COPIED };
        for table in 0..tables {
            let first = table * per_table;
            let contents = self.contents.get(first..).unwrap_or_default();
            if contents.iter().take(per_table).all(|content| *content == Content::Unallocated) {
                continue;
            }
            let l2 = maker.room(1, copies);
            maker.put(l1 + table * 8, &(num(l2) | copied).to_be_bytes());
            for (index, content) in contents.iter().take(per_table).enumerate() {
                let entry = self.entry(&mut maker, first + index, *content, copies, copied);
                maker.put(l2 + index * 8, &entry.to_be_bytes());
            }
        }
        let snapshots = if self.snapshot { self.snapshot(&mut maker, l1, tables) } else { 0 };
        self.finish(maker, l1, tables, snapshots)
    }

    fn entry(&self, maker: &mut Maker, index: usize, content: Content, copies: u64, copied: u64) -> u64 {
        match content {
            Content::Unallocated => 0,
            Content::Zero => 1,
            Content::ZeroKept | Content::Data => {
                let at = maker.room(1, copies);
                maker.put(at, &pattern(index, self.cluster_bytes()));
                num(at) | copied | u64::from(content == Content::ZeroKept)
            }
            Content::Compressed => {
                let packed = self.compress(&pattern(index, self.cluster_bytes()));
                let at = maker.room(1, copies);
                // Somewhere in the cluster, as an image has it that packs them close.
                let start = at + (self.cluster_bytes() - packed.len()).min(100);
                maker.put(start, &packed);
                let sectors = (start % 512 + packed.len()).div_ceil(512) - 1;
                1 << 62 | num(sectors) << (62 - (self.cluster_bits - 8)) | num(start)
            }
        }
    }

    fn compress(&self, bytes: &[u8]) -> Vec<u8> {
        if self.zstd {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            return ruzstd::encoding::compress_to_vec(bytes, level);
        }
        let mut packed = Vec::new();
        let mut deflater = flate2::bufread::DeflateEncoder::new(bytes, flate2::Compression::default());
        // Reading from memory cannot fail; a short result would be seen as corrupt.
        let _ = deflater.read_to_end(&mut packed);
        packed
    }

    /// A snapshot of the whole disk as it is (docs/interop/qcow2.rst, "Snapshots"): the offset of the table.
    fn snapshot(&self, maker: &mut Maker, l1: usize, tables: usize) -> usize {
        let copy = maker.room((tables * 8).div_ceil(self.cluster_bytes()), 1);
        let entries = maker.bytes.get(l1..l1 + tables * 8).unwrap_or_default().to_vec();
        maker.put(copy, &entries);
        let table = maker.room(1, 1);
        let mut row = Vec::new();
        row.extend(num(copy).to_be_bytes());
        row.extend(u32::try_from(tables).unwrap_or_default().to_be_bytes());
        row.extend([0, 1, 0, 1]); // lengths of id and name
        row.extend([0; 20]); // date, clock, size of the machine's state
        row.extend(16_u32.to_be_bytes()); // extra data
        row.extend([0; 8]);
        row.extend(self.size_bytes.to_be_bytes());
        row.extend(b"1a");
        maker.put(table, &row);
        table
    }

    fn finish(&self, mut maker: Maker, l1: usize, tables: usize, snapshots: usize) -> Vec<u8> {
        let cluster = self.cluster_bytes();
        let per_block = (cluster * 8) >> self.refcount_order;
        // Blocks and their table count themselves.
        let used = maker.bytes.len().div_ceil(cluster);
        let mut blocks = 1;
        let mut table_clusters = 1;
        while (used + blocks + table_clusters).div_ceil(per_block) > blocks
            || blocks > table_clusters * cluster / 8
        {
            blocks = (used + blocks + table_clusters).div_ceil(per_block);
            table_clusters = (blocks * 8).div_ceil(cluster);
        }
        let table = maker.room(table_clusters, 1);
        let first = maker.room(blocks, 1);
        for block in 0..blocks {
            maker.put(table + block * 8, &num(first + block * cluster).to_be_bytes());
        }
        for (index, count) in maker.counts.clone() {
            let bits = 1 << self.refcount_order;
            let bit = index % per_block * bits;
            let at = first + index / per_block * cluster + bit / 8;
            if bits < 8 {
                if let Some(byte) = maker.bytes.get_mut(at) {
                    let [low, ..] = count.to_le_bytes();
                    *byte |= low << (bit % 8);
                }
            } else {
                let bytes = count.to_be_bytes();
                maker.put(at, bytes.get(8 - bits / 8..).unwrap_or_default());
            }
        }
        let header = self.header(l1, tables, table, table_clusters, snapshots);
        maker.put(0, &header);
        maker.bytes
    }

    fn header(&self, l1: usize, tables: usize, table: usize, clusters: usize, snapshots: usize) -> Vec<u8> {
        let u32_of = |number: usize| u32::try_from(number).unwrap_or_default().to_be_bytes();
        let mut header = b"QFI\xfb".to_vec();
        header.extend(self.version.to_be_bytes());
        let name = self.backing.as_deref().unwrap_or_default();
        let name_at = if self.backing.is_some() { 256_u64 } else { 0 };
        header.extend(name_at.to_be_bytes());
        header.extend(u32_of(name.len()));
        header.extend(self.cluster_bits.to_be_bytes());
        header.extend(self.size_bytes.to_be_bytes());
        header.extend([0; 4]);
        header.extend(u32_of(tables));
        header.extend(num(l1).to_be_bytes());
        header.extend(num(table).to_be_bytes());
        header.extend(u32_of(clusters));
        header.extend(u32_of(usize::from(snapshots != 0)));
        header.extend(num(snapshots).to_be_bytes());
        if self.version > 2 {
            let features: u64 = if self.zstd { 1 << 3 } else { 0 };
            header.extend(features.to_be_bytes());
            header.extend([0; 16]);
            header.extend(self.refcount_order.to_be_bytes());
            header.extend(112_u32.to_be_bytes());
            header.extend([u8::from(self.zstd), 0, 0, 0, 0, 0, 0, 0]);
        }
        header.resize(256, 0);
        header.extend(name.bytes());
        header
    }
}

fn num(number: usize) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Bytes that tell where they belong, and that can be compressed.
pub(crate) fn pattern(index: usize, len: usize) -> Vec<u8> {
    let text = format!("<{index:07}>");
    text.bytes().cycle().take(len).collect()
}
