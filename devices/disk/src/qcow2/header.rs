//! The header, checked (docs/interop/qcow2.rst, "Header"). Pure: bytes in, a [`Header`] or a refusal out.

use crate::format::{Format, FormatError};

/// `QFI\xfb`.
const MAGIC: u32 = 0x5146_49fb;
/// Length of the header of version 2, and of the part of version 3 that every image has, in bytes.
const V2_BYTES: usize = 72;
const V3_BYTES: usize = 104;
/// As much of an image's start as is ever read as header: one cluster of the usual size.
pub(crate) const HEADER_MAX_BYTES: usize = 64 << 10;

/// The largest L1 table in bytes: 256 TiB in clusters of 64 KiB.
pub(crate) const L1_MAX_BYTES: u64 = 4 << 20;
/// The largest refcount table in bytes, as in QEMU (`QCOW_MAX_REFTABLE_SIZE`).
pub(crate) const REFTABLE_MAX_BYTES: u64 = 8 << 20;
/// The longest name of a backing image in bytes ("must not exceed 1023 bytes").
const BACKING_NAME_MAX: u32 = 1023;

/// Offsets of fields that are written in place.
pub(crate) const AT_SIZE: u64 = 24;
pub(crate) const AT_L1: u64 = 36;
pub(crate) const AT_REFTABLE: u64 = 48;
pub(crate) const AT_INCOMPATIBLE: u64 = 72;
pub(crate) const AT_AUTOCLEAR: u64 = 88;

/// Incompatible features.
pub(crate) const DIRTY: u64 = 1;
pub(crate) const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Raw deflate (RFC 1951).
    Zlib,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// What the header says, checked for limits; offsets are multiples of the cluster size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) size_bytes: u64,
    pub(crate) l1_entries: u32,
    pub(crate) l1_offset: u64,
    pub(crate) reftable_offset: u64,
    pub(crate) reftable_clusters: u32,
    pub(crate) refcount_order: u32,
    pub(crate) snapshots: u32,
    pub(crate) incompatible: u64,
    pub(crate) autoclear: u64,
    pub(crate) compression: Compression,
    pub(crate) backing: Option<String>,
}

/// Reads big-endian numbers; what is not there is zero.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let found = self.0.get(at..).and_then(|rest| rest.first_chunk());
        found.copied().unwrap_or([0; N])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.bytes(at))
    }
}

impl Header {
    /// Bytes of a cluster.
    pub(crate) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Reads a header from the start of an image of `file_bytes`.
    pub(crate) fn parse(start: &[u8], file_bytes: u64) -> Result<Self, FormatError> {
        let fields = Fields(start);
        if start.len() < V2_BYTES || fields.u32(0) != MAGIC {
            return Err(FormatError::NotOne(Format::Qcow2));
        }
        let version = fields.u32(4);
        if !matches!(version, 2 | 3) {
            return Err(FormatError::Unsupported(format!("qcow2 version {version}")));
        }
        let v3 = version == 3;
        if v3 && start.len() < V3_BYTES {
            return Err(FormatError::Corrupt("it is shorter than its header"));
        }
        match fields.u32(32) {
            0 => {}
            1 => return Err(FormatError::Unsupported("AES encryption".to_owned())),
            2 => return Err(FormatError::Unsupported("LUKS encryption".to_owned())),
            other => return Err(FormatError::Unsupported(format!("encryption method {other}"))),
        }
        let cluster_bits = fields.u32(20);
        // 512 bytes to 2 MiB.
        if !(9..=21).contains(&cluster_bits) {
            return Err(FormatError::Corrupt("its cluster size is not from 512 bytes to 2 MiB"));
        }
        let header_bytes = if v3 { fields.u32(100) } else { 72 };
        if v3 && (header_bytes < 104 || u64::from(header_bytes) > 1 << cluster_bits || header_bytes % 8 != 0)
        {
            return Err(FormatError::Corrupt("its header length makes no sense"));
        }
        let incompatible = if v3 { fields.u64(72) } else { 0 };
        known_features(incompatible, &extensions(start, header_bytes, cluster_bits))?;
        let has_compression = header_bytes > 104 && incompatible & COMPRESSION != 0;
        let compression = match (has_compression, start.get(104)) {
            (false, _) | (true, Some(0)) => Compression::Zlib,
            (true, Some(1)) => Compression::Zstd,
            (true, other) => {
                return Err(FormatError::Unsupported(format!("compression type {other:?}")));
            }
        };
        let header = Self {
            version,
            cluster_bits,
            size_bytes: fields.u64(24),
            l1_entries: fields.u32(36),
            l1_offset: fields.u64(40),
            reftable_offset: fields.u64(48),
            reftable_clusters: fields.u32(56),
            refcount_order: if v3 { fields.u32(96) } else { 4 },
            snapshots: fields.u32(60),
            incompatible,
            autoclear: if v3 { fields.u64(88) } else { 0 },
            compression,
            backing: backing(start, &fields, cluster_bits)?,
        };
        header.check(file_bytes)?;
        Ok(header)
    }

