//! What orders memory against devices' registers, by architecture.
//!
//! A fence of the language's memory model orders memory, as processors see it. A
//! device's registers are something else where the architecture says so:
//!
//! - RISC-V has device input (`i`) and output (`o`) beside reads (`r`) and writes
//!   (`w`) of memory, and a `fence rw, rw`, as the language's, orders only the latter
//!   two (unprivileged specification, "Fence Instruction").
//! - Arm's `dmb ish`, as the language's, reaches the processors' shareability domain,
//!   which a device need not be in; `dmb sy` reaches all (Armv8-A reference manual,
//!   B2.3, "Data Memory Barrier").
//! - An x86 processor keeps an uncached access or an `out` behind all earlier accesses
//!   (Intel SDM 3A, 9.2.2 and 9.3): nothing but the compiler has to be held back.
//!
//! Elsewhere the language's strongest fence stands in: on PowerPC it is `sync`, which
//! orders everything.

use core::sync::atomic::{Ordering, compiler_fence};

/// Keeps all accesses before it, to memory and to devices, before all that follow it.
/// What the processor does by itself takes no instruction. Between accesses to memory
/// alone a processor may need more: see [`full`].
#[inline(always)]
pub(crate) fn device() {
    #[cfg(any(target_arch = "riscv32", target_arch = "riscv64"))]
    // SAFETY: a fence changes no register; it is not `nomem`, so that the compiler
    // moves nothing past it.
    unsafe {
        core::arch::asm!("fence iorw, iorw", options(nostack, preserves_flags));
    }
    #[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("dmb sy", options(nostack, preserves_flags));
    }
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "x86",
        target_arch = "riscv32",
        target_arch = "riscv64",
        target_arch = "aarch64",
        target_arch = "arm"
    )))]
    core::sync::atomic::fence(Ordering::SeqCst);
    compiler_fence(Ordering::SeqCst);
}

/// The same, and a store to memory also before a load from memory that follows, which
/// an x86 processor may otherwise swap.
#[inline(always)]
pub(crate) fn full() {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    core::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
    device();
}
