//! The tables: what each kind of thread does, and why.

use crate::jail::ThreadKind;

/// What one kind may do.
pub struct Allowed {
    /// Calls with any arguments.
    pub calls: Vec<i64>,
    /// Requests of `ioctl`.
    pub requests: Vec<u64>,
    /// Commands of `fcntl`.
    pub commands: Vec<u64>,
}

/// `KVM_RUN`: the request that a vCPU makes all the time.
pub const KVM_FIRST: u64 = io(0x80);

/// `_IO(KVMIO, number)` (`linux/kvm.h`).
const fn io(number: u64) -> u64 {
    0xae00 | number
}

/// `_IOW(KVMIO, number, size)`.
const fn iow(number: u64, size: u64) -> u64 {
    1 << 30 | size << 16 | io(number)
}

/// `_IOR(KVMIO, number, size)`.
const fn ior(number: u64, size: u64) -> u64 {
    2 << 30 | size << 16 | io(number)
}

/// What every thread does: memory, locks, time, waiting, event files, its end, and the end of the process.
const EVERYONE: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// What a thread does that changes a device's registers: doorbells are placed, connections ended, timers set. A write
/// to a register may stop a device's thread and take over what it had.
const DEVICE_REGISTERS: &[i64] = &[
    libc::SYS_fallocate,
    libc::SYS_shutdown,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
];

/// What a firmware's write to its flash chip does: the file that keeps it is written.
const FLASH: &[i64] = &[libc::SYS_fdatasync, libc::SYS_pwrite64];

/// Streams of bytes between a device and a peer on the host. Where it made a socket's file, it looks at that before it
/// removes it.
const STREAMS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_newfstatat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_statx,
    libc::SYS_unlink,
];

const KVM_SIGNAL_MSI: u64 = iow(0xa5, 32);
const KVM_IRQ_LINE: u64 = iow(0x61, 8);
const KVM_IOEVENTFD: u64 = iow(0x79, 64);
/// RAM is taken away at the end; a flash chip is shown and hidden as its commands go.
const KVM_SET_USER_MEMORY_REGION: u64 = iow(0x46, 32);

/// What a vCPU thread asks of KVM: to run, and to be put back to power-on.
const KVM_VCPU: &[u64] = &[
    KVM_FIRST,
    ior(0x81, 144),  // KVM_GET_REGS
    ior(0x9f, 64),   // KVM_GET_VCPU_EVENTS
    iow(0x82, 144),  // KVM_SET_REGS
    ior(0x83, 312),  // KVM_GET_SREGS
    iow(0x84, 312),  // KVM_SET_SREGS
    iow(0x89, 8),    // KVM_SET_MSRS
    iow(0x8d, 416),  // KVM_SET_FPU
    iow(0x8f, 1024), // KVM_SET_LAPIC
    iow(0x99, 4),    // KVM_SET_MP_STATE
    iow(0xa0, 64),   // KVM_SET_VCPU_EVENTS
    iow(0xa2, 128),  // KVM_SET_DEBUGREGS
    iow(0xa7, 392),  // KVM_SET_XCRS
    io(0xad),        // KVM_KVMCLOCK_CTRL
];

/// What the machine's thread asks of KVM: interrupt controllers and timer put back to power-on, slots taken away.
const KVM_MACHINE: &[u64] = &[
    ior(0x63, 520), // KVM_SET_IRQCHIP
    iow(0xa0, 112), // KVM_SET_PIT2
    KVM_SET_USER_MEMORY_REGION,
];

/// What every thread asks of `fcntl`: unoptimised builds ask whether a descriptor is open before they close it.
const IS_OPEN: i32 = libc::F_GETFD;
/// What streams ask of it.
const FLAGS: [i32; 3] = [libc::F_DUPFD_CLOEXEC, libc::F_GETFL, libc::F_SETFL];
/// What the last one to hold a disk asks of it: to give up its lock.
const UNLOCK: i32 = libc::F_OFD_SETLK;

/// What a medium is asked when it is put into a drive: its flags, its lock, and who holds that.
const MEDIUM: [i32; 4] = [libc::F_GETFL, libc::F_SETFL, UNLOCK, libc::F_OFD_GETLK];
/// What a block device is asked then: its block sizes (`linux/fs.h`, `BLKSSZGET`, `BLKPBSZGET`).
const BLOCK_SIZES: &[u64] = &[0x1268, 0x127b];

/// What a network card asks of its tap (`linux/if_tun.h`): offloads, queues, header length.
const TAP: &[u64] = &[0x4004_54d0, 0x4004_54d9, 0x4004_54d8];

