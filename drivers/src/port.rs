//! IO space: the ports of an x86 processor, or a window of memory that a host
//! bridge turns into IO cycles on other architectures.
//!
//! This is the only module that names an architecture: `port/x86.rs` has the
//! instructions, `port/none.rs` stands in for them where there are none, `port/window.rs`
//! is the window, and `port/order.rs` has the barriers between memory and devices.

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

    /// Whether the space has `len` ports from `base`: all that are below 64 Ki, unless
    /// an implementer says otherwise.
    fn holds(&self, base: u16, len: u16) -> bool {
        u32::from(base) + u32::from(len) <= 0x1_0000
    }

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

    /// A notifier that writes `address` to port 0xCF8 and `value` to port 0xCFC,
    /// both 32 bits wide: a write to PCI configuration space. `None` where there
    /// is none.
    ///
    /// # Safety
    ///
    /// As for [`write32`](Self::write32), for as long as the notifier lives; and
    /// nobody else uses the two ports while it rings.
    unsafe fn cam_notifier(&self, address: u32, value: u32) -> Option<Notifier> {
        let _ = (address, value);
        None
    }
}

/// A range of IO ports that belongs to its holder: a device's IO BAR.
#[derive(Clone, Copy)]
pub struct IoRegion<S> {
    space: S,
    base: u16,
    len: u16,
}

impl<S: IoSpace> IoRegion<S> {
    /// Takes `len` ports from `base`; `None` if IO space does not have them all
    /// ([`IoSpace::holds`]).
    ///
    /// # Safety
    ///
    /// The ports belong to a device that the caller owns, and nobody else
    /// accesses them.
    pub unsafe fn new(space: S, base: u16, len: u16) -> Option<Self> {
        space.holds(base, len).then_some(Self { space, base, len })
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

pub(crate) mod order;
mod window;

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
#[path = "port/x86.rs"]
mod native;
#[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
#[path = "port/none.rs"]
mod native;

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
pub use native::X86Ports;
pub use native::{CamNotifier, PortByte, PortNotifier};
pub use window::IoWindow;
