//! A small kernel of somebody else's: its own boot, its own paging with physical memory
//! at an offset, a bump allocator and no heap, and its own interrupts. It shares nothing
//! with `boot/` and `kernel/`, and uses the crate `doorbell` as a hobby OS would.
//! `kernel/glue.rs` is what that takes.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this kernel runs in a virtual machine: see `cargo xtask test --filter embed`");
    std::process::exit(2);
}

#[cfg(target_os = "none")]
mod kernel;
