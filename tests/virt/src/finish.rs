//! The end: the device that the device tree names for it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use doorbell::mmio::MmioRegion;

use crate::tree::Tree;

/// What the device takes for a failure (SiFive's test device: the low half says fail,
/// the high half is the exit status).
const FAIL: u32 = 1 << 16 | 0x3333;

/// The register, and what written there means success; 0 for none.
static REGISTER: AtomicU64 = AtomicU64::new(0);
static SUCCESS: AtomicU64 = AtomicU64::new(0);

/// Remembers what `tree` says of the end.
pub(crate) fn init(tree: &Tree<'_>) {
    if let Ok((register, value)) = tree.power_off() {
        SUCCESS.store(value.into(), Ordering::Relaxed);
        REGISTER.store(register, Ordering::Relaxed);
    }
}

/// Ends the machine.
pub(crate) fn end(success: bool) -> ! {
    let value = match success {
        true => SUCCESS.load(Ordering::Relaxed) as u32,
        false => FAIL,
    };
    if let Some(base) = NonNull::new(REGISTER.load(Ordering::Relaxed) as *mut u8) {
        // SAFETY: the device tree says that the register is there.
        let region = unsafe { MmioRegion::new(base, 4) };
        if let Some(register) = region.registers::<u32>(0) {
            register.ptr().write(value);
        }
    }
    park()
}

/// Waits for ever: whoever started the machine ends it.
pub(crate) fn park() -> ! {
    loop {
        core::hint::spin_loop();
    }
}
