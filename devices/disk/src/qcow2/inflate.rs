//! Compressed clusters, made whole again. Whatever the bytes are, no more than one cluster comes out.

use flate2::{Decompress, FlushDecompress};
use ruzstd::decoding::StreamingDecoder;
use std::io::Read;

use super::header::Compression;

/// The largest window that is granted to Zstandard, in bytes: what RFC 8878 §3.1.1.1.2 recommends to support.
const WINDOW_MAX_BYTES: u64 = 8 << 20;

/// The cluster that `stored` holds, of which the end may belong to something else.
pub(crate) fn inflate(
    stored: &[u8],
    how: Compression,
    cluster_bytes: usize,
) -> Result<Vec<u8>, &'static str> {
    let mut cluster = vec![0; cluster_bytes];
    match how {
        Compression::Zlib => {
            let mut inflater = Decompress::new(false);
            let ended = inflater.decompress(stored, &mut cluster, FlushDecompress::Finish);
            let written = usize::try_from(inflater.total_out()).unwrap_or_default();
            if ended.is_err() || written != cluster_bytes {
                return Err("a compressed cluster cannot be decompressed");
            }
        }
        Compression::Zstd => {
            let decoder = StreamingDecoder::new_with_max_window_size(stored, WINDOW_MAX_BYTES);
            let filled =
                decoder.map_err(drop).and_then(|mut decoder| decoder.read_exact(&mut cluster).map_err(drop));
            if filled.is_err() {
                return Err("a compressed cluster cannot be decompressed");
            }
        }
    }
    Ok(cluster)
}
