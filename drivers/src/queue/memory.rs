//! The rings' accesses to memory that both sides access, in one place, so that in
//! tests a model can stand in for the memory (`model`).

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

#[cfg(test)]
use super::model;

/// A field that both sides access at any time, and therefore atomically.
#[derive(Clone, Copy)]
pub(super) struct Field<'m, A>(pub(super) &'m A);

macro_rules! field {
    ($atomic:ty, $value:ty) => {
        impl Field<'_, $atomic> {
            /// Its value, as it is in memory.
            #[inline(always)]
            pub(super) fn load(self, order: Ordering) -> $value {
                #[cfg(test)]
                if let Some(value) = model::driver_loads(self.0.as_ptr(), order) {
                    return value;
                }
                self.0.load(order)
            }

            #[inline(always)]
            pub(super) fn store(self, value: $value, order: Ordering) {
                #[cfg(test)]
                if model::driver_stores(self.0.as_ptr(), value, order) {
                    return;
                }
                self.0.store(value, order)
            }
        }
    };
}

field!(AtomicU16, u16);
field!(AtomicU32, u32);

/// Writes what the device reads once it was made available, and not before.
///
/// # Safety
///
/// As for [`NonNull::write_volatile`].
#[inline(always)]
pub(super) unsafe fn write<T>(at: NonNull<T>, value: T) {
    #[cfg(test)]
    if model::driver_writes(at, &value) {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { at.write_volatile(value) }
}

/// Reads what the device has written before it gave it back, once.
///
/// # Safety
///
/// As for [`NonNull::read_volatile`].
#[inline(always)]
pub(super) unsafe fn read<T: Copy>(at: NonNull<T>) -> T {
    #[cfg(test)]
    if let Some(value) = model::driver_reads(at) {
        return value;
    }
    // SAFETY: the caller's promise.
    unsafe { at.read_volatile() }
}