/// What the terminal is asked: its mode, kept and brought back.
const TERMINAL: &[u64] = &[libc::TCGETS, libc::TCSETS];

/// What `kind` may do.
pub fn of(kind: ThreadKind) -> Allowed {
    let (calls, requests): (&[&[i64]], &[&[u64]]) = match kind {
        ThreadKind::Main => (
            &[
                STREAMS,
                &[
                    // Whatever a peer of the API does.
                    libc::SYS_getpeername,
                    libc::SYS_getsockname,
                    libc::SYS_setsockopt,
                    libc::SYS_poll,
                    libc::SYS_ppoll,
                    // The socket's file is looked at before it is removed, and standard files before they are used.
                    libc::SYS_fstat,
                    libc::SYS_lstat,
                    libc::SYS_newfstatat,
                    libc::SYS_stat,
                    libc::SYS_statx,
                    libc::SYS_unlinkat,
                    // The process's own memory and time, for the metrics.
                    libc::SYS_getrusage,
                    libc::SYS_pread64,
                    libc::SYS_lseek,
                    // The heap's size is a matter of the process.
                    libc::SYS_prctl,
                ],
            ],
            &[TERMINAL, &[libc::FIONBIO], &[KVM_IRQ_LINE]],
        ),
        ThreadKind::Machine => (
            &[
                DEVICE_REGISTERS,
                // The kernel is read again; sockets are looked at before they are removed.
                &[libc::SYS_lseek, libc::SYS_newfstatat, libc::SYS_pread64, libc::SYS_readv, libc::SYS_statx],
                FLASH,
                // A medium is looked at, and its lock waited for.
                &[libc::SYS_clock_nanosleep, libc::SYS_fstat],
                // A disk grows; the last one to hold an image writes its tables, with the calls of flash.
                &[libc::SYS_ftruncate],
            ],
            &[BLOCK_SIZES, KVM_MACHINE, TAP, &[KVM_SIGNAL_MSI, KVM_IRQ_LINE, KVM_IOEVENTFD]],
        ),
        ThreadKind::Vcpu => (
            &[DEVICE_REGISTERS, FLASH],
            &[KVM_VCPU, TAP, &[KVM_SIGNAL_MSI, KVM_IRQ_LINE, KVM_IOEVENTFD, KVM_SET_USER_MEMORY_REGION]],
        ),
        ThreadKind::Block | ThreadKind::Scsi | ThreadKind::Ahci => (
            &[&[
                libc::SYS_fallocate,
                libc::SYS_fdatasync,
                libc::SYS_ftruncate,
                libc::SYS_io_uring_enter,
                libc::SYS_pread64,
                libc::SYS_preadv,
                libc::SYS_preadv2,
                libc::SYS_pwrite64,
                libc::SYS_pwritev,
                libc::SYS_pwritev2,
                libc::SYS_timerfd_gettime,
                libc::SYS_timerfd_settime,
            ]],
            &[&[KVM_SIGNAL_MSI]],
        ),
        ThreadKind::Net => (
            &[&[libc::SYS_readv, libc::SYS_timerfd_gettime, libc::SYS_timerfd_settime]],
            &[TAP, &[KVM_SIGNAL_MSI]],
        ),
        ThreadKind::Console => (&[STREAMS], &[&[KVM_SIGNAL_MSI, libc::FIONBIO]]),
        ThreadKind::Rng => (&[&[libc::SYS_timerfd_gettime, libc::SYS_timerfd_settime]], &[&[KVM_SIGNAL_MSI]]),
        ThreadKind::Balloon => (&[&[libc::SYS_fallocate]], &[&[KVM_SIGNAL_MSI]]),
        ThreadKind::Vsock => (
            &[
                STREAMS,
                &[libc::SYS_connect, libc::SYS_socket, libc::SYS_timerfd_gettime, libc::SYS_timerfd_settime],
            ],
            &[&[KVM_SIGNAL_MSI, libc::FIONBIO]],
        ),
        ThreadKind::Device => (&[], &[&[KVM_SIGNAL_MSI]]),
    };
    let commands: &[i32] = match kind {
        ThreadKind::Main | ThreadKind::Console | ThreadKind::Vsock => &FLAGS,
        ThreadKind::Machine => &MEDIUM,
        ThreadKind::Block | ThreadKind::Scsi | ThreadKind::Ahci => &[UNLOCK],
        _ => &[],
    };
    Allowed {
        commands: commands
            .iter()
            .chain(&[IS_OPEN])
            .map(|command| u64::from(command.unsigned_abs()))
            .collect(),
        calls: EVERYONE.iter().chain(calls.iter().copied().flatten()).copied().collect(),
        requests: requests.iter().copied().flatten().copied().collect(),
    }
}
