//! The control queue (virtio 1.3 §5.1.6.5): a class, a command, its data, and one byte back.

use orlop_virtio::{Buffers, Fault, QueueIo};
use virtio_bindings::virtio_net as v;

use crate::features;
use crate::shared::{Shared, is_station};

/// The longest command that is looked at: two address tables of some hundred entries each.
const COMMAND_MAX_BYTES: usize = 4096;

/// Carries out up to `budget` commands of `queue`; says whether more may be there.
pub(crate) fn serve(io: &mut QueueIo, queue: usize, shared: &Shared, budget: usize) -> Result<bool, Fault> {
    for _ in 0..budget {
        let Some(request) = io.pop(queue)? else {
            if io.enable_notification(queue)? {
                continue;
            }
            io.notify(queue)?;
            return Ok(false);
        };
        let answer = if carry_out(&request.readable, io.features(), shared).is_some() {
            v::VIRTIO_NET_OK
        } else {
            v::VIRTIO_NET_ERR
        };
        let [answer, ..] = answer.to_le_bytes();
        let written = usize::from(request.writable.copy_from(&[answer]).is_ok());
        io.push(queue, request.head, written)?;
    }
    io.notify(queue)?;
    Ok(true)
}

/// Carries out one command; `None` if it is malformed, unknown, or was not negotiated.
fn carry_out(readable: &Buffers, features: u64, shared: &Shared) -> Option<()> {
    if readable.len() > COMMAND_MAX_BYTES {
        return None;
    }
    let mut bytes = vec![0; readable.len()];
    readable.copy_to(&mut bytes).ok()?;
    let (&[class, command], data) = bytes.split_first_chunk()?;
    let negotiated = |feature| (features & feature == feature).then_some(());
    match (u32::from(class), u32::from(command)) {
        // A device may deliver more than it was asked for; the tap delivers what the host's bridge decides.
        (v::VIRTIO_NET_CTRL_RX, v::VIRTIO_NET_CTRL_RX_PROMISC | v::VIRTIO_NET_CTRL_RX_ALLMULTI) => {
            negotiated(features::CTRL_RX)?;
            matches!(data, [0 | 1]).then_some(())
        }
        (v::VIRTIO_NET_CTRL_MAC, v::VIRTIO_NET_CTRL_MAC_TABLE_SET) => {
            negotiated(features::CTRL_RX)?;
            let after_stations = skip_table(data)?;
            skip_table(after_stations)?.is_empty().then_some(())
        }
        (v::VIRTIO_NET_CTRL_MAC, v::VIRTIO_NET_CTRL_MAC_ADDR_SET) => {
            negotiated(features::CTRL_MAC_ADDR)?;
            let mac = data.try_into().ok().filter(|mac| is_station(*mac))?;
            shared.set_mac(mac);
            Some(())
        }
        (v::VIRTIO_NET_CTRL_MQ, v::VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) => {
            negotiated(features::MQ)?;
            let pairs = u16::from_le_bytes(data.try_into().ok()?);
            if pairs == 0 || pairs > shared.pairs_max() {
                return None;
            }
            shared.set_pairs(pairs);
            shared.apply_to_tap();
            Some(())
        }
        (v::VIRTIO_NET_CTRL_GUEST_OFFLOADS, v::VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) => {
            negotiated(features::CTRL_GUEST_OFFLOADS)?;
            let offloads = u64::from_le_bytes(data.try_into().ok()?);
            if offloads & !(features & features::GUEST_OFFLOADS) != 0 {
                return None;
            }
            shared.set_offloads(offloads);
            shared.apply_to_tap();
            Some(())
        }
        _ => None,
    }
}

/// What follows `struct virtio_net_ctrl_mac { le32 entries; u8 macs[entries][6]; }`.
fn skip_table(data: &[u8]) -> Option<&[u8]> {
    let (entries, rest) = data.split_first_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*entries)).ok()?.checked_mul(6)?;
    rest.get(len..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_tables_must_be_as_long_as_they_say() {
        let table = |entries: u32, len: usize| [entries.to_le_bytes().as_slice(), &vec![7; len]].concat();
        assert_eq!(skip_table(&table(0, 0)), Some(&[][..]));
        assert_eq!(skip_table(&table(2, 13)), Some(&[7][..]));
        assert_eq!(skip_table(&table(2, 11)), None);
        assert_eq!(skip_table(&table(u32::MAX, 12)), None);
        assert_eq!(skip_table(&[1, 0, 0]), None);
    }
}
