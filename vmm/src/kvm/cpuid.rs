//! What the guest's processors say of themselves: KVM's answer, with this machine's topology put in. Pure.
//!
//! Sources: SDM vol 2 `CPUID`, vol 3 §9.9; AMD APM vol 3 appendix E; Linux `Documentation/virt/kvm/x86/cpuid.rst`.

use std::fmt::Write;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use orlop_firmware::topology::Topology;

/// What the host gives to choose from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostCpu {
    /// `KVM_GET_SUPPORTED_CPUID`.
    pub supported: Vec<kvm_cpuid_entry2>,
    /// Whether the local APIC's timer may run by TSC deadline.
    pub tsc_deadline: bool,
}

/// Vendor of the processor, as far as leaves differ by it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vendor {
    Intel,
    Amd,
    Other,
}

const FEATURES: u32 = 0x1;
const CACHES: u32 = 0x4;
const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_V2: u32 = 0x1f;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const ADDRESS_SIZES: u32 = 0x8000_0008;
const AMD_CACHES: u32 = 0x8000_001d;
const AMD_TOPOLOGY: u32 = 0x8000_001e;
const AMD_TOPOLOGY_V2: u32 = 0x8000_0026;

/// Leaf 1, ECX: x2APIC, TSC deadline, hypervisor present. EDX: more than one logical processor.
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const OSXSAVE: u32 = 1 << 27;
const HYPERVISOR: u32 = 1 << 31;
const HTT: u32 = 1 << 28;
/// Leaf 0x80000001, ECX: HTT means cores, not threads.
const CMP_LEGACY: u32 = 1 << 1;
/// Types of a level in leaf 0xB, ECX bits 15:8.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

impl HostCpu {
    fn leaf(&self, function: u32) -> Option<&kvm_cpuid_entry2> {
        self.supported.iter().find(|e| e.function == function && e.index == 0)
    }

    fn vendor(&self) -> Vendor {
        let Some(leaf) = self.leaf(0) else { return Vendor::Other };
        let name: Vec<u8> = [leaf.ebx, leaf.edx, leaf.ecx].into_iter().flat_map(u32::to_le_bytes).collect();
        match name.as_slice() {
            b"GenuineIntel" => Vendor::Intel,
            b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
            _ => Vendor::Other,
        }
    }

    /// Width of a guest-physical address in bits (leaf 0x80000008, EAX bits 7:0).
    pub fn address_bits(&self) -> u32 {
        self.leaf(ADDRESS_SIZES).map_or(36, |leaf| leaf.eax & 0xff)
    }
}

/// The leaves of vCPU `index` of a machine of `topology`.
pub fn guest_cpuid(host: &HostCpu, topology: &Topology, index: u32) -> Vec<kvm_cpuid_entry2> {
    let vendor = host.vendor();
    let replaced = [TOPOLOGY, TOPOLOGY_V2, AMD_TOPOLOGY_V2];
    let kept = host.supported.iter().filter(|e| !replaced.contains(&e.function)).copied();
    let mut leaves: Vec<kvm_cpuid_entry2> = kept.collect();
    for leaf in &mut leaves {
        match leaf.function {
            FEATURES => features(leaf, host.tsc_deadline, topology, index),
            CACHES if vendor == Vendor::Intel => intel_cache(leaf, topology),
            EXTENDED_FEATURES if vendor == Vendor::Amd && per_socket(topology) > 1 => leaf.ecx |= CMP_LEGACY,
            ADDRESS_SIZES if vendor == Vendor::Amd => amd_size(leaf, topology),
            AMD_CACHES if vendor == Vendor::Amd => amd_cache(leaf, topology),
            AMD_TOPOLOGY if vendor == Vendor::Amd => amd_topology(leaf, topology, index),
            _ => {}
        }
    }
    let newest = host.leaf(0).map_or(0, |leaf| leaf.eax);
    for function in [TOPOLOGY, TOPOLOGY_V2] {
        let known = function == TOPOLOGY || vendor == Vendor::Intel;
        if newest >= function && known {
            leaves.extend(levels(function, topology, index));
        }
    }
    leaves
}

