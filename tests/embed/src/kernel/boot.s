# From 32-bit mode without paging (Xen's docs/misc/pvh.pandoc; ebx holds the start
# info's address) to Rust in the upper half.

.section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18                  # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

.section .boot, "awx", @progbits
.code32
.global pvh_entry
pvh_entry:
    mov esi, ebx

    # The first GiB of physical memory, in 512 pages of 2 MiB.
    mov eax, 0x83                   # present, writable, 2 MiB
    mov edi, offset first_gib
    mov ecx, 512
1:  mov [edi], eax
    add edi, 8
    add eax, 0x200000
    loop 1b

    # It is seen in three places: where it is, until Rust takes that away; from
    # 0xffff_8000_0000_0000 on; and 2 GiB below the top, where the kernel is linked.
    mov eax, offset first_gib + 3   # present, writable
    mov [low_tables], eax
    mov [high_tables + 8 * 510], eax
    mov eax, offset low_tables + 3
    mov [top_table], eax
    mov [top_table + 8 * 256], eax
    mov dword ptr [top_table + 8 * 511], offset high_tables + 3

    mov eax, cr4
    or eax, 1 << 5                  # PAE
    mov cr4, eax
    mov eax, offset top_table
    mov cr3, eax
    mov ecx, 0xc0000080             # EFER
    rdmsr
    or eax, (1 << 11) | (1 << 8)    # NXE, LME
    wrmsr
    mov eax, cr0
    or eax, (1 << 31) | 1           # PG, PE
    mov cr0, eax
    lgdt [first_gdt_pointer]
    push 8
    mov eax, offset upper_half
    push eax
    retf

.code64
upper_half:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    movabs rsp, offset {stack} + {stack_size}
    xor ebp, ebp
    mov edi, esi                    # the start info; the upper half is cleared
    movabs rax, offset {kernel_main}
    call rax
    ud2

    .balign 8
first_gdt:
    .quad 0, 0x00af9b000000ffff     # 64-bit code
first_gdt_pointer:
    .word 15
    .long first_gdt

.section .boot.tables, "aw", @nobits
    .balign 4096
top_table:   .skip 4096
low_tables:  .skip 4096
high_tables: .skip 4096
first_gib:   .skip 4096

.text
