//! The entry point for fuzzing the qcow2 reader, and images to begin with.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use super::image::{Content, Shape};
use super::run;
use crate::{Chain, Disk, EngineKind, Format, Image, Memory, Operation, Options, Source, open_engine};

/// Treats `bytes` as a qcow2 image that a guest reads and writes. Whatever they are, every operation ends, and nothing
/// outside the image is touched; a panic or a hang is a finding.
///
/// # Errors
///
/// The host's, which say nothing about the image.
pub fn qcow2(bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile_in_memory()?;
    file.write_all(bytes)?;
    let image = Image { source: Source::Fd(file.into(), "fuzz".to_owned()), format: Some(Format::Qcow2) };
    let chain =
        Chain { images: vec![image], overlay: None, options: Options::default(), holder: String::new() };
    let Ok(disk) = Disk::open_chain(chain) else { return Ok(()) };
    let disk = Arc::new(disk);
    let (mut engine, _) = open_engine::<Vec<u8>>(&disk, 4, EngineKind::Synchronous);
    // Where tables begin and end, and a few places between.
    let size = disk.size_bytes();
    let unit = u64::from(disk.discard_bytes());
    let places = [0, unit, unit * 3, size / 2, size.saturating_sub(unit), size.saturating_sub(512)];
    for offset in places.map(|place| place & !511).into_iter().filter(|place| *place < size) {
        let len = (size - offset).min(4096);
        let bytes = vec![0x5a; usize::try_from(len).unwrap_or_default()];
        let _ = one(&mut *engine, Operation::Read { offset, to: bytes.clone() });
        let _ = one(&mut *engine, Operation::Write { offset, from: bytes.clone() });
        let _ =
            one(&mut *engine, Operation::WriteZeroes { offset, len: (size - offset).min(unit), unmap: true });
        let _ = one(&mut *engine, Operation::Write { offset, from: bytes });
        let _ = one(&mut *engine, Operation::Discard { offset, len });
        let _ = one(&mut *engine, Operation::Flush);
    }
    let _ = disk.grow((size.saturating_add(unit)) & !511);
    Ok(())
}

fn one<M: Memory>(engine: &mut dyn crate::Engine<M>, operation: Operation<M>) -> std::io::Result<()> {
    run(engine, operation).result
}

fn tempfile_in_memory() -> std::io::Result<File> {
    crate::sys::memory_file(c"fuzz")
}

/// Images to begin with: small ones of every shape, and what is typically wrong with one.
pub fn corpus() -> Vec<(String, Vec<u8>)> {
    use Content::{Compressed, Data, Unallocated, Zero, ZeroKept};
    let mut images = Vec::new();
    let contents = vec![Data, Unallocated, Zero, Compressed, ZeroKept, Data];
    let plain = vec![Data, Unallocated, Compressed, Data];
    for (name, shape) in [
        (
            "v3-512",
            Shape { cluster_bits: 9, size_bytes: 1 << 16, contents: contents.clone(), ..Shape::default() },
        ),
        ("v3-4k", Shape { cluster_bits: 12, contents: contents.clone(), ..Shape::default() }),
        ("v2-4k", Shape { version: 2, cluster_bits: 12, contents: plain, ..Shape::default() }),
        ("zstd", Shape { cluster_bits: 12, zstd: true, contents: contents.clone(), ..Shape::default() }),
        (
            "snapshot",
            Shape { cluster_bits: 12, snapshot: true, contents: contents.clone(), ..Shape::default() },
        ),
        (
            "counts-1",
            Shape { cluster_bits: 12, refcount_order: 0, contents: contents.clone(), ..Shape::default() },
        ),
        ("counts-64", Shape { cluster_bits: 12, refcount_order: 6, contents, ..Shape::default() }),
    ] {
        images.push((name.to_owned(), shape.image()));
    }
    let Some((_, good)) = images.get(1).cloned() else { return images };
    let l1 = number(&good, 40);
    let l2 = number(&good, l1) & 0x00ff_ffff_ffff_fe00;
    let table = number(&good, 48);
    for (name, at, value) in [
        ("l1-to-itself", l1, 1 << 63 | l1),
        ("l1-beyond", l1, 1 << 63 | 1 << 40),
        ("l1-to-header", l1, 1 << 63),
        ("l2-to-l1", l2, 1 << 63 | l1),
        ("l2-to-itself", l2, 1 << 63 | l2),
        ("l2-beyond", l2, 1 << 63 | 1 << 50),
        ("l2-unaligned", l2, 1 << 63 | 0x3200),
        ("l2-compressed-nowhere", l2, 1 << 62 | 1 << 45),
        ("refcounts-in-l2", table, l2),
        ("refcounts-beyond", table, 1 << 50),
        ("refcounts-nowhere", table, 0),
        ("size-huge", 24, u64::MAX),
        ("l1-at-header", 40, 0),
        ("table-at-header", 48, 0),
        ("backing-shadow", 8, 256),
    ] {
        let mut image = good.clone();
        let place = usize::try_from(at).unwrap_or_default();
        if let Some(place) = image.get_mut(place..place + 8) {
            place.copy_from_slice(&u64::to_be_bytes(value));
        }
        images.push((name.to_owned(), image));
    }
    for len in [0, 4, 71, 103, 111, 4096, good.len() / 2, good.len() - 1] {
        images.push((format!("cut-at-{len}"), good.get(..len).unwrap_or_default().to_vec()));
    }
    images
}

fn number(image: &[u8], at: u64) -> u64 {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    let bytes = image.get(at..).and_then(|rest| rest.first_chunk());
    u64::from_be_bytes(bytes.copied().unwrap_or_default())
}