/// The leaves as text, one a line, for golden files and for people.
pub fn describe(leaves: &[kvm_cpuid_entry2]) -> String {
    let mut sorted: Vec<_> = leaves.iter().collect();
    sorted.sort_by_key(|e| (e.function, e.index));
    let mut text = String::new();
    for e in sorted {
        let (function, index) = (e.function, e.index);
        let (eax, ebx, ecx, edx) = (e.eax, e.ebx, e.ecx, e.edx);
        let _ = writeln!(text, "{function:08x}.{index:02x} {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}");
    }
    text
}

/// Logical processors in a socket.
fn per_socket(topology: &Topology) -> u32 {
    topology.cores() * topology.threads()
}

fn features(leaf: &mut kvm_cpuid_entry2, tsc_deadline: bool, topology: &Topology, index: u32) {
    leaf.ecx |= HYPERVISOR | X2APIC;
    // KVM sets it when the guest switches XSAVE on.
    leaf.ecx &= !(OSXSAVE | TSC_DEADLINE);
    if tsc_deadline {
        leaf.ecx |= TSC_DEADLINE;
    }
    leaf.edx &= !HTT;
    let ids_per_socket = 1 << topology.socket_shift();
    if ids_per_socket > 1 {
        leaf.edx |= HTT;
    }
    leaf.ebx = (leaf.ebx & 0xffff) | ids_per_socket << 16 | (topology.apic_id(index) & 0xff) << 24;
}

/// Who shares a cache (leaf 4): the first two levels belong to a core, those above to the socket.
fn intel_cache(leaf: &mut kvm_cpuid_entry2, topology: &Topology) {
    let level = leaf.eax >> 5 & 7;
    if leaf.eax & 0x1f == 0 {
        return;
    }
    let shift = if level < 3 { topology.thread_bits() } else { topology.socket_shift() };
    let sharing = (1 << shift) - 1;
    let cores = (1 << topology.core_bits()) - 1;
    leaf.eax = (leaf.eax & 0x3fff) | sharing << 14 | cores << 26;
}

/// Who shares a cache (leaf 0x8000001D), with counts instead of identifier ranges.
fn amd_cache(leaf: &mut kvm_cpuid_entry2, topology: &Topology) {
    let level = leaf.eax >> 5 & 7;
    if leaf.eax & 0x1f == 0 {
        return;
    }
    let sharing = if level < 3 { topology.threads() } else { per_socket(topology) } - 1;
    leaf.eax = (leaf.eax & 0x3fff) | sharing << 14;
}

/// Logical processors in the socket and the width of their number (leaf 0x80000008, ECX).
fn amd_size(leaf: &mut kvm_cpuid_entry2, topology: &Topology) {
    leaf.ecx = (leaf.ecx & !0xf0ff) | (per_socket(topology) - 1) | topology.socket_shift() << 12;
}

fn amd_topology(leaf: &mut kvm_cpuid_entry2, topology: &Topology, index: u32) {
    let id = topology.apic_id(index);
    leaf.eax = id;
    leaf.ebx = (id >> topology.thread_bits() & 0xff) | (topology.threads() - 1) << 8;
    leaf.ecx = id >> topology.socket_shift() & 0xff;
    leaf.edx = 0;
}

