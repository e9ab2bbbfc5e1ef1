//! How vCPUs are numbered: the APIC ids of sockets, cores and threads.
//!
//! An APIC id is three bit fields, thread lowest, each as wide as its largest number needs (SDM vol 3 §9.9.1). Where a
//! count is not a power of two, ids have gaps.

/// Most vCPUs of one machine.
pub const VCPUS_MAX: u32 = 64;

/// Sockets, cores and threads of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    sockets: u32,
    cores: u32,
    threads: u32,
}

/// A topology that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{sockets} sockets of {cores} cores of {threads} threads: each must be at least 1 and their product at most {VCPUS_MAX}"
)]
pub struct TopologyError {
    /// Sockets.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
}

impl Topology {
    /// A machine of `sockets` × `cores` × `threads` vCPUs, 1 to [`VCPUS_MAX`].
    pub fn new(sockets: u32, cores: u32, threads: u32) -> Result<Self, TopologyError> {
        let vcpus = sockets.checked_mul(cores).and_then(|n| n.checked_mul(threads));
        match vcpus {
            Some(1..=VCPUS_MAX) => Ok(Self { sockets, cores, threads }),
            _ => Err(TopologyError { sockets, cores, threads }),
        }
    }

    /// Number of vCPUs.
    pub fn vcpus(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }

    /// Sockets.
    pub fn sockets(&self) -> u32 {
        self.sockets
    }

    /// Cores per socket.
    pub fn cores(&self) -> u32 {
        self.cores
    }

    /// Threads per core.
    pub fn threads(&self) -> u32 {
        self.threads
    }

    /// Bits of an APIC id that number the threads of a core: the shift to the core's number (CPUID leaf 0xB, level 0).
    pub fn thread_bits(&self) -> u32 {
        bits_for(self.threads)
    }

    /// Bits of an APIC id that number the cores of a socket.
    pub fn core_bits(&self) -> u32 {
        bits_for(self.cores)
    }

    /// The shift from an APIC id to the socket's number (CPUID leaf 0xB, level 1).
    pub fn socket_shift(&self) -> u32 {
        self.thread_bits() + self.core_bits()
    }

    /// APIC id of vCPU `index`, counted through threads, then cores, then sockets. Indices past the last vCPU go on
    /// in the same pattern.
    pub fn apic_id(&self, index: u32) -> u32 {
        let thread = index % self.threads;
        let core = index / self.threads % self.cores;
        let socket = index / self.threads / self.cores;
        thread | core << self.thread_bits() | socket << self.socket_shift()
    }

    /// APIC ids of all vCPUs in order.
    pub fn apic_ids(&self) -> Vec<u32> {
        (0..self.vcpus()).map(|index| self.apic_id(index)).collect()
    }
}

/// Bits needed to number `count` things from 0.
fn bits_for(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(sockets: u32, cores: u32, threads: u32) -> Vec<u32> {
        Topology::new(sockets, cores, threads).unwrap().apic_ids()
    }

    #[test]
    fn powers_of_two_leave_no_gaps() {
        assert_eq!(ids(1, 1, 1), [0]);
        assert_eq!(ids(1, 4, 1), [0, 1, 2, 3]);
        assert_eq!(ids(2, 2, 2), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(ids(64, 1, 1), (0..64).collect::<Vec<_>>());
    }

    #[test]
    fn other_counts_leave_gaps() {
        assert_eq!(ids(2, 3, 1), [0, 1, 2, 4, 5, 6]);
        assert_eq!(ids(2, 3, 2), [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
    }

    #[test]
    fn ids_are_distinct_and_ascending() {
        for sockets in 1..=8 {
            for cores in 1..=8 {
                for threads in 1..=2 {
                    let Ok(topology) = Topology::new(sockets, cores, threads) else { continue };
                    assert!(topology.apic_ids().windows(2).all(|w| w[0] < w[1]), "{topology:?}");
                }
            }
        }
    }

    #[test]
    fn none_and_too_many_are_refused() {
        for (sockets, cores, threads) in
            [(0, 1, 1), (1, 0, 1), (1, 1, 0), (65, 1, 1), (u32::MAX, u32::MAX, 2)]
        {
            assert!(Topology::new(sockets, cores, threads).is_err());
        }
    }
}
