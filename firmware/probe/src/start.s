# Intel syntax. PVH (Xen docs/misc/pvh.pandoc): 32-bit protected mode, no paging, flat segments, start info in EBX.

.section .note.pvh, "a", @note
.align 4
    .long 4                     # length of the name
    .long 4                     # length of the descriptor
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_start

.section .bss
.align 4096
probe_pml4:         .skip 4096
probe_pdpt:         .skip 4096
probe_directories:  .skip 64 * 4096
probe_stack:        .skip 64 * 1024
probe_stack_top:
probe_idt:          .skip 32 * 16

.section .data
.align 8
probe_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08: 64-bit code
    .quad 0x00cf93000000ffff    # 0x10: data
probe_gdt_pointer:
    .word 23
    .long probe_gdt
    .long 0
.align 8
probe_idt_pointer:
    .word 32 * 16 - 1
    .quad probe_idt

.section .text.start, "ax"
.code32
.globl pvh_start
pvh_start:
    cli
    cld
    mov esp, offset probe_stack_top

    mov eax, offset probe_pdpt
    or eax, 3
    mov dword ptr [probe_pml4], eax

    # 64 page directories.
    mov edi, offset probe_pdpt
    mov eax, offset probe_directories
    or eax, 3
    mov ecx, 64
2:  mov dword ptr [edi], eax
    add eax, 4096
    add edi, 8
    dec ecx
    jnz 2b

    # 32768 pages of 2 MiB: edx:eax is the entry.
    mov edi, offset probe_directories
    mov eax, 0x83
    xor edx, edx
    mov ecx, 64 * 512
3:  mov dword ptr [edi], eax
    mov dword ptr [edi + 4], edx
    add eax, 0x200000
    adc edx, 0
    add edi, 8
    dec ecx
    jnz 3b

    mov eax, cr4
    or eax, 0x620               # PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov eax, offset probe_pml4
    mov cr3, eax
    mov ecx, 0xC0000080         # EFER
    rdmsr
    or eax, 0x100               # LME
    wrmsr
    mov eax, cr0
    and eax, 0xFFFFFFFB         # not EM
    or eax, 0x80000002          # PG, MP
    mov cr0, eax
    lgdt [probe_gdt_pointer]
    push 0x08
    mov eax, offset probe_long_mode
    push eax
    retf

.code64
probe_long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax

    # 32 gates, one for each exception; stubs are 16 bytes apart.
    lea rdi, [rip + probe_idt]
    lea rax, [rip + probe_stubs]
    mov ecx, 32
4:  mov word ptr [rdi], ax
    mov word ptr [rdi + 2], 0x08
    mov word ptr [rdi + 4], 0x8E00
    mov rdx, rax
    shr rdx, 16
    mov word ptr [rdi + 6], dx
    shr rdx, 16
    mov dword ptr [rdi + 8], edx
    mov dword ptr [rdi + 12], 0
    add rdi, 16
    add rax, 16
    dec ecx
    jnz 4b
    lidt [rip + probe_idt_pointer]

    mov edi, ebx
    lea rsi, [rip + probe_image_end]
    call probe_main
5:  hlt
    jmp 5b

# A stub makes the stack the same for all: the exceptions that push no error code push 0. 8, 10 to 14, 17, 21, 29 and
# 30 push one (SDM vol 3 §6.15).
.align 16
probe_stubs:
.set number, 0
.rept 32
    .align 16
    .if !((number == 8) || (number >= 10 && number <= 14) || (number == 17) || (number == 21) || (number == 29) || (number == 30))
    push 0
    .endif
    push number
    jmp probe_trap
    .set number, number + 1
.endr
probe_trap:
    pop rdi
    pop rsi
    mov rdx, [rsp]
    and rsp, -16
    call probe_exception
