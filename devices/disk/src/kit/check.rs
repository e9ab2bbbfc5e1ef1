//! Counts the references in a qcow2 image and compares them with what the image says, as `qemu-img check` does.

use std::collections::BTreeMap;

/// What is wrong with an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// References that are not counted, or counted by a table that says otherwise: what could lose data.
    pub errors: Vec<String>,
    /// Clusters to which nothing refers any more: lost space.
    pub leaks: Vec<u64>,
}

struct Reader<'a> {
    bytes: &'a [u8],
    cluster_bits: u32,
    references: BTreeMap<u64, u64>,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn u64(&self, at: u64) -> u64 {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let found = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        u64::from_be_bytes(found.copied().unwrap_or_default())
    }

    fn u32(&self, at: u64) -> u64 {
        self.u64(at) >> 32
    }

    fn refer(&mut self, offset: u64, len: u64) {
        let end = (offset + len - 1) >> self.cluster_bits;
        (offset >> self.cluster_bits..=end).for_each(|c| *self.references.entry(c).or_default() += 1);
    }

    /// Notes what an L1 table refers to; entries that claim to be the only reference go to `claims`.
    fn l1(&mut self, at: u64, entries: u64, claims: &mut BTreeMap<u64, bool>) {
        const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
        let cluster = 1_u64 << self.cluster_bits;
        self.refer(at, (entries * 8).max(1));
        for entry in
            (0..entries).map(|i| self.u64(at + i * 8)).filter(|entry| *entry != 0).collect::<Vec<_>>()
        {
            let table = entry & OFFSET;
            self.refer(table, 1);
            claims.insert(table >> self.cluster_bits, entry >> 63 == 1);
            for l2 in (0..cluster / 8).map(|i| self.u64(table + i * 8)).collect::<Vec<_>>() {
                if l2 >> 62 & 1 == 1 {
                    let bits = 62 - (self.cluster_bits - 8);
                    let start = l2 & ((1 << bits) - 1);
                    let sectors = (l2 & ((1 << 62) - 1)) >> bits;
                    self.refer(start, (sectors + 1) * 512 - start % 512);
                } else if l2 & OFFSET != 0 {
                    let host = l2 & OFFSET;
                    if host & (cluster - 1) != 0 {
                        self.errors.push(format!("{host:#x} is not aligned"));
                    }
                    self.refer(host, 1);
                    claims.insert(host >> self.cluster_bits, l2 >> 63 == 1);
                }
            }
        }
    }
}

/// Checks the image in `bytes`.
pub fn check(bytes: &[u8]) -> Findings {
    let mut reader = Reader { bytes, cluster_bits: 0, references: BTreeMap::new(), errors: Vec::new() };
    reader.cluster_bits = u32::try_from(reader.u32(20)).unwrap_or_default().clamp(9, 21);
    let order = if reader.u32(4) > 2 { reader.u32(96) } else { 4 };
    let cluster = 1_u64 << reader.cluster_bits;
    let (table, table_bytes) = (reader.u64(48), reader.u32(56) * cluster);
    reader.refer(0, 1);
    reader.refer(table, table_bytes);
    let blocks: Vec<u64> = (0..table_bytes / 8).map(|i| reader.u64(table + i * 8)).collect();
    for block in blocks.iter().filter(|block| **block != 0) {
        reader.refer(*block, 1);
    }
    let mut claims = BTreeMap::new();
    let (l1, entries) = (reader.u64(40), reader.u32(36));
    reader.l1(l1, entries, &mut claims);
    if reader.u32(60) == 1 {
        let at = reader.u64(64);
        let (l1, entries) = (reader.u64(at), reader.u32(at + 8));
        reader.refer(at, 1);
        reader.l1(l1, entries, &mut BTreeMap::new());
    }
    let count = |cluster_number: u64| {
        let per_block = (cluster * 8) >> order;
        let block = usize::try_from(cluster_number / per_block).ok().and_then(|i| blocks.get(i)).copied();
        let Some(block) = block.filter(|block| *block != 0) else { return 0 };
        let bit = (cluster_number % per_block) << order;
        let word = reader.u64(block + bit / 8);
        match order {
            0..3 => word >> (56 + bit % 8) & ((1 << (1 << order)) - 1),
            6 => word,
            _ => word >> (64 - (1 << order)),
        }
    };
    let mut found = Findings { errors: reader.errors.clone(), leaks: Vec::new() };
    let end = u64::try_from(bytes.len()).unwrap_or_default().div_ceil(cluster);
    let last = reader.references.keys().last().copied().unwrap_or_default().max(end);
    for number in 0..=last {
        let (said, seen) = (count(number), reader.references.get(&number).copied().unwrap_or_default());
        if said > seen {
            found.leaks.push(number);
        } else if said < seen {
            found.errors.push(format!("cluster {number} has {seen} references, and says {said}"));
        }
        if let Some(claim) = claims.get(&number).filter(|claim| **claim != (said == 1)) {
            found
                .errors
                .push(format!("cluster {number} says {said} references, its table 'only one': {claim}"));
        }
    }
    found
}
