//! For tests: what reads a configuration, as a function of bytes.

use orlop_api::config::VmConfig;

use crate::machine::plan::{HostFacts, Seed, plan};

/// Treats `bytes` as the body of `PUT /vm`, on a host with eight vCPUs and 46 bits of address. What is planned has its
/// devices in places of their own and inside what the host can address.
pub fn config(bytes: &[u8]) {
    let Ok(config) = serde_json::from_slice::<VmConfig>(bytes) else { return };
    let facts = HostFacts { vcpus_max: 8, address_bits: 46, seed: Seed([7; 16]), smm: true };
    let plan = match plan(config, &facts) {
        Ok(plan) => plan,
        Err(refused) => {
            assert!(!refused.field.is_empty() && !refused.problem.is_empty(), "refused without a reason");
            return;
        }
    };
    assert!(plan.layout.end() <= 1 << 46, "memory where the host's guests cannot address it");
    for (index, slot) in plan.slots.iter().enumerate() {
        let same = plan.slots[..index].iter().find(|other| other.bdf == slot.bdf);
        assert!(same.is_none(), "two devices at {:?}", slot.bdf);
    }
}
