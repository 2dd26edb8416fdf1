# From the PVH entry point to 64-bit Rust.
#
# State at entry (Xen's docs/misc/pvh.pandoc): 32-bit protected mode, paging
# off, flat segments, interrupts off, ebx = physical address of hvm_start_info.
# No stack. The loader has cleared .bss.

.section .note.pvh, "a", @note
    .balign 4
    .long 4                         # name size
    .long 8                         # descriptor size
    .long 18                        # type: XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start                 # 8 bytes: QEMU reads that many from an ELF64

.section .text.boot, "ax", @progbits
.code32
.global pvh_start
pvh_start:
    cli
    cld
    mov esp, offset __stack_top
    mov edi, ebx                    # cpuid overwrites ebx

    # A CPU without long mode would triple-fault below, which looks like a
    # reset loop. CPUID 0x80000001 edx bit 29.
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb no_long_mode
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc no_long_mode

    # Identity-map the first 4 GiB in 2 MiB pages: the start info may lie
    # anywhere below, because its address has 32 bits. paging.rs replaces this.
    mov eax, 0x83                   # present, writable, page size
    mov ecx, offset boot_pd
1:  mov [ecx], eax
    add ecx, 8
    add eax, 0x200000
    jnc 1b                          # 2048 entries later eax wraps past 4 GiB

    mov eax, offset boot_pd + 3     # present, writable
    mov ecx, offset boot_pdpt
2:  mov [ecx], eax
    add ecx, 8
    add eax, 0x1000
    cmp ecx, offset boot_pdpt + 4 * 8
    jne 2b
    mov dword ptr [boot_pml4], offset boot_pdpt + 3

    mov eax, cr4
    or eax, 1 << 5                  # PAE
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080             # EFER
    rdmsr
    or eax, 1 << 8                  # LME
    wrmsr
    mov eax, cr0
    or eax, (1 << 31) | 1           # PG, PE
    mov cr0, eax

    lgdt [boot_gdt_pointer]
    push 0x08                       # a far return loads cs as a far jump would
    mov eax, offset long_mode
    push eax
    retf

# Says why on COM1 (its transmit register takes bytes at once in a virtual
# machine), ends QEMU with the status for failure, or stops.
no_long_mode:
    mov esi, offset no_long_mode_text
3:  lodsb
    test al, al
    jz 4f
    mov dx, 0x3f8
    out dx, al
    jmp 3b
4:  mov eax, 0x11
    mov dx, 0xf4
    out dx, eax
5:  hlt
    jmp 5b

.code64
long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, offset __stack_top
    xor ebp, ebp                    # the backtrace ends here
    mov edi, edi                    # start info: upper half cleared
    call {rust_entry}
    ud2

.section .rodata.boot, "a", @progbits
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 0x08: 64-bit code
    .quad 0x00cf93000000ffff        # 0x10: data
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt
no_long_mode_text:
    .asciz "doorbell: this CPU has no 64-bit mode (CPUID 0x80000001 edx bit 29)\n"

.section .bss.boot, "aw", @nobits
    .balign 4096
boot_pml4:  .skip 4096
boot_pdpt:  .skip 4096
boot_pd:    .skip 4 * 4096

.text
