//! IO space: the ports of an x86 processor, or a window of memory that a host
//! bridge turns into IO cycles on other architectures.
//!
//! This is the only module that names an architecture.

use core::fmt;

use crate::transport::{IsrStatus, Notifier};

/// Access to an IO space. Port numbers are bus addresses (0 to 0xFFFF); values
/// are little-endian on the bus, native here.
///
/// # Safety
///
/// An implementer owes accesses of exactly the width asked for, in program
/// order, ordered after all earlier writes to memory: the compiler must not
/// move a write to a virtqueue past [`write16`](Self::write16).
///
/// Each method is unsafe to call, because a port can do anything: a caller owes
/// that the port belongs to a device it owns. [`IoRegion`] is that promise made
/// once.
#[expect(missing_docs, reason = "the trait's text describes all six alike")]
#[expect(
    clippy::missing_safety_doc,
    reason = "the trait's text says what all six callers owe"
)]
pub unsafe trait IoSpace {
    unsafe fn read8(&self, port: u16) -> u8;
    unsafe fn read16(&self, port: u16) -> u16;
    unsafe fn read32(&self, port: u16) -> u32;
    unsafe fn write8(&self, port: u16, value: u8);
    unsafe fn write16(&self, port: u16, value: u16);
    unsafe fn write32(&self, port: u16, value: u32);

    /// A notifier that writes `value`, 16 bits wide, to `port`.
    ///
    /// # Safety
    ///
    /// As for [`write16`](Self::write16), for as long as the notifier lives.
    unsafe fn notifier(&self, port: u16, value: u16) -> Notifier;

    /// A handle on the ISR status at `port`.
    ///
    /// # Safety
    ///
    /// As for [`read8`](Self::read8), for as long as the handle lives.
    unsafe fn isr_status(&self, port: u16) -> IsrStatus;
}

/// A range of IO ports that belongs to its holder: a device's IO BAR.
#[derive(Clone, Copy)]
pub struct IoRegion<S> {
    space: S,
    base: u16,
    len: u16,
}

impl<S: IoSpace> IoRegion<S> {
    /// Takes `len` ports from `base`; `None` if they pass the end of IO space
    /// (64 KiB).
    ///
    /// # Safety
    ///
    /// The ports belong to a device that the caller owns, and nobody else
    /// accesses them.
    pub unsafe fn new(space: S, base: u16, len: u16) -> Option<Self> {
        (u32::from(base) + u32::from(len) <= 0x1_0000).then_some(Self { space, base, len })
    }

    /// The first port.
    pub fn base(&self) -> u16 {
        self.base
    }

    /// The number of ports.
    pub fn len(&self) -> u16 {
        self.len
    }

    /// Whether the region has no ports.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The port at `offset`.
    ///
    /// # Panics
    ///
    /// If an access of `width` bytes there would leave the region: offsets are
    /// the driver's own constants or were checked when they were read.
    fn port(&self, offset: u16, width: u16) -> u16 {
        assert!(
            offset <= self.len && width <= self.len - offset,
            "IO region of {} bytes accessed at {offset}, {width} bytes wide",
            self.len
        );
        self.base + offset
    }

    /// Reads 8 bits at `offset`.
    pub fn read8(&self, offset: u16) -> u8 {
        // SAFETY: `new`'s caller owns the ports; `port` checks the bounds.
        unsafe { self.space.read8(self.port(offset, 1)) }
    }

    /// Reads 16 bits at `offset`.
    pub fn read16(&self, offset: u16) -> u16 {
        // SAFETY: as in `read8`.
        unsafe { self.space.read16(self.port(offset, 2)) }
    }

    /// Reads 32 bits at `offset`.
    pub fn read32(&self, offset: u16) -> u32 {
        // SAFETY: as in `read8`.
        unsafe { self.space.read32(self.port(offset, 4)) }
    }

    /// Writes 8 bits at `offset`.
    pub fn write8(&self, offset: u16, value: u8) {
        // SAFETY: as in `read8`.
        unsafe { self.space.write8(self.port(offset, 1), value) }
    }

    /// Writes 16 bits at `offset`.
    pub fn write16(&self, offset: u16, value: u16) {
        // SAFETY: as in `read8`.
        unsafe { self.space.write16(self.port(offset, 2), value) }
    }

    /// Writes 32 bits at `offset`.
    pub fn write32(&self, offset: u16, value: u32) {
        // SAFETY: as in `read8`.
        unsafe { self.space.write32(self.port(offset, 4), value) }
    }

    /// A notifier that writes `value`, 16 bits wide, at `offset`.
    pub fn notifier(&self, offset: u16, value: u16) -> Notifier {
        // SAFETY: as in `read8`; the region is owned for as long as its device
        // is, and the notifier is handed to that device's queue.
        unsafe { self.space.notifier(self.port(offset, 2), value) }
    }

    /// A handle on the ISR status at `offset`.
    pub fn isr_status(&self, offset: u16) -> IsrStatus {
        // SAFETY: as in `notifier`.
        unsafe { self.space.isr_status(self.port(offset, 1)) }
    }
}

impl<S> fmt::Debug for IoRegion<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoRegion({:#06x} +{:#x})", self.base, self.len)
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
pub use x86::{X86Ports, out16};

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
mod x86 {
    use core::arch::asm;

    use super::IoSpace;
    use crate::transport::{IsrStatus, Notifier};

    /// The IO ports of an x86 processor (`in` and `out`).
    ///
    /// None of these `asm!` blocks is `nomem`: the compiler takes each for an
    /// access to memory, so writes to a ring stay before the doorbell.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct X86Ports;

    /// One 16-bit `out`.
    ///
    /// # Safety
    ///
    /// As for [`IoSpace::write16`].
    #[inline(always)]
    pub unsafe fn out16(port: u16, value: u16) {
        // SAFETY: the caller owns the port; the block says that memory is
        // accessed, since the device may act on it.
        unsafe {
            asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags));
        }
    }

    // SAFETY: each method is one `in` or `out` of the width in its name, in
    // program order, and none is `nomem`.
    unsafe impl IoSpace for X86Ports {
        unsafe fn read8(&self, port: u16) -> u8 {
            let value;
            // SAFETY: the caller owns the port.
            unsafe {
                asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags));
            }
            value
        }

        unsafe fn read16(&self, port: u16) -> u16 {
            let value;
            // SAFETY: the caller owns the port.
            unsafe {
                asm!("in ax, dx", in("dx") port, out("ax") value, options(nostack, preserves_flags));
            }
            value
        }

        unsafe fn read32(&self, port: u16) -> u32 {
            let value;
            // SAFETY: the caller owns the port.
            unsafe {
                asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags));
            }
            value
        }

        unsafe fn write8(&self, port: u16, value: u8) {
            // SAFETY: the caller owns the port.
            unsafe {
                asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags));
            }
        }

        unsafe fn write16(&self, port: u16, value: u16) {
            // SAFETY: the caller owns the port.
            unsafe { out16(port, value) }
        }

        unsafe fn write32(&self, port: u16, value: u32) {
            // SAFETY: the caller owns the port.
            unsafe {
                asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags));
            }
        }

        unsafe fn notifier(&self, port: u16, value: u16) -> Notifier {
            // SAFETY: the caller owns the port while the notifier lives.
            unsafe { Notifier::port(port, value) }
        }

        unsafe fn isr_status(&self, port: u16) -> IsrStatus {
            // SAFETY: as above.
            unsafe { IsrStatus::port(port) }
        }
    }
}
