//! The x86-64 CPU: descriptor tables, exceptions and interrupts, its clock, its
//! name, and the way out of the virtual machine.

pub mod apic;
pub mod backtrace;
pub mod cpu;
pub mod crash;
pub mod exception;
pub mod exit;
pub mod gdt;
pub mod idt;
pub mod interrupt;
pub mod tsc;

/// Loads the descriptor tables, after which exceptions are reported, and an
/// interrupt finds its way back.
pub fn init() {
    gdt::init();
    idt::init();
}
