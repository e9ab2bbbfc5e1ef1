//! What follows from a spec without asking anybody: vCPU count and guest memory.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::cpu::Cpu;
use crate::domain::DomainSpec;

/// Sockets, cores and threads with the defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Sockets of the machine.
    pub sockets: u32,
    /// Cores of each socket.
    pub cores: u32,
    /// Threads of each core.
    pub threads: u32,
}

impl Topology {
    /// The number of vCPUs, or `None` where it does not fit 32 bits.
    pub fn vcpus(self) -> Option<u32> {
        self.sockets.checked_mul(self.cores)?.checked_mul(self.threads)
    }
}

impl Cpu {
    /// The topology that is asked for: what is unset or 0 counts as 1, as in KubeVirt.
    pub fn topology(&self) -> Topology {
        let or_one = |count: Option<u32>| count.unwrap_or(1).max(1);
        Topology { sockets: or_one(self.sockets), cores: or_one(self.cores), threads: or_one(self.threads) }
    }
}

impl DomainSpec {
    /// The topology that is asked for; one vCPU where nothing is said.
    pub fn topology(&self) -> Topology {
        self.cpu.as_ref().map_or(Topology { sockets: 1, cores: 1, threads: 1 }, Cpu::topology)
    }

    /// The guest's memory: `memory.guest`, else the memory request, else the memory limit.
    pub fn guest_memory(&self) -> Option<&Quantity> {
        let guest = self.memory.as_ref().and_then(|memory| memory.guest.as_ref());
        let resource = || {
            let resources = self.resources.as_ref()?;
            resources.requests.get("memory").or_else(|| resources.limits.get("memory"))
        };
        guest.or_else(resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unset_counts_as_one() {
        let cpu = Cpu { cores: Some(4), sockets: Some(0), ..Cpu::default() };
        assert_eq!(cpu.topology(), Topology { sockets: 1, cores: 4, threads: 1 });
        assert_eq!(DomainSpec::default().topology().vcpus(), Some(1));
    }

    #[test]
    fn a_product_beyond_32_bits_is_no_number_of_vcpus() {
        assert_eq!(Topology { sockets: 1 << 16, cores: 1 << 16, threads: 1 }.vcpus(), None);
    }

    #[test]
    fn guest_memory_falls_back_to_the_request_and_then_to_the_limit() {
        let domain = |json| serde_json::from_value::<DomainSpec>(json).unwrap();
        let both = domain(serde_json::json!({
            "devices": {}, "memory": {"guest": "1Gi"}, "resources": {"requests": {"memory": "2Gi"}}
        }));
        assert_eq!(both.guest_memory().unwrap().0, "1Gi");
        let limit = domain(serde_json::json!({ "devices": {}, "resources": {"limits": {"memory": "3Gi"}} }));
        assert_eq!(limit.guest_memory().unwrap().0, "3Gi");
        assert_eq!(domain(serde_json::json!({ "devices": {} })).guest_memory(), None);
    }
}
