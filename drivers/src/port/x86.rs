//! The IO ports of an x86 processor: `in` and `out`.

use core::arch::asm;

use super::IoSpace;
use crate::pci::cam::{CONFIG_ADDRESS, CONFIG_DATA};
use crate::transport::{IsrStatus, Notifier, Notify};

/// The IO ports of an x86 processor (`in` and `out`).
///
/// None of these `asm!` blocks is `nomem`: the compiler takes each for an
/// access to memory, so writes to a ring stay before the doorbell.
#[derive(Clone, Copy, Debug, Default)]
pub struct X86Ports;

// SAFETY: each method is one `in` or `out` of the width in its name, in
// program order, and none is `nomem`.
unsafe impl IoSpace for X86Ports {
    #[inline(always)]
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

    #[inline(always)]
    unsafe fn write8(&self, port: u16, value: u8) {
        // SAFETY: the caller owns the port.
        unsafe {
            asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn write16(&self, port: u16, value: u16) {
        // SAFETY: the caller owns the port.
        unsafe {
            asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn write32(&self, port: u16, value: u32) {
        // SAFETY: the caller owns the port.
        unsafe {
            asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags));
        }
    }

    unsafe fn notifier(&self, port: u16, value: u16) -> Notifier {
        Notifier::Port(PortNotifier { port, value })
    }

    unsafe fn isr_status(&self, port: u16) -> IsrStatus {
        PortByte { port }.into()
    }

    unsafe fn cam_notifier(&self, address: u32, value: u32) -> Option<Notifier> {
        Some(Notifier::Cam(CamNotifier { address, value }))
    }
}

/// One 16-bit `out` to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortNotifier {
    port: u16,
    value: u16,
}

impl Notify for PortNotifier {
    #[inline(always)]
    fn notify(&self) {
        // SAFETY: `IoSpace::notifier`'s caller owns the port.
        unsafe { X86Ports.write16(self.port, self.value) }
    }
}

/// A write to PCI configuration space through ports 0xCF8 and 0xCFC: two `out`s,
/// because that mechanism takes the register's address first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CamNotifier {
    address: u32,
    value: u32,
}

impl Notify for CamNotifier {
    #[inline(always)]
    fn notify(&self) {
        // SAFETY: `IoSpace::cam_notifier`'s caller owns the mechanism.
        unsafe {
            X86Ports.write32(CONFIG_ADDRESS, self.address);
            X86Ports.write32(CONFIG_DATA, self.value);
        }
    }
}

/// A byte at a port.
#[derive(Clone, Copy, Debug)]
pub struct PortByte {
    port: u16,
}

impl PortByte {
    pub(crate) fn read(self) -> u8 {
        // SAFETY: `IoSpace::isr_status`'s caller owns the port.
        unsafe { X86Ports.read8(self.port) }
    }
}
