//! What a processor finds where it starts: a reset of the machine.
//!
//! On a hardware-reduced machine without EFI, Linux reboots by a jump in real mode to where a BIOS begins
//! (`arch/x86/kernel/reboot.c`: the type `efi` falls through to `bios`). A kernel that was started directly has no BIOS.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

/// F000:FFF0, the first instruction of a BIOS below 1 MiB: 16 bytes, kept from the guest by its memory map.
pub const RESET_VECTOR: u64 = 0xf_fff0;

/// Writes code to [`RESET_VECTOR`] that resets the machine by writing `value` to `port`.
pub fn write<M: GuestMemoryBackend>(memory: &M, port: u16, value: u8) -> Result<(), GuestMemoryError> {
    memory.write_slice(&code(port, value), GuestAddress(RESET_VECTOR))
}

/// `cli; mov dx, port; mov al, value; out dx, al; halt: hlt; jmp halt`
fn code(port: u16, value: u8) -> [u8; 10] {
    let [low, high] = port.to_le_bytes();
    [0xfa, 0xba, low, high, 0xb0, value, 0xee, 0xf4, 0xeb, 0xfd]
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestMemoryMmap;

    use super::*;

    #[test]
    fn the_code_fits_between_the_vector_and_1_mib() {
        let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write(&memory, 0xcf9, 6).unwrap();
        let code: [u8; 10] = memory.read_obj(GuestAddress(RESET_VECTOR)).unwrap();
        assert_eq!(code, [0xfa, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4, 0xeb, 0xfd]);
    }
}