    fn check(&self, file_bytes: u64) -> Result<(), FormatError> {
        let limit = |what, value, limit| {
            if value > limit { Err(FormatError::Limit { what, value, limit }) } else { Ok(()) }
        };
        if self.refcount_order > 6 {
            return Err(FormatError::Corrupt("its reference counts are wider than 64 bits"));
        }
        if self.size_bytes == 0 {
            return Err(FormatError::Corrupt("its disk has no bytes"));
        }
        let l1_bytes = u64::from(self.l1_entries) * 8;
        limit("L1 table in bytes", l1_bytes, L1_MAX_BYTES)?;
        let reftable_bytes = u64::from(self.reftable_clusters) << self.cluster_bits;
        limit("refcount table in bytes", reftable_bytes, REFTABLE_MAX_BYTES)?;
        if u64::from(self.l1_entries) < l1_entries_for(self.size_bytes, self.cluster_bits) {
            return Err(FormatError::Corrupt("its L1 table is too small for its disk"));
        }
        if self.reftable_clusters == 0 {
            return Err(FormatError::Corrupt("it has no refcount table"));
        }
        self.place(self.l1_offset, l1_bytes, file_bytes, "its L1 table is not within the file")?;
        let outside = "its refcount table is not within the file";
        self.place(self.reftable_offset, reftable_bytes, file_bytes, outside)
    }

    fn place(&self, at: u64, len: u64, file: u64, problem: &'static str) -> Result<(), FormatError> {
        let aligned = at.is_multiple_of(self.cluster_bytes()) && at != 0;
        let within = at.checked_add(len).is_some_and(|end| end <= file);
        if aligned && within { Ok(()) } else { Err(FormatError::Corrupt(problem)) }
    }
}

/// How many L1 entries a disk of `size_bytes` needs.
pub(crate) fn l1_entries_for(size_bytes: u64, cluster_bits: u32) -> u64 {
    // One L2 table is a cluster of 8-byte entries, each for a cluster.
    size_bytes.div_ceil(1 << (cluster_bits + cluster_bits - 3))
}

