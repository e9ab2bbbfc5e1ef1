//! Shows a forbidden system call as what it is.
//!
//! The filter turns such a call into SIGSYS on the thread that made it (`seccomp(2)`, `SECCOMP_RET_TRAP`). The handler
//! runs in the middle of anything, so it allocates nothing, locks nothing, and makes two calls: `write` and
//! `exit_group`.

use std::cell::Cell;

use syscalls::Sysno;
use vmm_sys_util::signal::register_signal_handler;

use super::ThreadKind;
use super::kind::KINDS;
use crate::exit;

thread_local! {
    /// The kind of this thread, by number; more than there are until it is confined.
    static KIND: Cell<u8> = const { Cell::new(u8::MAX) };
}

/// Where `siginfo_t` has the number of the call for SIGSYS (`sigaction(2)`, `si_syscall`), in units of `int`: after
/// signal, error, code, padding and the address of the instruction.
const SYSCALL_AT: usize = 6;

/// Longest report in bytes.
const LINE_BYTES: usize = 160;

/// Installs the handler.
pub fn install() -> Result<(), String> {
    register_signal_handler(libc::SIGSYS, handle).map_err(|e| e.to_string())
}

/// Notes what kind of thread this one is.
pub fn remember(kind: ThreadKind) {
    KIND.with(|cell| cell.set(kind as u8));
}

extern "C" fn handle(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    #[expect(unsafe_code, reason = "libc has no accessor for this field")]
    // SAFETY: the kernel hands a handler that was installed with SA_SIGINFO a whole siginfo_t, of 128 bytes.
    let number = unsafe { info.cast::<libc::c_int>().add(SYSCALL_AT).read() };
    let kind = KIND.try_with(Cell::get).ok().and_then(|kind| KINDS.get(usize::from(kind)));
    let mut line = Line::default();
    line.text("orlop-vmm: a thread of kind '");
    line.text(kind.map_or("unknown", |(_, name)| name));
    line.text("' made the system call ");
    let name = usize::try_from(number).ok().and_then(Sysno::new);
    line.text(name.map_or("unknown", |name| name.name()));
    line.text(" (");
    line.number(number.unsigned_abs());
    line.text("), which it may not make\n");
    #[expect(unsafe_code, reason = "write(2) and _exit(2), the calls that a handler may make")]
    // SAFETY: the buffer is valid for its length, and nothing runs after _exit.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len);
        libc::_exit(libc::c_int::from(exit::FORBIDDEN_CALL));
    }
}

/// A line of text without an allocator.
struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; LINE_BYTES], len: 0 }
    }
}

impl Line {
    /// Appends `text`, as much of it as there is room for.
    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
    }

    /// Appends `number` in decimal.
    fn number(&mut self, number: u32) {
        let mut divisor = 1_000_000_000;
        let mut started = false;
        while divisor > 0 {
            let digit = number / divisor % 10;
            started |= digit > 0 || divisor == 1;
            if started {
                self.text(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"][digit as usize]);
            }
            divisor /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_without_the_allocator() {
        let mut line = Line::default();
        line.text("call ");
        line.number(0);
        line.text(" ");
        line.number(1_000_257);
        assert_eq!(&line.bytes[..line.len], b"call 0 1000257");
        line.text(&"x".repeat(1000));
        assert_eq!(line.len, LINE_BYTES);
    }
}
