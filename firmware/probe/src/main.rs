//! Entry of the probe guest: from PVH's 32-bit start to [`orlop_probe::run`] in long mode.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the entry is assembly, and names are exported to it and to the compiler")]

use core::arch::global_asm;
use core::panic::PanicInfo;

use orlop_probe::machine::{Exception, Machine};

// The PVH note, page tables that map the first 64 GiB to themselves, long mode with SSE, then Rust. Memory that the
// file does not fill (.bss) is zero at power-on.
global_asm!(include_str!("start.s"));

/// Called by the start code, once, with the address of PVH's start info and of the end of the image.
#[unsafe(no_mangle)]
extern "C" fn probe_main(start_info: u64, image_end: u64) -> ! {
    // SAFETY: the start code has mapped the first 64 GiB to themselves, and nothing of this program (image, stack)
    // lies at or above `image_end`, which the linker script defines as the end of everything.
    let machine = unsafe { Machine::new(start_info, image_end) };
    orlop_probe::run(machine)
}

/// Called by the exception stubs with what the processor pushed. Does not return.
#[unsafe(no_mangle)]
extern "C" fn probe_exception(number: u64, code: u64, rip: u64) -> ! {
    orlop_probe::exception(Exception { number, code, rip })
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    orlop_probe::panicked(info)
}

/// The compiler calls these; there is no library to bring them.
mod memory {
    use core::arch::asm;

    /// C's memcpy.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        // SAFETY: the caller promises `len` bytes at both addresses that do not overlap.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
        to
    }

    /// C's memmove.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        if (to as usize).wrapping_sub(from as usize) >= len {
            // SAFETY: as the caller promises; a forward copy does not overwrite what it has yet to read.
            return unsafe { memcpy(to, from, len) };
        }
        // SAFETY: `len` is not 0 here, so both last bytes exist; copying backwards reads before it overwrites.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") len => _, inout("rdi") to.add(len - 1) => _,
                inout("rsi") from.add(len - 1) => _, options(nostack));
        }
        to
    }

    /// C's memset.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
        // SAFETY: the caller promises `len` bytes at `to`.
        unsafe {
            asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") value.to_le_bytes()[0],
                options(nostack, preserves_flags));
        }
        to
    }

    /// C's memcmp.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        for i in 0..len {
            // SAFETY: the caller promises `len` bytes at both addresses.
            let (a, b) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    /// C's bcmp.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
        // SAFETY: the same promise.
        unsafe { memcmp(a, b, len) }
    }
}
