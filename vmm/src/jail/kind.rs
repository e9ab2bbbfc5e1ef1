//! Kinds of threads, as far as their system calls differ.

use std::fmt;

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ThreadKind {
    /// The first thread: driver and API.
    Main,
    /// Does the machine's work.
    Machine,
    /// Runs a vCPU.
    Vcpu,
    /// Serves a block device.
    Block,
    /// Serves a network card.
    Net,
    /// Serves a console.
    Console,
    /// Serves a source of entropy.
    Rng,
    /// Serves a balloon.
    Balloon,
    /// Serves a socket device.
    Vsock,
    /// Serves a SCSI controller.
    Scsi,
    /// Serves an AHCI controller.
    Ahci,
    /// Serves a device of a kind that has no filter of its own: what every device does, and nothing more.
    Device,
}

/// Every kind with its name, in the order of their numbers.
pub(super) const KINDS: [(ThreadKind, &str); 12] = [
    (ThreadKind::Main, "main"),
    (ThreadKind::Machine, "machine"),
    (ThreadKind::Vcpu, "vcpu"),
    (ThreadKind::Block, "virtio-blk"),
    (ThreadKind::Net, "virtio-net"),
    (ThreadKind::Console, "virtio-console"),
    (ThreadKind::Rng, "virtio-rng"),
    (ThreadKind::Balloon, "virtio-balloon"),
    (ThreadKind::Vsock, "virtio-vsock"),
    (ThreadKind::Scsi, "virtio-scsi"),
    (ThreadKind::Ahci, "ahci"),
    (ThreadKind::Device, "device"),
];

impl ThreadKind {
    /// The kind of a device's threads, by what the virtio frame calls it.
    pub fn device(name: &str) -> Self {
        KINDS.iter().find(|(_, known)| *known == name).map_or(Self::Device, |(kind, _)| *kind)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("unknown", |(_, name)| name)
    }
}

impl fmt::Display for ThreadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_number() {
        for (number, (kind, name)) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            assert_eq!(kind.name(), name);
            assert_eq!(ThreadKind::device(name), kind);
        }
        assert_eq!(ThreadKind::device("virtio-toaster"), ThreadKind::Device);
    }
}
