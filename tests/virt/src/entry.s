# From QEMU's reset vector (machine mode; a0 = hart, a1 = device tree) to `start`.
    .section .entry, "ax"
    .global _start
_start:
    bnez a0, park               # one hart is enough
    la t0, trap
    csrw mtvec, t0
    li t0, 1 << 13              # mstatus.FS: the compiler may use floating-point registers
    csrs mstatus, t0
    la t0, __bss_start
    la t1, __bss_end
0:  bgeu t0, t1, 1f
    sd zero, (t0)
    addi t0, t0, 8
    j 0b
1:  la sp, __stack_top
    mv a0, a1
    call start
park:
    wfi
    j park

# No trap is expected: report it, from a fresh stack, and end.
    .balign 4
trap:
    la sp, __stack_top
    csrr a0, mcause
    csrr a1, mepc
    csrr a2, mtval
    call trapped
