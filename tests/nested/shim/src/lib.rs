//! Lets the virtual node survive one assertion of its QEMU; see the README.

use std::arch::asm;
use std::ffi::{CStr, c_char, c_int, c_void};

/// Functions in which QEMU asserts that it holds its big lock, and what the assertion's text ends with.
const FUNCTIONS: [&str; 2] = ["tcg_handle_interrupt", "cpu_interrupt"];
const EXPRESSION: &str = "locked()";

/// What a function of the System V ABI keeps for its caller, and where that goes on.
#[repr(C)]
#[derive(Default)]
struct Frame {
    rbx: usize,
    rbp: usize,
    r12: usize,
    r13: usize,
    r14: usize,
    r15: usize,
    rsp: usize,
    rip: usize,
}

/// DWARF numbers of those registers, in that order (System V ABI, AMD64 supplement §3.6.2).
const KEPT: [c_int; 6] = [3, 6, 12, 13, 14, 15];
/// Frames from here to the one to return to: ours, the asserting function's, its caller's.
const CALLER: usize = 2;

/// Continue, and stop (Itanium C++ ABI §1.2).
const NO_REASON: c_int = 0;
const END_OF_STACK: c_int = 5;

type Trace = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;

#[expect(unsafe_code, reason = "libgcc's unwinder")]
unsafe extern "C" {
    fn _Unwind_Backtrace(trace: Trace, argument: *mut c_void) -> c_int;
    fn _Unwind_GetGR(context: *mut c_void, register: c_int) -> usize;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn _Unwind_GetCFA(context: *mut c_void) -> usize;
}

/// How far a walk up the stack is.
#[derive(Default)]
struct Walk {
    depth: usize,
    found: Option<Frame>,
}

#[expect(unsafe_code, reason = "called by libgcc's unwinder")]
unsafe extern "C" fn step(context: *mut c_void, walk: *mut c_void) -> c_int {
    // SAFETY: `caller` hands a live `Walk` to the unwinder, which passes it on and calls us one frame at a time.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    if walk.depth < CALLER {
        walk.depth += 1;
        return NO_REASON;
    }
    // SAFETY: the unwinder's context is valid for this call, and these registers are numbered in every frame.
    let [rbx, rbp, r12, r13, r14, r15] = KEPT.map(|register| unsafe { _Unwind_GetGR(context, register) });
    // SAFETY: as above.
    let (rsp, rip) = unsafe { (_Unwind_GetCFA(context), _Unwind_GetIP(context)) };
    walk.found = Some(Frame { rbx, rbp, r12, r13, r14, r15, rsp, rip });
    END_OF_STACK
}

/// The registers of the caller of whoever called our caller.
#[inline(always)]
fn caller() -> Option<Frame> {
    let mut walk = Walk::default();
    #[expect(unsafe_code, reason = "libgcc's unwinder")]
    // SAFETY: `step` is given the walk that it expects, which outlives the call.
    unsafe {
        _Unwind_Backtrace(step, (&raw mut walk).cast())
    };
    walk.found
}

/// Stands in for glib's function of this name, which says what failed and ends the process.
///
/// # Safety
/// Called by glib's macros only: the texts are C strings or null, and the caller expects no return.
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(unsafe_code, reason = "takes the place of a C function")]
pub unsafe extern "C" fn g_assertion_message_expr(
    _domain: *const c_char,
    file: *const c_char,
    line: c_int,
    function: *const c_char,
    expression: *const c_char,
) -> ! {
    let text = |text: *const c_char| {
        if text.is_null() {
            return "".into();
        }
        // SAFETY: glib's macros pass string literals.
        unsafe { CStr::from_ptr(text) }.to_string_lossy()
    };
    let (function, expression) = (text(function), text(expression));
    if FUNCTIONS.contains(&function.as_ref())
        && expression.ends_with(EXPRESSION)
        && let Some(frame) = caller()
    {
        // SAFETY: the frame is that of the asserting function's caller, live below us on this thread's stack, with the
        // registers as the asserting function's return would leave them. Neither it nor we own anything that has to be
        // dropped: the texts are borrowed.
        unsafe {
            asm!(
                "mov rbx, [rax]",
                "mov rbp, [rax + 8]",
                "mov r12, [rax + 16]",
                "mov r13, [rax + 24]",
                "mov r14, [rax + 32]",
                "mov r15, [rax + 40]",
                "mov rcx, [rax + 56]",
                "mov rsp, [rax + 48]",
                "jmp rcx",
                in("rax") &raw const frame,
                options(noreturn),
            )
        }
    }
    eprintln!("{}:{line}: {function}: assertion failed: {expression}", text(file));
    std::process::abort()
}
