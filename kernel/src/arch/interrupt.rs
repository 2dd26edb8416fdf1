//! Interrupts, as the CPU sees them: the way into a handler and back, and when
//! it is open.
//!
//! The kernel runs with interrupts disabled. They come in where it asks for
//! them: in [`enabled`], and in [`halt`].

use core::arch::{asm, naked_asm};

use spin::Once;
use x86_64::instructions::interrupts;

pub use interrupts::{disable, without_interrupts as disabled};

/// What an interrupt is handed to: its vector, and the TSC at its entry.
///
/// It runs on the stack that it interrupts, with interrupts disabled. It does not
/// allocate, it does not print, and it takes no lock that others hold with
/// interrupts enabled.
pub type Handler = fn(vector: u8, entered: u64);

static HANDLER: Once<Handler> = Once::new();

/// Hands all interrupts to `handler` from now on. Before, they have no effect.
/// A second call changes nothing.
pub fn set_handler(handler: Handler) {
    HANDLER.call_once(|| handler);
}

/// Where the stubs of interrupts go, with the vector on the stack.
///
/// What a called function may change is saved: there is no other state, because
/// the target computes without SSE. The time is read before all else that can
/// wait, since the time to get here is what is measured.
#[unsafe(naked)]
pub(super) extern "C" fn entry() {
    naked_asm!(
        "push rax",
        "push rdx",
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "push rcx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push rbp",
        // The CPU aligned the stack before its 5 pushes. With the stub's and
        // these 10 it is aligned again, as a call wants it.
        "mov rdi, [rsp + 80]", // the vector
        "mov rsi, rax",
        "xor ebp, ebp", // a backtrace ends here
        "cld",
        "call {dispatch}",
        "pop rbp",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rcx",
        "pop rdx",
        "pop rax",
        "add rsp, 8", // the vector
        "iretq",
        dispatch = sym dispatch,
    )
}

extern "C" fn dispatch(vector: u64, entered: u64) {
    if let Some(handler) = HANDLER.get() {
        // The stubs push one of 256.
        handler(vector as u8, entered);
    }
}

/// Runs `f` with interrupts enabled. After it they are as before.
pub fn enabled<R>(f: impl FnOnce() -> R) -> R {
    let before = interrupts::are_enabled();
    interrupts::enable();
    let result = f();
    if !before {
        interrupts::disable();
    }
    result
}

/// Stops the CPU until an interrupt has been handled. Interrupts are disabled
/// before and after.
///
/// One that is pending when this is called ends it as well: `sti` takes effect
/// only after the instruction behind it.
pub fn halt() {
    // Without `nomem`: a handler changes memory.
    // SAFETY: handlers leave this function's registers and stack alone.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}
