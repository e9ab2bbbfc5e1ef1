//! The tables, read as DSP0134 says.

use vm_memory::GuestMemoryMmap;

use super::*;

fn description() -> Description {
    Description {
        uuid: [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x4d, 0xef, 1, 2, 3, 4, 5, 6, 7, 8],
        system: System {
            manufacturer: "Maker".into(),
            product: "Product".into(),
            serial: "S-1".into(),
            ..System::default()
        },
        chassis: Chassis { asset: "Asset 7".into(), ..Chassis::default() },
        sockets: 2,
        cores: 3,
        threads: 2,
        layout: MemoryLayout::of(6 << 30).unwrap(),
    }
}

/// Type, fields with the header, and strings of each structure.
fn parse(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (fields, rest) = bytes.split_at(usize::from(bytes[1]));
        let end = rest.windows(2).position(|pair| pair == [0, 0]).unwrap();
        let strings = rest[..end].split(|byte| *byte == 0).filter(|text| !text.is_empty());
        let strings = strings.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
        found.push((fields[0], fields.to_vec(), strings));
        bytes = &rest[end + 2..];
    }
    found
}

#[test]
fn every_structure_has_the_length_of_its_version() {
    let all = parse(&Tables::of(&description(), BiosInformation::Ours).structures);
    let shape: Vec<(u8, usize)> = all.iter().map(|(kind, fields, _)| (*kind, fields.len())).collect();
    let expected = [
        (0, 0x18),
        (1, 0x1b),
        (3, 0x16),
        (4, 0x30),
        (4, 0x30),
        (16, 0x17),
        (17, 0x28),
        (19, 0x1f),
        (19, 0x1f),
        (32, 0x0b),
        (127, 4),
    ];
    assert_eq!(shape, expected);
    let mut handles: Vec<&[u8]> = all.iter().map(|(_, fields, _)| &fields[2..4]).collect();
    handles.sort_unstable();
    handles.dedup();
    assert_eq!(handles.len(), all.len());
}

#[test]
fn firmware_speaks_for_itself() {
    let all = parse(&Tables::of(&description(), BiosInformation::Firmwares).structures);
    assert!(all.iter().all(|(kind, ..)| *kind != 0));
}

#[test]
fn identity_and_strings_are_those_of_the_description() {
    let all = parse(&Tables::of(&description(), BiosInformation::Ours).structures);
    let (_, system, strings) = &all[1];
    assert_eq!(*strings, ["Maker", "Product", "S-1"]);
    assert_eq!(system[4..8], [1, 2, 0, 3]);
    assert_eq!(system[8..24], [0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xef, 0x4d, 1, 2, 3, 4, 5, 6, 7, 8]);
    let (_, chassis, strings) = &all[2];
    assert_eq!((chassis[8], strings[0].as_str()), (1, "Asset 7"));
    let (_, processor, _) = &all[3];
    assert_eq!(processor[0x23..0x26], [3, 3, 6]);
    let (_, device, _) = &all[6];
    assert_eq!(device[0x0c..0x0e], 6144u16.to_le_bytes());
    let (_, mapped, _) = &all[8];
    assert_eq!(mapped[0x0f..0x17], (4u64 << 30).to_le_bytes());
    assert_eq!(mapped[0x17..0x1f], ((8u64 << 30) - 1).to_le_bytes());
}

#[test]
fn a_hostile_string_ends_nothing() {
    let mut description = description();
    description.system.manufacturer = format!("a\0b\n{}", "x".repeat(1000));
    description.system.product = "\u{1}".into();
    let all = parse(&Tables::of(&description, BiosInformation::Ours).structures);
    let (_, system, strings) = &all[1];
    assert_eq!(strings[0].len(), STRING_MAX_BYTES);
    assert!(strings[0].starts_with("abx"));
    assert_eq!(system[4..8], [1, 0, 0, 2]);
    assert_eq!(all.last().unwrap().0, 127);
}

#[test]
fn a_kernel_finds_them_from_the_entry_point() {
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let tables = Tables::of(&description(), BiosInformation::Ours);
    tables.write(&memory).unwrap();
    let anchor: [u8; 24] = memory.read_obj(GuestAddress(0xf_0000)).unwrap();
    assert_eq!(&anchor[..5], b"_SM3_");
    assert_eq!(anchor.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    let address = u64::from_le_bytes(anchor[16..].try_into().unwrap());
    let mut found = vec![0; u32::from_le_bytes(anchor[12..16].try_into().unwrap()) as usize];
    memory.read_slice(&mut found, GuestAddress(address)).unwrap();
    assert_eq!(found, tables.structures);
}

#[test]
fn the_largest_machine_fits_and_an_absurd_one_is_refused() {
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let mut description = description();
    description.sockets = 64;
    Tables::of(&description, BiosInformation::Ours).write(&memory).unwrap();
    description.sockets = 5000;
    let error = Tables::of(&description, BiosInformation::Ours).write(&memory).unwrap_err();
    assert!(error.to_string().starts_with("SMBIOS tables of "), "{error}");
}
