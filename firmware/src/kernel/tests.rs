use std::io::Cursor;

use linux_loader::bootparam::{LOADED_HIGH, XLF_KERNEL_64, boot_params, setup_header};
use linux_loader::elf::{Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE};
use linux_loader::start_info::{XEN_HVM_START_MAGIC_VALUE, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, GuestMemoryMmap};

use super::*;
use crate::layout::{PVH_MODULES, PVH_START_INFO, ZERO_PAGE};

const MIB: u64 = 1 << 20;

struct Machine {
    layout: MemoryLayout,
    memory: GuestMemoryMmap<()>,
}

impl Machine {
    fn of(mib: u64) -> Self {
        let layout = MemoryLayout::of(mib * MIB).unwrap();
        let ranges: Vec<_> =
            layout.ram().iter().map(|r| (GuestAddress(r.start), (r.end - r.start) as usize)).collect();
        Self { layout, memory: GuestMemoryMmap::from_ranges(&ranges).unwrap() }
    }

    fn load(&self, kernel: Vec<u8>, boot: Boot<'_, Cursor<Vec<u8>>>) -> Result<BootState, LoadError> {
        load(&self.memory, &self.layout, Boot { kernel: &mut Cursor::new(kernel), ..boot })
    }

    fn start(&self, kernel: Vec<u8>) -> Result<BootState, LoadError> {
        self.start_as(kernel, Choice::Auto)
    }

    fn start_as(&self, kernel: Vec<u8>, protocol: Choice) -> Result<BootState, LoadError> {
        let boot = Boot {
            kernel: &mut Cursor::new(vec![]),
            initramfs: None,
            cmdline: "console=ttyS0",
            protocol,
            rsdp: Some(0xE_0000),
        };
        self.load(kernel, boot)
    }

    fn read<T: ByteValued>(&self, address: u64) -> T {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }
}

/// A bzImage whose code is `code_len` bytes of 0x90.
fn bzimage(code_len: usize, change: impl FnOnce(&mut setup_header)) -> Vec<u8> {
    let mut header = setup_header {
        setup_sects: 1,
        header: 0x5372_6448,
        version: 0x020f,
        loadflags: LOADED_HIGH,
        initrd_addr_max: 0x7fff_ffff,
        kernel_alignment: 0x20_0000,
        relocatable_kernel: 1,
        xloadflags: XLF_KERNEL_64,
        cmdline_size: 2047,
        pref_address: 0x100_0000,
        init_size: 0x200_0000,
        // A short jump over the header: its second byte is the header's reach.
        jump: 0x6aeb,
        ..setup_header::default()
    };
    change(&mut header);
    let mut image = vec![0; 1024];
    image[0x1f1..0x1f1 + size_of::<setup_header>()].copy_from_slice(header.as_slice());
    image.resize(1024 + code_len, 0x90);
    image
}

fn load_header(address: u64, len: u64) -> Elf64_Phdr {
    Elf64_Phdr { p_type: PT_LOAD, p_paddr: address, p_filesz: len, p_memsz: len, ..Elf64_Phdr::default() }
}

