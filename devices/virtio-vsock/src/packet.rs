//! The header of a packet (virtio 1.3 §5.10.6): 44 bytes, little-endian, packed.

/// Length of the header in bytes.
pub(crate) const HEADER_BYTES: usize = 44;

/// The most data that one packet carries, in bytes (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE` of Linux).
pub(crate) const DATA_MAX_BYTES: usize = 64 << 10;

/// The host's context identifier (virtio 1.3 §5.10.4).
pub(crate) const HOST_CID: u64 = 2;

/// `VIRTIO_VSOCK_TYPE_STREAM`, the only type here.
pub(crate) const STREAM: u16 = 1;

/// The sender of `SHUTDOWN` will receive no more data.
pub(crate) const SHUTDOWN_RECEIVE: u32 = 1;
/// The sender of `SHUTDOWN` will send no more data.
pub(crate) const SHUTDOWN_SEND: u32 = 2;
/// Both.
pub(crate) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet is for (virtio 1.3 §5.10.6, `op`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Op {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Op {
    pub(crate) fn of(number: u16) -> Option<Self> {
        use Op::*;
        [Request, Response, Reset, Shutdown, Data, CreditUpdate, CreditRequest]
            .into_iter()
            .find(|op| *op as u16 == number)
    }
}

/// `struct virtio_vsock_hdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Header {
    pub(crate) src_cid: u64,
    pub(crate) dst_cid: u64,
    pub(crate) src_port: u32,
    pub(crate) dst_port: u32,
    /// Data behind the header, in bytes.
    pub(crate) len: u32,
    pub(crate) kind: u16,
    pub(crate) op: u16,
    pub(crate) flags: u32,
    /// The sender's buffer for this connection, in bytes.
    pub(crate) buf_alloc: u32,
    /// How many bytes the sender's application took out of it so far, modulo 2^32.
    pub(crate) fwd_cnt: u32,
}

impl Header {
    pub(crate) fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut fields = Fields(bytes.as_slice());
        Self {
            src_cid: u64::from_le_bytes(fields.next()),
            dst_cid: u64::from_le_bytes(fields.next()),
            src_port: u32::from_le_bytes(fields.next()),
            dst_port: u32::from_le_bytes(fields.next()),
            len: u32::from_le_bytes(fields.next()),
            kind: u16::from_le_bytes(fields.next()),
            op: u16::from_le_bytes(fields.next()),
            flags: u32::from_le_bytes(fields.next()),
            buf_alloc: u32::from_le_bytes(fields.next()),
            fwd_cnt: u32::from_le_bytes(fields.next()),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let Self { src_cid, dst_cid, src_port, dst_port, len, kind, op, flags, buf_alloc, fwd_cnt } = self;
        let mut bytes = [0; HEADER_BYTES];
        let fields: [&[u8]; 10] = [
            &src_cid.to_le_bytes(),
            &dst_cid.to_le_bytes(),
            &src_port.to_le_bytes(),
            &dst_port.to_le_bytes(),
            &len.to_le_bytes(),
            &kind.to_le_bytes(),
            &op.to_le_bytes(),
            &flags.to_le_bytes(),
            &buf_alloc.to_le_bytes(),
            &fwd_cnt.to_le_bytes(),
        ];
        bytes.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// The refusal of this packet: a reset from its destination to its source.
    pub(crate) fn refusal(self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: Op::Reset as u16,
            ..Self::default()
        }
    }
}

/// Cuts fixed pieces off bytes; what is missing is zero.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_the_specification_says() {
        let bytes: [u8; HEADER_BYTES] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let header = Header::from_bytes(&bytes);
        assert_eq!(header.src_cid, 0x0706_0504_0302_0100);
        assert_eq!(header.dst_port, 0x1716_1514);
        assert_eq!(header.len, 0x1b1a_1918);
        assert_eq!((header.kind, header.op), (0x1d1c, 0x1f1e));
        assert_eq!(header.fwd_cnt, 0x2b2a_2928);
        assert_eq!(header.to_bytes(), bytes);
    }

    #[test]
    fn unknown_operations_are_none() {
        assert_eq!(Op::of(0), None);
        assert_eq!(Op::of(5), Some(Op::Data));
        assert_eq!(Op::of(8), None);
    }
}
