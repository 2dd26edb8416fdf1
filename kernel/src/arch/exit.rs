//! How a run ends: through QEMU's `isa-debug-exit` device.

use doorbell::port::{IoSpace, X86Ports};

use super::interrupt;
use crate::platform::serial;
use crate::terminal;

/// Where the launcher puts the device (`-device isa-debug-exit,iobase=0xf4`).
const PORT: u16 = 0xf4;

/// How a run ended. QEMU exits with status `code * 2 + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitCode {
    /// Everything asked for was done. QEMU's status: 33.
    Success = 0x10,
    /// Something failed, and the records say what. Status 35.
    Failure = 0x11,
    /// The kernel panicked. Status 37.
    Panic = 0x12,
    /// A CPU exception. Status 39.
    Exception = 0x13,
}

/// Ends the run, after all output has left the serial port.
///
/// Without the device the CPU halts for good, and says so.
pub fn exit(code: ExitCode) -> ! {
    interrupt::disable();
    terminal::take_over();
    serial::flush();
    // SAFETY: nothing but the exit device answers at this port, if it is there.
    unsafe { X86Ports.write32(PORT, code as u32) };
    crate::println!("no isa-debug-exit device at port {PORT:#x}: halting ({code:?})");
    loop {
        x86_64::instructions::hlt();
    }
}