/// Leaf 0xB, or 0x1F, which goes on from it: thread, core, and the level that ends the list.
fn levels(function: u32, topology: &Topology, index: u32) -> [kvm_cpuid_entry2; 3] {
    let level = |number: u32, shift: u32, processors: u32, kind: u32| kvm_cpuid_entry2 {
        function,
        index: number,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: processors,
        ecx: number | kind << 8,
        edx: topology.apic_id(index),
        ..kvm_cpuid_entry2::default()
    };
    [
        level(0, topology.thread_bits(), topology.threads(), LEVEL_THREAD),
        level(1, topology.socket_shift(), per_socket(topology), LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() }
    }

    fn amd() -> HostCpu {
        let supported = vec![
            leaf(0, 0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            leaf(1, 0, [0x80_0f12, 0x0704_0800, 0x7ed8_320b, 0x178b_fbff]),
            leaf(0xb, 0, [1, 2, 0x100, 7]),
            leaf(0x4000_0000, 0, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
            leaf(0x8000_0001, 0, [0x80_0f12, 0, 0x0040_0201, 0x2fd3_fbff]),
            leaf(0x8000_0008, 0, [0x3030, 0x1000, 0xf00f, 0]),
            leaf(0x8000_001d, 0, [0x121, 0x01c0_003f, 0x3f, 0]),
            leaf(0x8000_001d, 3, [0x163, 0x03c0_003f, 0x1fff, 1]),
            leaf(0x8000_001e, 0, [7, 0x103, 0, 0]),
        ];
        HostCpu { supported, tsc_deadline: true }
    }

    fn intel() -> HostCpu {
        let supported = vec![
            leaf(0, 0, [0x1f, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
            leaf(1, 0, [0x5_0654, 0x0910_0800, 0xfffa_3203, 0x0f8b_fbff]),
            leaf(4, 0, [0xfc00_4121, 0x01c0_003f, 0x3f, 0]),
            leaf(4, 3, [0xfc00_c163, 0x0280_003f, 0xcfff, 4]),
            leaf(0xb, 0, [1, 2, 0x100, 9]),
            leaf(0x1f, 0, [1, 2, 0x100, 9]),
            leaf(0x8000_0008, 0, [0x302e, 0, 0, 0]),
        ];
        HostCpu { supported, tsc_deadline: false }
    }

    fn check(host: &HostCpu, topology: (u32, u32, u32), index: u32, expected: &str) {
        let (sockets, cores, threads) = topology;
        let topology = Topology::new(sockets, cores, threads).unwrap();
        let shown = describe(&guest_cpuid(host, &topology, index));
        let expected: Vec<&str> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "{shown}");
    }

    #[test]
    fn a_single_processor_on_amd() {
        check(
            &amd(),
            (1, 1, 1),
            0,
            "00000000.00 00000010 68747541 444d4163 69746e65
             00000001.00 00800f12 00010800 f7f8320b 078bfbff
             0000000b.00 00000000 00000001 00000100 00000000
             0000000b.01 00000000 00000001 00000201 00000000
             0000000b.02 00000000 00000000 00000002 00000000
             40000000.00 40000001 4b4d564b 564b4d56 0000004d
             80000001.00 00800f12 00000000 00400201 2fd3fbff
             80000008.00 00003030 00001000 00000000 00000000
             8000001d.00 00000121 01c0003f 0000003f 00000000
             8000001d.03 00000163 03c0003f 00001fff 00000001
             8000001e.00 00000000 00000000 00000000 00000000",
        );
    }

    #[test]
    fn two_sockets_of_three_cores_of_two_threads_on_amd() {
        // vCPU 9 is thread 1 of core 1 of socket 1: 1 << 3 | 1 << 1 | 1.
        check(
            &amd(),
            (2, 3, 2),
            9,
            "00000000.00 00000010 68747541 444d4163 69746e65
             00000001.00 00800f12 0b080800 f7f8320b 178bfbff
             0000000b.00 00000001 00000002 00000100 0000000b
             0000000b.01 00000003 00000006 00000201 0000000b
             0000000b.02 00000000 00000000 00000002 0000000b
             40000000.00 40000001 4b4d564b 564b4d56 0000004d
             80000001.00 00800f12 00000000 00400203 2fd3fbff
             80000008.00 00003030 00001000 00003005 00000000
             8000001d.00 00004121 01c0003f 0000003f 00000000
             8000001d.03 00014163 03c0003f 00001fff 00000001
             8000001e.00 0000000b 00000105 00000001 00000000",
        );
    }

    #[test]
    fn four_cores_of_two_threads_on_intel() {
        check(
            &intel(),
            (1, 4, 2),
            5,
            "00000000.00 0000001f 756e6547 6c65746e 49656e69
             00000001.00 00050654 05080800 f6fa3203 1f8bfbff
             00000004.00 0c004121 01c0003f 0000003f 00000000
             00000004.03 0c01c163 0280003f 0000cfff 00000004
             0000000b.00 00000001 00000002 00000100 00000005
             0000000b.01 00000003 00000008 00000201 00000005
             0000000b.02 00000000 00000000 00000002 00000005
             0000001f.00 00000001 00000002 00000100 00000005
             0000001f.01 00000003 00000008 00000201 00000005
             0000001f.02 00000000 00000000 00000002 00000005
             80000008.00 0000302e 00000000 00000000 00000000",
        );
    }

    #[test]
    fn address_width_is_read_from_its_leaf() {
        assert_eq!(amd().address_bits(), 48);
        assert_eq!(HostCpu::default().address_bits(), 36);
    }
}
