//! What can be wrong with a tap before a guest uses it.

use std::io;
use std::os::fd::RawFd;

/// Why a tap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel has no tun driver, or the device node is not here.
    #[error("/dev/net/tun is missing: load the 'tun' module, or make the device available here")]
    NoDriver,
    /// The device node may not be opened.
    #[error("no permission to open /dev/net/tun: it must be readable and writable for this user")]
    DriverPermission,
    /// The name is empty, longer than 15 bytes, or has a character that no interface name has.
    #[error("'{0}' is not the name of a network interface")]
    BadName(String),
    /// No queue, or more than the kernel allows, were asked for.
    #[error("a tap has 1 to 256 queues, not {0}")]
    BadQueueCount(usize),
    /// There is no such interface in this network namespace.
    #[error("tap '{0}' is gone: there is no such interface in this network namespace")]
    Gone(String),
    /// The interface is of another kind.
    #[error("interface '{0}' is not a tap")]
    NotTap(String),
    /// Another process uses the tap.
    #[error("tap '{0}' is in use by another process")]
    Busy(String),
    /// The tap belongs to another user.
    #[error(
        "no permission to use tap '{0}': it must be owned by this user, or the process needs CAP_NET_ADMIN"
    )]
    Permission(String),
    /// Several queues were asked for, and the tap was made for one.
    #[error("tap '{name}' has a single queue, not {queues}: create it with 'multi_queue'")]
    SingleQueue {
        /// The interface.
        name: String,
        /// How many queues were asked for.
        queues: usize,
    },
    /// A descriptor that was passed in is not what it must be.
    #[error("descriptor {fd} (number {position} of those passed in) {problem}")]
    Descriptor {
        /// Position in the list, from 0.
        position: usize,
        /// The descriptor's number in this process.
        fd: RawFd,
        /// What is wrong with it.
        problem: DescriptorProblem,
    },
    /// The kernel refused something that it should not refuse.
    #[error("cannot {what} tap '{name}': {source}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// The interface, as far as it is known.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What is wrong with a descriptor that should be a tap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorProblem {
    /// It is some other file.
    #[error("is not a tap")]
    NotTap,
    /// It is `/dev/net/tun`, attached to no interface, or its interface is gone.
    #[error("is attached to no interface")]
    Detached,
    /// It carries IP packets, not Ethernet frames.
    #[error("is a tun, not a tap")]
    Tun,
    /// Frames have no virtio header.
    #[error("has no virtio header: open it with IFF_VNET_HDR")]
    NoVnetHeader,
    /// Frames have a protocol header.
    #[error("has a packet information header: open it with IFF_NO_PI")]
    PacketInformation,
    /// It belongs to another interface than the first one.
    #[error("is of interface '{found}', the first one is of '{first}'")]
    OtherInterface {
        /// The interface of the first descriptor.
        first: String,
        /// The interface of this one.
        found: String,
    },
    /// The tap has a single queue, and this is not the only descriptor.
    #[error("is of a tap with a single queue")]
    SingleQueue,
}