/// An ELF file with `programs`, whose contents are what follows the headers; offsets are filled in where they are 0.
fn elf(entry: u64, programs: &[(Elf64_Phdr, &[u8])]) -> Vec<u8> {
    let header = Elf64_Ehdr {
        e_ident: [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        e_machine: 62,
        e_entry: entry,
        e_phoff: 64,
        e_phentsize: 56,
        e_phnum: programs.len() as u16,
        ..Elf64_Ehdr::default()
    };
    let mut image = header.as_slice().to_vec();
    let mut contents = Vec::new();
    for (program, content) in programs {
        let mut program = *program;
        if program.p_offset == 0 {
            program.p_offset = (64 + 56 * programs.len() + contents.len()) as u64;
        }
        contents.extend_from_slice(content);
        image.extend_from_slice(program.as_slice());
    }
    image.extend(contents);
    image
}

fn pvh_note(entry: u32) -> Vec<u8> {
    let mut note = Vec::new();
    // A note of somebody else's first.
    for word in [6u32, 1, 7] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Linux\0\0\0\x01\0\0\0");
    for word in [4u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(entry.to_le_bytes());
    note
}

fn note_header(note: &[u8]) -> Elf64_Phdr {
    Elf64_Phdr { p_type: PT_NOTE, p_filesz: note.len() as u64, ..Elf64_Phdr::default() }
}

fn pvh_elf() -> Vec<u8> {
    let note = pvh_note(0x10_0010);
    elf(0x10_0000, &[(load_header(0x10_0000, 64), &[0xCC; 64]), (note_header(&note), &note)])
}

#[test]
fn a_bzimage_is_entered_in_long_mode_with_a_zero_page() {
    let machine = Machine::of(64);
    let state = machine.start(bzimage(4096, |_| ())).unwrap();
    assert_eq!(state.entry.protocol, Protocol::Linux64);
    assert_eq!((state.entry.rip, state.entry.rsi), (0x100_0200, ZERO_PAGE));
    assert_eq!(state.kernel, 0x100_0000..0x300_0000);
    assert_eq!(machine.read::<u8>(0x100_0000 + 4095), 0x90);

    let page: boot_params = machine.read(ZERO_PAGE);
    let header = page.hdr;
    assert_eq!({ header.header }, 0x5372_6448);
    assert_eq!({ header.init_size }, 0x200_0000);
    assert_eq!((header.type_of_loader, { header.cmd_line_ptr }), (0xff, 0x2_0000));
    assert_eq!({ page.acpi_rsdp_addr }, 0xE_0000);
    assert_eq!(page.e820_entries as usize, machine.layout.memory_map().len());
    assert_eq!(&machine.read::<[u8; 14]>(CMDLINE_START), b"console=ttyS0\0");
}

#[test]
fn the_memory_map_reaches_beyond_four_gib() {
    let layout = MemoryLayout::of(6 << 30).unwrap();
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    ZeroPage { header: None, cmdline_len: 0, initramfs: None, rsdp: None, layout: &layout }
        .write(&memory)
        .unwrap();
    let page: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
    let last = page.e820_table[page.e820_entries as usize - 1];
    assert_eq!(({ last.addr }, { last.size }, { last.r#type }), (4 << 30, 4 << 30, 1));
}

#[test]
fn a_header_shorter_than_ours_is_not_read_past_its_end() {
    let machine = Machine::of(64);
    // The header ends after init_size; what follows in the file is code.
    let image = bzimage(4096, |h| {
        h.jump = 0x62eb;
        h.kernel_info_offset = 0xdead_beef;
    });
    machine.start(image).unwrap();
    let page: boot_params = machine.read(ZERO_PAGE);
    assert_eq!({ page.hdr.init_size }, 0x200_0000);
    assert_eq!({ page.hdr.kernel_info_offset }, 0);
}

#[test]
fn an_elf_kernel_is_entered_by_the_linux_protocol() {
    let machine = Machine::of(64);
    let kernel = elf(0x100_0040, &[(load_header(0x100_0000, 128), &[0x42; 128])]);
    let state = machine.start(kernel).unwrap();
    assert_eq!((state.entry.protocol, state.entry.rip), (Protocol::Linux64, 0x100_0040));
    assert_eq!(machine.read::<[u8; 16]>(0x100_0070), [0x42; 16]);
    assert_eq!(machine.read::<u8>(0x100_0080), 0);
}

#[test]
fn an_elf_kernel_with_a_note_is_entered_by_pvh() {
    let machine = Machine::of(2);
    let state = machine.start(pvh_elf()).unwrap();
    assert_eq!((state.entry.protocol, state.entry.rip), (Protocol::Pvh, 0x10_0010));
    let info: hvm_start_info = machine.read(PVH_START_INFO);
    assert_eq!((info.magic, info.version), (XEN_HVM_START_MAGIC_VALUE, 1));
    assert_eq!((info.nr_modules, info.modlist_paddr), (0, 0));
    assert_eq!((info.cmdline_paddr, info.rsdp_paddr), (CMDLINE_START, 0xE_0000));
    assert_eq!(info.memmap_entries as usize, machine.layout.memory_map().len());
}

#[test]
fn the_protocol_can_be_chosen() {
    let machine = Machine::of(2);
    let state = machine.start_as(pvh_elf(), Choice::Linux64).unwrap();
    assert_eq!((state.entry.protocol, state.entry.rip), (Protocol::Linux64, 0x10_0000));
    let without = elf(0x10_0000, &[(load_header(0x10_0000, 64), &[0; 64])]);
    assert!(matches!(machine.start_as(without, Choice::Pvh), Err(LoadError::NoPvhEntry)));
}

#[test]
fn the_initramfs_is_as_high_as_the_kernel_allows() {
    let machine = Machine::of(64);
    let with_initramfs = |kernel: Vec<u8>| {
        let mut initramfs = Cursor::new(vec![7; 5000]);
        let boot = Boot {
            kernel: &mut Cursor::new(vec![]),
            initramfs: Some(&mut initramfs),
            cmdline: "",
            protocol: Choice::Auto,
            rsdp: None,
        };
        machine.load(kernel, boot).unwrap().initramfs.unwrap()
    };
    let place = with_initramfs(bzimage(4096, |_| ()));
    assert_eq!(place, 0x3FF_E000..0x3FF_F388);
    assert_eq!(machine.read::<[u8; 2]>(0x3FF_F386), [7, 7]);
    let page: boot_params = machine.read(ZERO_PAGE);
    assert_eq!(({ page.hdr.ramdisk_image }, { page.hdr.ramdisk_size }), (0x3FF_E000, 5000));

    let place = with_initramfs(bzimage(4096, |h| h.initrd_addr_max = 0x37f_ffff));
    assert_eq!(place.start, 0x37F_E000);

    let place = with_initramfs(pvh_elf());
    let module: hvm_modlist_entry = machine.read(PVH_MODULES);
    assert_eq!((module.paddr, module.size), (place.start, 5000));
}

#[test]
fn an_initramfs_that_does_not_fit_is_refused() {
    let machine = Machine::of(64);
    let mut initramfs = Cursor::new(vec![0; 40 << 20]);
    let boot = Boot {
        kernel: &mut Cursor::new(bzimage(4096, |_| ())),
        initramfs: Some(&mut initramfs),
        cmdline: "",
        protocol: Choice::Auto,
        rsdp: None,
    };
    let error = load(&machine.memory, &machine.layout, boot).unwrap_err();
    assert_eq!(error.to_string(), "initramfs of 40 MiB does not fit beside the kernel in 64 MiB of memory");
}

#[test]
fn a_kernel_larger_than_the_machine_is_refused_with_both_sizes() {
    let error = Machine::of(16).start(bzimage(4096, |h| h.init_size = 0x120_0000)).unwrap_err();
    assert_eq!(error.to_string(), "kernel needs 34 MiB, the machine has 16 MiB for it");
}

#[test]
fn a_long_or_broken_command_line_is_refused() {
    let machine = Machine::of(64);
    let with = |kernel: Vec<u8>, cmdline: &str| {
        let boot = Boot {
            kernel: &mut Cursor::new(vec![]),
            initramfs: None,
            cmdline,
            protocol: Choice::Auto,
            rsdp: None,
        };
        machine.load(kernel, boot)
    };
    let long = "x".repeat(2048);
    assert!(matches!(
        with(bzimage(4096, |_| ()), &long),
        Err(LoadError::CmdlineTooLong { len: 2048, max: 2047 })
    ));
    with(bzimage(4096, |_| ()), &long[1..]).unwrap();
    let short = bzimage(4096, |h| h.cmdline_size = 255);
    assert!(matches!(with(short, &long[..256]), Err(LoadError::CmdlineTooLong { max: 255, .. })));
    assert!(matches!(with(pvh_elf(), "a\0b"), Err(LoadError::CmdlineNul(1))));
}

#[test]
fn what_is_no_kernel_is_refused() {
    let machine = Machine::of(64);
    for bytes in [vec![0; 4096], b"#!/bin/sh\n".to_vec(), vec![0x7f], b"\x1f\x8b\x08".to_vec()] {
        assert!(matches!(machine.start(bytes), Err(LoadError::UnknownFormat)));
    }
    assert!(matches!(machine.start(vec![]), Err(LoadError::Malformed { .. })));
    let arm = {
        let mut image = pvh_elf();
        image[18] = 183;
        image
    };
    assert!(matches!(machine.start(arm), Err(LoadError::Unsupported(_))));
}

#[test]
fn a_bzimage_that_was_cut_off_is_refused() {
    let machine = |image| Machine::of(64).start(image);
    assert!(machine(bzimage(4096, |h| h.syssize = 256)).is_ok());
    let error = machine(bzimage(4096, |h| h.syssize = 257)).unwrap_err().to_string();
    assert!(error.contains("it was cut off"), "{error}");
}

#[test]
fn a_bzimage_that_cannot_be_entered_in_64_bits_is_refused() {
    let machine = Machine::of(64);
    let start = |change: fn(&mut setup_header)| machine.start(bzimage(4096, change)).unwrap_err().to_string();
    assert_eq!(
        start(|h| h.version = 0x0206),
        "kernel is a bzImage of boot protocol 2.06; at least 2.12 is needed"
    );
    assert_eq!(start(|h| h.xloadflags = 0), "kernel is a 32-bit Linux kernel");
    assert_eq!(start(|h| h.loadflags = 0), "kernel is a zImage, which is loaded below 1 MiB");
    start(|h| h.kernel_alignment = 0);
    start(|h| h.pref_address = !0x1f_ffff);
    start(|h| h.pref_address = 0);
}

#[test]
fn an_elf_with_impossible_segments_is_refused() {
    let machine = Machine::of(64);
    let good = load_header(0x10_0000, 64);
    let start =
        |program: Elf64_Phdr| machine.start(elf(0x10_0000, &[(program, &[0; 64])])).unwrap_err().to_string();
    assert!(start(Elf64_Phdr { p_filesz: 65, p_memsz: 65, ..good }).contains("past the end of the file"));
    assert!(start(Elf64_Phdr { p_offset: u64::MAX, ..good }).contains("past the end of the file"));
    assert!(start(Elf64_Phdr { p_memsz: 63, ..good }).contains("longer in the file than in memory"));
    assert!(start(Elf64_Phdr { p_paddr: u64::MAX - 3, ..good }).contains("wraps around"));
    assert!(start(Elf64_Phdr { p_paddr: 64 << 20, ..good }).contains("the machine has 64 MiB"));
    assert!(start(Elf64_Phdr { p_paddr: 0x7000, ..good }).contains("the boot parameters"));
    assert!(start(Elf64_Phdr { p_paddr: 0xE_0000, ..good }).contains("the BIOS area"));
    assert!(start(Elf64_Phdr { p_memsz: 0, p_filesz: 0, ..good }).contains("nothing to load"));
    assert!(start(Elf64_Phdr { p_paddr: 0x20_0000, ..good }).contains("entry 0x100000"));
}

#[test]
fn an_elf_with_absurd_tables_is_refused() {
    let machine = Machine::of(64);
    let with = |change: fn(&mut [u8])| {
        let mut image = pvh_elf();
        change(&mut image);
        machine.start(image).unwrap_err()
    };
    // e_phoff, e_phentsize, e_phnum.
    assert!(matches!(with(|i| i[32..40].fill(0xff)), LoadError::Malformed { .. }));
    assert!(matches!(with(|i| i[54] = 1), LoadError::Malformed { .. }));
    assert!(matches!(with(|i| i[56..58].fill(0xff)), LoadError::Malformed { .. }));
    assert!(matches!(with(|i| i[56] = 100), LoadError::Malformed { .. }));
    // The note segment's length, in the second program header.
    assert!(matches!(with(|i| i[64 + 56 + 32..64 + 56 + 40].fill(0xff)), LoadError::Malformed { .. }));
}

#[test]
fn a_note_that_lies_about_its_length_ends_the_search() {
    let machine = Machine::of(2);
    let mut note = pvh_note(0x10_0010);
    note[0..4].fill(0xff);
    let kernel = elf(0x10_0000, &[(load_header(0x10_0000, 64), &[0; 64]), (note_header(&note), &note)]);
    assert_eq!(machine.start(kernel).unwrap().entry.protocol, Protocol::Linux64);
}

#[test]
fn every_truncation_is_survived() {
    let machine = Machine::of(64);
    for image in [pvh_elf(), bzimage(700, |_| ())] {
        for len in 0..image.len() {
            // Some prefixes are kernels themselves; none may panic or read past the end.
            let _outcome = machine.start(image[..len].to_vec());
        }
    }
}

#[test]
fn every_corrupted_byte_is_survived() {
    let machine = Machine::of(64);
    for image in [pvh_elf(), bzimage(600, |_| ())] {
        for position in 0..image.len() {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut image = image.clone();
                image[position] = value;
                let _outcome = machine.start(image);
            }
        }
    }
}
