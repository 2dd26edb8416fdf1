//! Ways to crash on purpose, so that the reports of crashes can be tested.
//! Each ends the run with [`ExitCode::Exception`](super::exit::ExitCode).

use core::arch::asm;
use core::hint::black_box;

/// Each way to crash, by name.
pub const CRASHES: [(&str, fn()); 7] = [
    ("null", null_dereference),
    ("divide", divide_by_zero),
    ("stack", stack_overflow),
    ("code", write_to_code),
    ("data", execute_data),
    ("opcode", invalid_opcode),
    ("double", double_fault),
];

/// Reads through a null pointer: page 0 is not mapped.
pub fn null_dereference() {
    // SAFETY: none, on purpose: the fault ends the run before a value is used.
    unsafe { asm!("mov {0}, qword ptr [{0}]", inout(reg) 0u64 => _) };
}

/// Divides by zero in the CPU; Rust's own division would panic instead.
pub fn divide_by_zero() {
    // SAFETY: none, on purpose: the exception ends the run.
    unsafe { asm!("div {0:e}", in(reg) 0u32, inout("eax") 1u32 => _, inout("edx") 0u32 => _) };
}

/// Recurses until the stack runs into its guard page.
pub fn stack_overflow() {
    #[inline(never)]
    fn recurse(depth: u64) -> u64 {
        let frame = black_box([depth; 16]);
        if depth == u64::MAX {
            0
        } else {
            recurse(depth + 1) + frame[3]
        }
    }
    black_box(recurse(black_box(0)));
}

/// Writes to the kernel's code, which is read-only.
pub fn write_to_code() {
    let code = write_to_code as *const () as *mut u8;
    // SAFETY: none, on purpose: the fault ends the run before code changes.
    unsafe { code.write_volatile(0xcc) };
}

/// Calls into the stack, which is not executable.
pub fn execute_data() {
    let code = black_box([0xc3u8; 16]); // ret
    // SAFETY: none, on purpose: the fault comes before the first instruction.
    unsafe { asm!("call {}", in(reg) code.as_ptr(), clobber_abi("C")) };
}

/// Executes an instruction that no CPU has.
pub fn invalid_opcode() {
    // SAFETY: none, on purpose: the exception ends the run.
    unsafe { asm!("ud2") };
}

/// Divides by zero with a stack pointer that cannot be pushed through, so that
/// reporting the first exception causes a second.
pub fn double_fault() {
    // SAFETY: none, on purpose: the double fault has a stack of its own, and
    // ends the run.
    unsafe {
        asm!(
            "mov rsp, {0}",
            "xor ecx, ecx",
            "div ecx",
            in(reg) 1u64 << 63,
            options(noreturn)
        );
    }
}
