//! The interrupt descriptor table: a stub for each of the 256 vectors, which
//! pushes the vector's number and goes where exceptions or interrupts go.
//!
//! The stubs are assembly because the `x86-interrupt` calling convention is
//! not stable.

use core::arch::global_asm;

use spin::Once;
use x86_64::VirtAddr;
use x86_64::structures::idt::InterruptDescriptorTable;

use super::{exception, gdt, interrupt};

/// Vectors that the architecture keeps for exceptions. The others are free for
/// interrupts.
pub const EXCEPTIONS: u8 = 32;
/// Bytes from one stub to the next: more than the longest stub's 12.
const STUB_SIZE: u64 = 16;
/// The vectors for which the CPU pushes an error code, a bit each (Intel SDM
/// volume 3, table 6-1). The stubs of the other exceptions push a 0 in its
/// place; interrupts have none.
const WITH_ERROR_CODE: u32 = 0x6022_7d00;

global_asm!(
    ".balign {stub_size}",
    "vector_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign {stub_size}",
    ".if vector < {exceptions}",
    ".if (({with_error_code} >> vector) & 1) == 0",
    "push 0",
    ".endif",
    "push vector",
    "jmp {exception}",
    ".else",
    "push vector",
    "jmp {interrupt}",
    ".endif",
    ".set vector, vector + 1",
    ".endr",
    stub_size = const STUB_SIZE,
    with_error_code = const WITH_ERROR_CODE,
    exceptions = const EXCEPTIONS,
    exception = sym exception::entry,
    interrupt = sym interrupt::entry,
);

unsafe extern "C" {
    static vector_stubs: u8;
}

static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Loads a table in which every exception is reported, and every other vector
/// is an interrupt. All run with interrupts disabled.
pub(super) fn init() {
    let first_stub = (&raw const vector_stubs).addr() as u64;
    let stub = |vector: u8| VirtAddr::new(first_stub + u64::from(vector) * STUB_SIZE);
    IDT.call_once(|| {
        let mut idt = InterruptDescriptorTable::new();
        // SAFETY: each stub takes the stack that the CPU leaves for its
        // vector; an exception's never returns, and an interrupt's returns by
        // `iretq`. The interrupt stacks are in the TSS that `gdt::init` loaded.
        unsafe {
            idt.divide_error.set_handler_addr(stub(0));
            idt.debug.set_handler_addr(stub(1));
            idt.non_maskable_interrupt.set_handler_addr(stub(2));
            idt.breakpoint.set_handler_addr(stub(3));
            idt.overflow.set_handler_addr(stub(4));
            idt.bound_range_exceeded.set_handler_addr(stub(5));
            idt.invalid_opcode.set_handler_addr(stub(6));
            idt.device_not_available.set_handler_addr(stub(7));
            idt.double_fault
                .set_handler_addr(stub(exception::DOUBLE_FAULT))
                .set_stack_index(gdt::DOUBLE_FAULT_IST);
            idt.invalid_tss.set_handler_addr(stub(10));
            idt.segment_not_present.set_handler_addr(stub(11));
            idt.stack_segment_fault.set_handler_addr(stub(12));
            idt.general_protection_fault.set_handler_addr(stub(13));
            idt.page_fault
                .set_handler_addr(stub(exception::PAGE_FAULT))
                .set_stack_index(gdt::PAGE_FAULT_IST);
            idt.x87_floating_point.set_handler_addr(stub(16));
            idt.alignment_check.set_handler_addr(stub(17));
            idt.machine_check.set_handler_addr(stub(18));
            idt.simd_floating_point.set_handler_addr(stub(19));
            idt.virtualization.set_handler_addr(stub(20));
            idt.cp_protection_exception.set_handler_addr(stub(21));
            idt.hv_injection_exception.set_handler_addr(stub(28));
            idt.vmm_communication_exception.set_handler_addr(stub(29));
            idt.security_exception.set_handler_addr(stub(30));
            for vector in EXCEPTIONS..=u8::MAX {
                idt[vector].set_handler_addr(stub(vector));
            }
        }
        idt
    })
    .load();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_vectors_have_an_error_code() {
        let vectors = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];
        let mask: u32 = vectors.iter().map(|vector| 1u32 << vector).sum();
        assert_eq!(WITH_ERROR_CODE, mask);
    }
}
