//! `struct virtio_net_hdr`, the twelve bytes before each frame (virtio 1.3 §5.1.6):
//! `u8 flags, u8 gso_type, le16 hdr_len, le16 gso_size, le16 csum_start, le16 csum_offset, le16 num_buffers`.

use orlop_net::HEADER_BYTES;
use virtio_bindings::virtio_net as v;

use crate::features;

/// The header's bytes.
pub(crate) type Header = [u8; HEADER_BYTES];

const NEEDS_CSUM: u32 = v::VIRTIO_NET_HDR_F_NEEDS_CSUM;

/// What the tap is given for a header that the driver wrote: `None` if it asks for what was not negotiated.
pub(crate) fn to_tap(header: Header, features: u64) -> Option<Header> {
    let [flags, gso_type, size @ .., _, _] = header;
    let has = |bits| features & bits == bits;
    let partial = u32::from(flags) & NEEDS_CSUM != 0;
    if partial && !has(features::CSUM) {
        return None;
    }
    let congestion = u32::from(gso_type) & v::VIRTIO_NET_HDR_GSO_ECN != 0;
    let negotiated = match u32::from(gso_type) & !v::VIRTIO_NET_HDR_GSO_ECN {
        v::VIRTIO_NET_HDR_GSO_NONE => !congestion,
        v::VIRTIO_NET_HDR_GSO_TCPV4 => partial && has(features::HOST_TSO4),
        v::VIRTIO_NET_HDR_GSO_TCPV6 => partial && has(features::HOST_TSO6),
        v::VIRTIO_NET_HDR_GSO_UDP_L4 => partial && has(features::HOST_USO),
        _ => false,
    };
    if !negotiated || congestion && !has(features::HOST_ECN) {
        return None;
    }
    let [a, b, c, d, e, f, g, h] = size;
    Some([u8::from(partial), gso_type, a, b, c, d, e, f, g, h, 0, 0])
}

/// What the driver is given for a header from the tap, on a frame that fills `buffers` buffers: `None` if the frame is
/// unfinished in a way that the driver's `offloads` do not cover, as those are that came before they were switched off.
/// Without checksum offload the flags are zero (virtio 1.3 §5.1.6.4.1).
pub(crate) fn to_guest(header: Header, buffers: u16, offloads: u64) -> Option<Header> {
    let [flags, gso_type, a, b, c, d, e, f, g, h, _, _] = header;
    let has = |bits| offloads & bits == bits;
    let checksums = has(features::GUEST_CSUM);
    let covered = match u32::from(gso_type) & !v::VIRTIO_NET_HDR_GSO_ECN {
        v::VIRTIO_NET_HDR_GSO_NONE => true,
        v::VIRTIO_NET_HDR_GSO_TCPV4 => checksums && has(features::GUEST_TSO4),
        v::VIRTIO_NET_HDR_GSO_TCPV6 => checksums && has(features::GUEST_TSO6),
        v::VIRTIO_NET_HDR_GSO_UDP_L4 => checksums && has(features::GUEST_USO4 | features::GUEST_USO6),
        _ => false,
    };
    let congestion = u32::from(gso_type) & v::VIRTIO_NET_HDR_GSO_ECN != 0;
    let partial = u32::from(flags) & NEEDS_CSUM != 0;
    if !covered || congestion && !has(features::GUEST_ECN) || partial && !checksums {
        return None;
    }
    let flags = if checksums { flags } else { 0 };
    let [low, high] = buffers.to_le_bytes();
    Some([flags, gso_type, a, b, c, d, e, f, g, h, low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX;

    fn header(flags: u8, gso_type: u8) -> Header {
        [flags, gso_type, 54, 0, 0xb4, 5, 34, 0, 16, 0, 9, 9]
    }

    #[test]
    fn only_what_was_negotiated_reaches_the_tap() {
        for (flags, gso_type, features, passes) in [
            (0, 0, 0, true),
            (1, 0, ALL, true),
            (1, 0, 0, false),
            (1, 1, ALL, true),
            (1, 4, ALL, true),
            (1, 5, ALL, true),
            (1, 1, ALL & !features::HOST_TSO4, false),
            (1, 4, ALL & !features::HOST_TSO6, false),
            (1, 5, ALL & !features::HOST_USO, false),
            (1, 0x81, ALL, true),
            (1, 0x81, ALL & !features::HOST_ECN, false),
            (0, 1, ALL, false),
            (1, 0x80, ALL, false),
            (1, 3, ALL, false),
            (1, 2, ALL, false),
        ] {
            let header = to_tap(header(flags, gso_type), features);
            assert_eq!(header.is_some(), passes, "{flags:#x} {gso_type:#x} {features:#x}");
        }
    }

    #[test]
    fn flags_that_only_a_device_sets_do_not_reach_the_tap() {
        let cleaned = to_tap(header(0xff, 1), ALL).unwrap();
        assert_eq!(cleaned, [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]);
    }

    #[test]
    fn the_guest_sees_how_many_buffers_a_frame_fills() {
        assert_eq!(to_guest(header(2, 0), 0x102, ALL).unwrap()[10..], [2, 1]);
        assert_eq!(to_guest(header(2, 0), 1, 0).unwrap()[0], 0);
    }

    #[test]
    fn only_what_the_driver_can_finish_reaches_the_guest() {
        for (flags, gso_type, needs) in [
            (1, 0, features::GUEST_CSUM),
            (1, 1, features::GUEST_TSO4),
            (1, 4, features::GUEST_TSO6),
            (1, 5, features::GUEST_USO6),
            (1, 0x81, features::GUEST_ECN),
        ] {
            assert!(to_guest(header(flags, gso_type), 1, ALL).is_some());
            assert!(to_guest(header(flags, gso_type), 1, ALL & !needs).is_none(), "{gso_type:#x}");
        }
        assert!(to_guest(header(1, 3), 1, ALL).is_none());
    }
}
