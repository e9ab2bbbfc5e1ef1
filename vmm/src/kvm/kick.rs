//! Gets a vCPU out of `KVM_RUN` from another thread, without a window in which the call is lost.
//!
//! `immediate_exit` (KVM api §5) is set first, the signal is sent second. A vCPU thread that has not entered
//! `KVM_RUN` yet sees the flag and returns at once; one that is inside is thrown out by the signal.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::KvmError;

/// The part of `kvm_run` that is mapped: the flag is in its first page.
const MAPPED_BYTES: usize = 4096;

/// The signal that kicks: it does nothing but interrupt.
fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Makes the kick signal harmless. Once per process, before the first vCPU runs.
pub fn install_kick_handler() -> Result<(), KvmError> {
    register_signal_handler(kick_signal(), nothing).map_err(KvmError::of("sigaction"))
}

/// Kicks one vCPU. Owns a mapping of its own of the vCPU's `kvm_run`, so it may outlive the vCPU.
pub struct Kicker {
    run: NonNull<kvm_run>,
}

#[expect(unsafe_code, reason = "a raw mapping may move between threads")]
// SAFETY: the mapping belongs to this value, and all that is done with it is an atomic store to one byte.
unsafe impl Send for Kicker {}
#[expect(unsafe_code, reason = "a raw mapping may be shared by threads")]
// SAFETY: as above.
unsafe impl Sync for Kicker {}

impl Kicker {
    /// A kicker for `vcpu`.
    pub(super) fn new(vcpu: &VcpuFd) -> Result<Self, KvmError> {
        #[expect(unsafe_code, reason = "mmap(2)")]
        // SAFETY: a new shared mapping at an address that the kernel chooses disturbs nothing.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAPPED_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(KvmError::Call { call: "mmap of kvm_run", source: io::Error::last_os_error() });
        }
        let run = NonNull::new(address.cast());
        run.map(|run| Self { run })
            .ok_or(KvmError::Call { call: "mmap of kvm_run", source: io::ErrorKind::InvalidData.into() })
    }

    /// Makes the vCPU return from `KVM_RUN` now, or from the next one at once. `thread` runs it.
    pub fn kick(&self, thread: VcpuThread) {
        self.set_immediate_exit(true);
        #[expect(unsafe_code, reason = "tgkill(2)")]
        // SAFETY: sending a signal touches no memory; if the thread has ended, the call fails and nothing happens.
        unsafe {
            libc::syscall(libc::SYS_tgkill, libc::c_long::from(libc::getpid()), thread.0, kick_signal());
        }
    }

    /// Sets or clears the flag alone.
    pub(super) fn set_immediate_exit(&self, on: bool) {
        #[expect(unsafe_code, reason = "a byte shared with the kernel and with other threads")]
        // SAFETY: `run` points to a live mapping of at least the first page of `kvm_run`, which holds the flag; this
        // process accesses that byte through atomics only.
        let flag = unsafe { AtomicU8::from_ptr(&raw mut (*self.run.as_ptr()).immediate_exit) };
        flag.store(u8::from(on), Ordering::SeqCst);
    }
}

impl Drop for Kicker {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "munmap(2)")]
        // SAFETY: this value made the mapping, nobody else has its address, and it ends here.
        unsafe {
            libc::munmap(self.run.as_ptr().cast(), MAPPED_BYTES);
        }
    }
}

/// A thread that runs a vCPU, as `gettid(2)` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuThread(pub i32);

impl VcpuThread {
    /// The calling thread.
    pub fn current() -> Self {
        #[expect(unsafe_code, reason = "gettid(2)")]
        // SAFETY: it takes nothing and always succeeds.
        Self(unsafe { libc::gettid() })
    }
}
