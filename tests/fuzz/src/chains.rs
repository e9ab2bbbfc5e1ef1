//! Descriptor chains out of bytes, for any virtio device.

use orlop_virtio::conformance::{Descriptor, Driver, HOLE, UPPER, UPPER_BYTES};
use vm_memory::{Bytes, GuestAddress};

use crate::input::Input;

/// Headers and tables of chains, each with room of its own, in memory where no ring and no other buffer is.
const HEADERS: u64 = 0x1000;
const TABLES: u64 = 0x2000;
const ROOM_BYTES: u64 = 0x100;
/// Where buffers lie that are inside memory.
const PLACE: u64 = 0x4000;
const PLACE_BYTES: u64 = 0x4000;

/// Where a buffer lies: mostly good places, and the edges of memory.
fn address(input: &mut Input<'_>) -> u64 {
    let near = u64::from(input.u16());
    match input.u8() % 8 {
        0..=3 => PLACE + near % PLACE_BYTES,
        4 => UPPER + near,
        5 => HOLE - near % 64,
        6 => UPPER + UPPER_BYTES - near % 64,
        _ => input.u64() | 1 << 40,
    }
}

fn descriptor(input: &mut Input<'_>) -> Descriptor {
    let flags = input.u8();
    let address = address(input);
    let len = match flags >> 4 & 3 {
        0 => u32::from(input.u8()),
        1 => 512 * u32::from(input.u8() % 16),
        2 => u32::from(input.u16() % 0x2000),
        // What is longer than memory is nowhere whole, so that no ring is written to.
        _ => input.u32() | 1 << 28,
    };
    Descriptor { address, len, flags: u16::from(flags & 7), next: u16::from(input.u8()) }
}

/// One chain, number `number` of at most 16, on one of the queues: `header` first if it is not empty, then buffers or an
/// indirect table.
pub fn post(driver: &mut Driver, input: &mut Input<'_>, number: u64, queue: u16, header: &[u8]) {
    let mut parts = Vec::new();
    let put = |address: u64, bytes: &[u8]| {
        driver.ram.write_slice(bytes, GuestAddress(address)).expect("it is inside memory");
        address
    };
    if !header.is_empty() {
        let address = put(HEADERS + number * ROOM_BYTES, header);
        parts.push(Descriptor { address, len: header.len() as u32, ..Descriptor::default() });
    }
    let count = input.u8();
    let rest: Vec<Descriptor> = (0..1 + count % 4).map(|_| descriptor(input)).collect();
    if count & 0x80 != 0 {
        let table: Vec<u8> = rest.iter().flat_map(Descriptor::bytes).collect();
        let address = put(TABLES + number * ROOM_BYTES, &table);
        parts.push(Descriptor {
            address,
            len: (table.len() as u32).wrapping_add(u32::from(count & 0x40)),
            flags: Descriptor::INDIRECT,
            next: 0,
        });
    } else {
        parts.extend(rest);
    }
    let content = input.bytes();
    // Descriptors in it are good for tables, anything in it for requests.
    put(PLACE, content);
    driver.post_chain(queue, &parts);
    driver.kick(queue);
}
