//! The x86-64 CPU: descriptor tables and exceptions, its clock, its name, and
//! the way out of the virtual machine.

pub mod backtrace;
pub mod cpu;
pub mod crash;
pub mod exception;
pub mod exit;
pub mod gdt;
pub mod tsc;

/// Loads the descriptor tables, after which exceptions are reported.
pub fn init() {
    gdt::init();
    exception::init();
}
