//! One layer: decompressed, hashed and walked in one pass. Its names go to the tree, its files' bytes to the sink.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use data_encoding::HEXLOWER;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

use crate::limits::Limits;
use crate::tree::{Content, EntryError, Node, Tree};
use crate::zstd;

/// Read at once, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Why a layer is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// More bytes than [`Limits::unpacked_bytes`].
    #[error("the image unpacks to more than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// More entries than [`Limits::entries`].
    #[error("the image has more than {0} entries")]
    TooMany(usize),
    /// Names longer than [`Limits::names_bytes`] together.
    #[error("the names in the image have more than {0} bytes together")]
    Names(u64),
    /// An entry whose header is longer than [`Limits::header_bytes`].
    #[error("an entry's header is longer than {0} bytes")]
    Header(u64),
    /// It ends in the middle of a file.
    #[error("the layer ends in the middle of '{0}'")]
    CutOff(String),
    /// A form of sparse file whose meaning is in its bytes.
    #[error("'{0}' is a sparse file in the PAX form, which is not read: make the layer without --sparse")]
    PaxSparse(String),
    /// An entry that the tree does not take.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// It cannot be read, or its files not be written.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for LayerError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(error) => Self::Io(error),
        }
    }
}

/// Where the content of regular files goes.
pub trait Sink {
    /// Keeps everything that `content` gives.
    fn keep(&mut self, content: &mut dyn Read) -> io::Result<Content>;
}

/// What all layers of an image have cost so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    bytes: u64,
    entries: usize,
    names_bytes: u64,
}

/// Decompresses what is compressed by gzip or zstd, known by its first bytes.
pub fn decoder<'a>(blob: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut blob = BufReader::with_capacity(BUFFER_BYTES, blob);
    let start = blob.fill_buf()?;
    if start.starts_with(b"\x1f\x8b") {
        return Ok(Box::new(MultiGzDecoder::new(blob)));
    }
    if start.starts_with(&zstd::MAGIC) {
        return Ok(Box::new(zstd::Frames::new(blob)?));
    }
    Ok(Box::new(blob))
}

/// Hashes and counts what goes through, and refuses what is too much.
struct Meter<R> {
    inner: R,
    hash: Sha256,
    state: Rc<State>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes so far, the layers before included.
    bytes: Cell<u64>,
    /// How many bytes of headers may still come before the next content; unset while there is content.
    header_left: Cell<Option<u64>>,
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.hash.update(&buffer[..len]);
        let bytes = self.state.bytes.get().saturating_add(len as u64);
        self.state.bytes.set(bytes);
        if bytes > self.limits.unpacked_bytes {
            return Err(io::Error::other(LayerError::TooLarge { limit_bytes: self.limits.unpacked_bytes }));
        }
        if let Some(left) = self.state.header_left.get() {
            let Some(left) = left.checked_sub(len as u64) else {
                return Err(io::Error::other(LayerError::Header(self.limits.header_bytes)));
            };
            self.state.header_left.set(Some(left));
        }
        Ok(len)
    }
}

/// Applies the layer `blob`, number `number`, to `tree`. Gives the SHA-256 of the decompressed layer (its diff id).
pub fn unpack(
    blob: impl Read,
    number: usize,
    tree: &mut Tree,
    sink: &mut dyn Sink,
    spent: &mut Spent,
    limits: &Limits,
) -> Result<String, LayerError> {
    let state = Rc::new(State { bytes: Cell::new(spent.bytes), header_left: Cell::new(None) });
    let inner = decoder(blob)?;
    let meter = Meter { inner, hash: Sha256::new(), state: Rc::clone(&state), limits: limits.clone() };
    let mut archive = Archive::new(meter);
    let mut entries = archive.entries()?;
    loop {
        state.header_left.set(Some(limits.header_bytes));
        let Some(entry) = entries.next() else { break };
        let mut entry = entry?;
        state.header_left.set(None);
        spent.entries += 1;
        if spent.entries > limits.entries {
            return Err(LayerError::TooMany(limits.entries));
        }
        // Sparse files grow only while they are read: what they say counts before.
        if entry.size() > limits.unpacked_bytes.saturating_sub(state.bytes.get()) {
            return Err(LayerError::TooLarge { limit_bytes: limits.unpacked_bytes });
        }
        let names = entry.path_bytes().len() + entry.link_name_bytes().map_or(0, |name| name.len());
        spent.names_bytes += names as u64;
        if spent.names_bytes > limits.names_bytes {
            return Err(LayerError::Names(limits.names_bytes));
        }
        apply(&mut entry, number, tree, sink)?;
        // What is not a file may have content too; it is not kept, but belongs to the layer's digest.
        io::copy(&mut entry, &mut io::sink())?;
    }
    state.header_left.set(None);
    let mut meter = archive.into_inner();
    io::copy(&mut meter, &mut io::sink())?;
    spent.bytes = state.bytes.get();
    Ok(HEXLOWER.encode(&meter.hash.finalize()))
}