/// Header extensions: type and content. What runs out of the first cluster is not there.
fn extensions(start: &[u8], header_bytes: u32, cluster_bits: u32) -> Vec<(u32, &[u8])> {
    let first = start.get(..start.len().min(1 << cluster_bits)).unwrap_or_default();
    let mut rest = first.get(usize::try_from(header_bytes).unwrap_or(usize::MAX)..).unwrap_or_default();
    let mut found = Vec::new();
    while let Some((kind, after)) = rest.split_first_chunk::<4>() {
        let Some((len, after)) = after.split_first_chunk::<4>() else { break };
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        let Some(content) = after.get(..len) else { break };
        let kind = u32::from_be_bytes(*kind);
        if kind == 0 {
            break;
        }
        found.push((kind, content));
        rest = after.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    found
}

/// Refuses features that are not supported, by the name that the image's feature table gives them.
fn known_features(incompatible: u64, extensions: &[(u32, &[u8])]) -> Result<(), FormatError> {
    const NAMES: u32 = 0x6803_f857;
    let unknown = incompatible & !(DIRTY | CORRUPT | COMPRESSION);
    let Some(bit) = (0..64_u32).find(|bit| unknown >> bit & 1 == 1) else { return Ok(()) };
    let told = match 1 << bit {
        DATA_FILE => "an external data file".to_owned(),
        EXTENDED_L2 => "extended L2 entries (subclusters)".to_owned(),
        _ => {
            let tables = extensions.iter().filter(|(kind, _)| *kind == NAMES);
            let rows = tables.flat_map(|(_, table)| table.as_chunks::<48>().0);
            let row = rows.into_iter().find(|[kind, number, ..]| (*kind, u32::from(*number)) == (0, bit));
            let name = row.map(|[_, _, name @ ..]| printable(name)).unwrap_or_default();
            format!("the unknown incompatible feature {bit} '{name}'")
        }
    };
    Err(FormatError::Unsupported(told))
}

fn backing(start: &[u8], fields: &Fields<'_>, cluster_bits: u32) -> Result<Option<String>, FormatError> {
    let (at, len) = (fields.u64(8), fields.u32(16));
    if at == 0 {
        return Ok(None);
    }
    let end =
        at.checked_add(u64::from(len)).filter(|end| *end <= 1 << cluster_bits && len <= BACKING_NAME_MAX);
    let range = end.and_then(|end| Some(usize::try_from(at).ok()?..usize::try_from(end).ok()?));
    let name = range.and_then(|range| start.get(range));
    let name = name.ok_or(FormatError::Corrupt("the name of its backing image is not within its header"))?;
    Ok(Some(printable(name)))
}

/// Text of an image that may say anything, fit for a message.
fn printable(bytes: &[u8]) -> String {
    let text = bytes.iter().take_while(|byte| **byte != 0);
    text.map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' }).collect()
}

/// The first cluster of a new image of version 3: its header, the name of its backing image, and what it has of names.
pub(crate) fn fresh(
    size_bytes: u64,
    l1_entries: u32,
    layout: &Fresh,
    backing: Option<(&str, &str)>,
) -> Vec<u8> {
    const BACKING_FORMAT: u32 = 0xe279_2aca;
    let mut header = Vec::new();
    for field in [MAGIC, 3] {
        header.extend(field.to_be_bytes());
    }
    header.extend([0; 12]); // backing_file_offset, backing_file_size: below
    header.extend(layout.cluster_bits.to_be_bytes());
    header.extend(size_bytes.to_be_bytes());
    header.extend(0_u32.to_be_bytes()); // crypt_method
    header.extend(l1_entries.to_be_bytes());
    header.extend(layout.l1_offset.to_be_bytes());
    header.extend(layout.reftable_offset.to_be_bytes());
    header.extend(1_u32.to_be_bytes()); // refcount_table_clusters
    header.extend([0; 12]); // nb_snapshots, snapshots_offset
    header.extend([0; 24]); // features
    header.extend(4_u32.to_be_bytes()); // refcount_order: 16 bits
    header.extend(104_u32.to_be_bytes()); // header_length
    if let Some((name, format)) = backing {
        header.extend(BACKING_FORMAT.to_be_bytes());
        header.extend(u32::try_from(format.len()).unwrap_or_default().to_be_bytes());
        header.extend(format.as_bytes());
        header.resize(header.len().next_multiple_of(8), 0);
        header.extend([0; 8]); // end of header extensions
        let at = u64::try_from(header.len()).unwrap_or_default();
        let len = u32::try_from(name.len()).unwrap_or_default();
        header.extend(name.as_bytes());
        let place = header.iter_mut().skip(8);
        place.zip(at.to_be_bytes().into_iter().chain(len.to_be_bytes())).for_each(|(to, from)| *to = from);
    } else {
        header.extend([0; 8]);
    }
    header
}

/// Where the tables of a new image are.
pub(crate) struct Fresh {
    pub(crate) cluster_bits: u32,
    pub(crate) l1_offset: u64,
    pub(crate) reftable_offset: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn good() -> Vec<u8> {
        let layout = Fresh { cluster_bits: 16, l1_offset: 3 << 16, reftable_offset: 1 << 16 };
        let mut start = fresh(64 * MIB, 1, &layout, None);
        start.resize(4 << 16, 0);
        start
    }

    fn put(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut start = good();
        start[at..at + bytes.len()].copy_from_slice(bytes);
        start
    }

    fn problem(start: &[u8]) -> String {
        Header::parse(start, 4 << 16).map_or_else(|error| error.to_string(), |_| "none".to_owned())
    }

    #[test]
    fn a_new_header_says_what_it_was_made_with() {
        let layout = Fresh { cluster_bits: 16, l1_offset: 3 << 16, reftable_offset: 1 << 16 };
        let start = fresh(64 * MIB, 1, &layout, Some(("/base.img", "raw")));
        let header = Header::parse(&start, 4 << 16).unwrap();
        assert_eq!((header.version, header.cluster_bits, header.size_bytes), (3, 16, 64 * MIB));
        assert_eq!((header.refcount_order, header.snapshots, header.incompatible), (4, 0, 0));
        assert_eq!(header.backing.as_deref(), Some("/base.img"));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let feature = |bit: u64| put(72, &(1_u64 << bit).to_be_bytes());
        for (start, said) in [
            (put(0, b"KDMV"), "it is not a qcow2 image"),
            (put(4, &9_u32.to_be_bytes()), "qcow2 version 9"),
            (put(32, &1_u32.to_be_bytes()), "AES encryption"),
            (put(32, &2_u32.to_be_bytes()), "LUKS encryption"),
            (feature(2), "an external data file"),
            (feature(4), "extended L2 entries"),
            (feature(63), "the unknown incompatible feature 63 ''"),
        ] {
            assert!(problem(&start).contains(said), "{}", problem(&start));
        }
    }

    #[test]
    fn an_unknown_feature_is_called_what_its_image_calls_it() {
        let mut start = put(72, &(1_u64 << 40).to_be_bytes());
        let row = [&[0, 40][..], b"time travel", &[0; 35]].concat();
        let table = [&0x6803_f857_u32.to_be_bytes()[..], &48_u32.to_be_bytes(), &row].concat();
        start[104..104 + table.len()].copy_from_slice(&table);
        assert!(problem(&start).contains("feature 40 'time travel'"), "{}", problem(&start));
    }

    #[test]
    fn numbers_beyond_their_limits_are_refused() {
        for (start, said) in [
            (put(20, &8_u32.to_be_bytes()), "cluster size"),
            (put(20, &63_u32.to_be_bytes()), "cluster size"),
            (put(24, &u64::MAX.to_be_bytes()), "L1 table is too small"),
            (put(24, &0_u64.to_be_bytes()), "no bytes"),
            (put(36, &u32::MAX.to_be_bytes()), "L1 table in bytes"),
            (put(40, &u64::MAX.to_be_bytes()), "L1 table is not within"),
            (put(40, &(8_u64 << 16).to_be_bytes()), "L1 table is not within"),
            (put(40, &0_u64.to_be_bytes()), "L1 table is not within"),
            (put(48, &((1_u64 << 16) + 512).to_be_bytes()), "refcount table is not within"),
            (put(56, &u32::MAX.to_be_bytes()), "refcount table in bytes"),
            (put(56, &0_u32.to_be_bytes()), "no refcount table"),
            (put(96, &7_u32.to_be_bytes()), "wider than 64 bits"),
            (put(100, &96_u32.to_be_bytes()), "header length"),
            (put(100, &u32::MAX.to_be_bytes()), "header length"),
            (put(8, &u64::MAX.to_be_bytes()), "backing image"),
            (good()[..80].to_vec(), "shorter than its header"),
        ] {
            assert!(problem(&start).contains(said), "{said}: {}", problem(&start));
        }
    }

    #[test]
    fn a_backing_name_cannot_write_on_a_terminal() {
        let mut start = put(8, &[&200_u64.to_be_bytes()[..], &8_u32.to_be_bytes()].concat());
        start[200..208].copy_from_slice(b"\x1b[2J/etc");
        let header = Header::parse(&start, 4 << 16).unwrap();
        assert_eq!(header.backing.as_deref(), Some("?[2J/etc"));
    }
}
