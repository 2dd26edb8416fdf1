//! The serial line COM1.

use core::fmt::{Arguments, Write};

use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550Tty};

static COM1: Mutex<Option<Uart16550Tty<PioBackend>>> = Mutex::new(None);

/// Prints a line.
macro_rules! println {
    ($($argument:tt)*) => { $crate::kernel::serial::print(format_args!($($argument)*)) };
}
pub(super) use println;

/// Sets the line up. Before this nothing is printed.
pub(super) fn init() {
    // SAFETY: COM1's ports on every PC, and nobody else's here.
    *COM1.lock() = unsafe { Uart16550Tty::new_port(0x3f8, Config::default()) }.ok();
}

/// What `println!` does.
pub(super) fn print(arguments: Arguments<'_>) {
    if let Some(port) = COM1.lock().as_mut() {
        let _ = writeln!(port, "{arguments}");
    }
}