/// Applies one entry.
fn apply<R: Read>(
    entry: &mut Entry<'_, R>,
    number: usize,
    tree: &mut Tree,
    sink: &mut dyn Sink,
) -> Result<(), LayerError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    // A manifest is UTF-8: it cannot ask for a name that is not.
    let Some(path) = text(&entry.path_bytes()) else { return Ok(()) };
    let target = entry.link_name_bytes().and_then(|bytes| text(&bytes));
    let pax = entry.pax_extensions()?.into_iter().flatten();
    if pax.flatten().any(|record| record.key_bytes().starts_with(b"GNU.sparse.")) {
        return Err(LayerError::PaxSparse(path));
    }
    let node = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let len = entry.size();
            let content = sink.keep(entry)?;
            if content.len_bytes != len {
                return Err(LayerError::CutOff(path));
            }
            Node::File(content)
        }
        EntryType::Directory => Node::Directory,
        EntryType::Symlink => Node::Link(target.unwrap_or_default()),
        EntryType::Link => {
            return Ok(tree.hard_link(number, &path, &target.unwrap_or_default())?);
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => Node::Special,
        _ => return Ok(()),
    };
    Ok(tree.apply(number, &path, node)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kit::{Layer, Packing, pack};

    /// Counts what it is given.
    struct Scale;

    impl Sink for Scale {
        fn keep(&mut self, content: &mut dyn Read) -> io::Result<Content> {
            let len_bytes = io::copy(content, &mut io::sink())?;
            Ok(Content { sha256: String::new(), len_bytes })
        }
    }

    fn limits() -> Limits {
        Limits { unpacked_bytes: 1 << 20, header_bytes: 4096, entries: 100, ..Limits::default() }
    }

    fn apply(blob: &[u8]) -> (Result<String, LayerError>, Tree) {
        let mut tree = Tree::default();
        let result = unpack(blob, 0, &mut tree, &mut Scale, &mut Spent::default(), &limits());
        (result, tree)
    }

    fn sample() -> Vec<u8> {
        let long = "n".repeat(150);
        Layer::default()
            .entry(EntryType::Directory, "disk/", "", b"")
            .entry(EntryType::GNULongName, "././@LongLink", "", long.as_bytes())
            .file("n", b"long")
            .entry(EntryType::XHeader, "pax", "", b"21 path=disk/pax.img\n")
            .file("x", &[7; 1500])
            .entry(EntryType::Symlink, "link", "/disk", b"")
            .entry(EntryType::Link, "disk/hard", "disk/pax.img", b"")
            .bytes()
    }

    #[test]
    fn long_names_and_pax_records_are_read() {
        let (result, tree) = apply(&sample());
        result.unwrap();
        assert_eq!(tree.file("/link/pax.img").unwrap().len_bytes, 1500);
        assert_eq!(tree.file("/disk/hard").unwrap().len_bytes, 1500);
        assert_eq!(tree.file(&"n".repeat(150)).unwrap().len_bytes, 4);
    }

    #[test]
    fn sparse_files_whose_map_is_in_their_bytes_are_refused() {
        let records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n";
        let layer = Layer::default().entry(EntryType::XHeader, "pax", "", records).file("disk/a", b"map");
        let (result, _) = apply(&layer.bytes());
        assert!(matches!(result, Err(LayerError::PaxSparse(_))), "{result:?}");
    }

    proptest! {
        /// Whatever a layer holds: an answer within the limits, and a tree without `..`.
        #[test]
        fn a_layer_with_any_damage_ends_well(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
            cut in any::<prop::sample::Index>(),
            packing in prop::sample::select(vec![Packing::Plain, Packing::Gzip, Packing::Zstd]),
            inside in any::<bool>(),
        ) {
            let mut blob = sample();
            let spoil = |blob: &mut Vec<u8>| {
                for (at, byte) in &damage {
                    let at = at.index(blob.len());
                    blob[at] = *byte;
                }
                blob.truncate(cut.index(blob.len()) + 1);
            };
            // The damage is in the archive, or in what compresses it.
            if inside {
                spoil(&mut blob);
            }
            let mut blob = pack(&blob, packing);
            if !inside {
                spoil(&mut blob);
            }
            let (_, tree) = apply(&blob);
            for (path, _) in tree.nodes() {
                prop_assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")), "{path}");
            }
        }
    }
}
