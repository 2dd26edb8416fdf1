//! What rings a doorbell.
//!
//! A notifier is handed out by `Transport::enable_queue` with its address and
//! its value already worked out, so that ringing is one `out` or one store and
//! nothing else. Whoever times doorbells takes the variant apart first and rings
//! it through its own type: then not even the `match` stands in the timed path.

use core::fmt;
use core::ptr::NonNull;

use crate::port::{CamNotifier, PortNotifier};

/// Something that can be rung.
pub trait Notify {
    /// Rings the doorbell: one access to the device, and nothing else. That the
    /// device sees the ring's writes first is the caller's affair:
    /// [`Ring::needs_notification`](crate::queue::Ring::needs_notification)
    /// executes the barrier (2.7.13.3.1, 2.7.13.4.1).
    fn notify(&self);
}

/// One store of a 16- or 32-bit value to device memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StoreNotifier<T> {
    address: NonNull<T>,
    value: T,
}

// SAFETY: it is an address and a value; the store is to a device register that
// takes writes from any CPU.
unsafe impl<T: Send> Send for StoreNotifier<T> {}

impl<T> StoreNotifier<T> {
    /// Where the processor stores to, for reports.
    pub fn address(&self) -> NonNull<T> {
        self.address
    }
}

impl<T: Copy> Notify for StoreNotifier<T> {
    #[inline(always)]
    fn notify(&self) {
        // SAFETY: the address is mapped and the device's (`Notifier::store16`,
        // `store32`). A volatile store is not moved before the fence that the
        // queue executes between publishing and ringing.
        unsafe { self.address.write_volatile(self.value) }
    }
}

impl<T: Copy + fmt::LowerHex> fmt::Debug for StoreNotifier<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreNotifier({:p} <- {:#x})", self.address, self.value)
    }
}

/// A queue's doorbell, in each form that there is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Notifier {
    /// An `out` to an IO BAR.
    Port(PortNotifier),
    /// A 16-bit store to a memory BAR.
    Store16(StoreNotifier<u16>),
    /// A 32-bit store: virtio-mmio's register, or the configuration window
    /// through ECAM.
    Store32(StoreNotifier<u32>),
    /// A configuration write through ports.
    Cam(CamNotifier),
}

impl Notifier {
    /// Rings by a 16-bit store.
    ///
    /// # Safety
    ///
    /// The address is mapped, and is a doorbell of a device that the caller
    /// owns, for as long as the notifier is used.
    pub unsafe fn store16(address: NonNull<u16>, value: u16) -> Self {
        Self::Store16(StoreNotifier {
            address,
            value: value.to_le(),
        })
    }

    /// Rings by a 32-bit store.
    ///
    /// # Safety
    ///
    /// As for [`store16`](Self::store16).
    pub unsafe fn store32(address: NonNull<u32>, value: u32) -> Self {
        Self::Store32(StoreNotifier {
            address,
            value: value.to_le(),
        })
    }
}

impl Notify for Notifier {
    #[inline]
    fn notify(&self) {
        match self {
            Self::Port(port) => port.notify(),
            Self::Store16(store) => store.notify(),
            Self::Store32(store) => store.notify(),
            Self::Cam(cam) => cam.notify(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_writes_its_value_once_where_it_was_told() {
        let mut cells = [0u16; 3];
        let middle = NonNull::from(&mut cells[1]);
        // SAFETY: the cell outlives the notifier.
        let notifier = unsafe { Notifier::store16(middle, 0x1234) };
        assert!(matches!(notifier, Notifier::Store16(store) if store.address() == middle));
        notifier.notify();
        assert_eq!(cells, [0, 0x1234, 0]);
    }
}
