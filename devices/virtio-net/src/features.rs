//! Feature bits (virtio 1.3 §5.1.3) and what they mean for a tap.

use orlop_net::Offloads;
use virtio_bindings::virtio_net as v;

const fn bit(number: u32) -> u64 {
    1 << number
}

pub(crate) const CSUM: u64 = bit(v::VIRTIO_NET_F_CSUM);
pub(crate) const GUEST_CSUM: u64 = bit(v::VIRTIO_NET_F_GUEST_CSUM);
pub(crate) const CTRL_GUEST_OFFLOADS: u64 = bit(v::VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
pub(crate) const MTU: u64 = bit(v::VIRTIO_NET_F_MTU);
pub(crate) const MAC: u64 = bit(v::VIRTIO_NET_F_MAC);
pub(crate) const GUEST_TSO4: u64 = bit(v::VIRTIO_NET_F_GUEST_TSO4);
pub(crate) const GUEST_TSO6: u64 = bit(v::VIRTIO_NET_F_GUEST_TSO6);
pub(crate) const GUEST_ECN: u64 = bit(v::VIRTIO_NET_F_GUEST_ECN);
pub(crate) const HOST_TSO4: u64 = bit(v::VIRTIO_NET_F_HOST_TSO4);
pub(crate) const HOST_TSO6: u64 = bit(v::VIRTIO_NET_F_HOST_TSO6);
pub(crate) const HOST_ECN: u64 = bit(v::VIRTIO_NET_F_HOST_ECN);
pub(crate) const MRG_RXBUF: u64 = bit(v::VIRTIO_NET_F_MRG_RXBUF);
pub(crate) const STATUS: u64 = bit(v::VIRTIO_NET_F_STATUS);
pub(crate) const CTRL_VQ: u64 = bit(v::VIRTIO_NET_F_CTRL_VQ);
pub(crate) const CTRL_RX: u64 = bit(v::VIRTIO_NET_F_CTRL_RX);
pub(crate) const MQ: u64 = bit(v::VIRTIO_NET_F_MQ);
pub(crate) const CTRL_MAC_ADDR: u64 = bit(v::VIRTIO_NET_F_CTRL_MAC_ADDR);
pub(crate) const GUEST_USO4: u64 = bit(v::VIRTIO_NET_F_GUEST_USO4);
pub(crate) const GUEST_USO6: u64 = bit(v::VIRTIO_NET_F_GUEST_USO6);
pub(crate) const HOST_USO: u64 = bit(v::VIRTIO_NET_F_HOST_USO);

/// What the driver can switch with `VIRTIO_NET_CTRL_GUEST_OFFLOADS` (virtio 1.3 §5.1.6.5.6): the same bits.
pub(crate) const GUEST_OFFLOADS: u64 =
    GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_USO4 | GUEST_USO6;

/// Those among them with which frames longer than the MTU arrive.
const GUEST_LARGE: u64 = GUEST_TSO4 | GUEST_TSO6 | GUEST_USO4 | GUEST_USO6;

/// What a card with `pairs` pairs of queues offers on a tap that can hand over `tap`.
///
/// No filter is offered beyond `CTRL_RX`, whose commands a device may take as hints: the tap delivers what the host's
/// bridge decides.
pub(crate) fn offered(tap: Offloads, pairs: u16, mtu: bool) -> u64 {
    let mut features = MAC | MRG_RXBUF | STATUS | CTRL_VQ | CTRL_RX | CTRL_MAC_ADDR | CTRL_GUEST_OFFLOADS;
    for (offload, bits) in [
        // What a kernel hands over it takes as well; a tap without offloads has them in neither direction.
        (Offloads::CSUM, GUEST_CSUM | CSUM),
        (Offloads::TSO4, GUEST_TSO4 | HOST_TSO4),
        (Offloads::TSO6, GUEST_TSO6 | HOST_TSO6),
        (Offloads::ECN, GUEST_ECN | HOST_ECN),
        (Offloads::USO, GUEST_USO4 | GUEST_USO6 | HOST_USO),
    ] {
        if tap.contains(offload) {
            features |= bits;
        }
    }
    if pairs > 1 {
        features |= MQ;
    }
    if mtu {
        features |= MTU;
    }
    features
}

/// What the tap may hand over when the driver takes `offloads`. What is asked for without its requirements is left out
/// (virtio 1.3 §5.1.3.1).
pub(crate) fn of_tap(offloads: u64) -> Offloads {
    let has = |bits| offloads & bits == bits;
    let mut tap = Offloads::empty();
    if !has(GUEST_CSUM) {
        return tap;
    }
    tap |= Offloads::CSUM;
    tap.set(Offloads::TSO4, has(GUEST_TSO4));
    tap.set(Offloads::TSO6, has(GUEST_TSO6));
    tap.set(Offloads::ECN, has(GUEST_ECN) && offloads & (GUEST_TSO4 | GUEST_TSO6) != 0);
    tap.set(Offloads::USO, has(GUEST_USO4 | GUEST_USO6));
    tap
}

/// Whether frames longer than the MTU arrive.
pub(crate) fn receives_large(offloads: u64) -> bool {
    offloads & GUEST_CSUM != 0 && offloads & GUEST_LARGE != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offload_without_checksums_is_none() {
        assert_eq!(of_tap(GUEST_TSO4 | GUEST_USO4 | GUEST_USO6), Offloads::empty());
        assert_eq!(of_tap(GUEST_CSUM | GUEST_ECN), Offloads::CSUM);
        assert_eq!(of_tap(GUEST_CSUM | GUEST_USO4), Offloads::CSUM);
        assert_eq!(of_tap(GUEST_OFFLOADS), Offloads::all());
    }

    #[test]
    fn what_the_tap_cannot_hand_over_is_not_offered() {
        let features = offered(Offloads::CSUM, 1, false);
        assert_eq!(features & (GUEST_OFFLOADS | HOST_USO | MQ | MTU), GUEST_CSUM);
        let features = offered(Offloads::empty(), 1, false);
        assert_eq!(features & (GUEST_OFFLOADS | CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_USO), 0);
        let features = offered(Offloads::all(), 2, true);
        assert_eq!(features & GUEST_OFFLOADS, GUEST_OFFLOADS);
        assert_eq!(features & (HOST_USO | MQ | MTU), HOST_USO | MQ | MTU);
    }
}
