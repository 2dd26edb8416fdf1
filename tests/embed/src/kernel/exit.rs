//! The end: QEMU's `isa-debug-exit` at port 0xf4.

use x86_64::instructions::port::Port;

/// Ends QEMU with status 85.
pub(super) fn success() -> ! {
    exit(0x2a)
}

/// Ends QEMU with status 87.
pub(super) fn failure() -> ! {
    exit(0x2b)
}

fn exit(code: u32) -> ! {
    // SAFETY: nothing else is at this port.
    unsafe { Port::new(0xf4).write(code) };
    loop {
        x86_64::instructions::hlt();
    }
}
