//! Device memory: mapping it, and a bounds-checked view of a part of it.

use core::fmt;
use core::ptr::NonNull;

use volatile::VolatilePtr;

/// Maps device memory into the kernel's address space.
///
/// # Safety
///
/// An implementer owes a mapping of all `len` bytes that stays valid for ever
/// (or until no driver of this crate uses it), is not cached, and is given to
/// nobody else as ordinary memory.
pub unsafe trait MapMmio {
    /// Maps `len` bytes of device memory from the physical address `address`.
    ///
    /// # Errors
    ///
    /// [`MapError`] where the range cannot be mapped.
    fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError>;
}

// SAFETY: it is the referent's own promise.
unsafe impl<M: MapMmio + ?Sized> MapMmio for &M {
    fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError> {
        (**self).map(address, len)
    }
}

/// Device memory that could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapError {
    /// Physical address of the range.
    pub address: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot map {} bytes of device memory at {:#x}",
            self.len, self.address
        )
    }
}

impl core::error::Error for MapError {}

/// Mapped device memory of a known length. Its bounds are checked when a part
/// is taken out of it; accesses to a part need no further check.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MmioRegion {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it is an address; device memory has no affinity to a thread, and a
// driver that shares its region with another thread does so through its own
// `&mut` methods.
unsafe impl Send for MmioRegion {}

impl MmioRegion {
    /// Device memory of `len` bytes at `base`.
    ///
    /// # Safety
    ///
    /// `base` is mapped for `len` bytes as [`MapMmio`] describes, for as long as
    /// the region or a part of it is used, and the device is the caller's.
    pub unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }

    /// Maps `len` bytes from the physical address `address`.
    ///
    /// # Errors
    ///
    /// [`MapError`] from the mapper, or where `len` is more than a `usize` holds.
    ///
    /// # Safety
    ///
    /// The address range is a device's, and the device is the caller's.
    pub unsafe fn map(mapper: &impl MapMmio, address: u64, len: u64) -> Result<Self, MapError> {
        let size = usize::try_from(len).map_err(|_| MapError { address, len })?;
        let base = mapper.map(address, len)?;
        // SAFETY: `MapMmio` promises the mapping, the caller the device.
        Ok(unsafe { Self::new(base, size) })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the region holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part from `offset` of `len` bytes; `None` if it is not inside.
    pub fn part(&self, offset: u64, len: u64) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if end > self.len as u64 {
            return None;
        }
        // SAFETY: `offset` is inside the mapping.
        let base = unsafe { self.base.add(offset as usize) };
        Some(Self {
            base,
            len: len as usize,
        })
    }

    /// The register, or block of registers, at `offset`; `None` if it is not
    /// inside or not aligned.
    pub fn registers<T: Plain>(&self, offset: u64) -> Option<Registers<T>> {
        let pointer = self.part(offset, size_of::<T>() as u64)?.base.cast::<T>();
        pointer.is_aligned().then_some(Registers(pointer))
    }
}

impl fmt::Debug for MmioRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MmioRegion({:p} +{:#x})", self.base, self.len)
    }
}

/// Types that are valid for any content: integers, and structs of them.
///
/// # Safety
///
/// The implementer promises just that.
pub unsafe trait Plain {}

// SAFETY: integers and arrays of them.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: `repr(C)`, of little-endian integers and of bit flags over them, all
// of which allow any bits.
unsafe impl Plain for virtio_spec::pci::CommonCfg {}

/// A register, or a block of registers, whose place was checked when it was
/// taken out of its [`MmioRegion`].
pub struct Registers<T>(NonNull<T>);

impl<T> Clone for Registers<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Registers<T> {}

// SAFETY: as for `MmioRegion`.
unsafe impl<T> Send for Registers<T> {}

impl<T> Registers<T> {
    /// A volatile pointer to the registers.
    pub fn ptr(&self) -> VolatilePtr<'_, T> {
        // SAFETY: mapped (by `MmioRegion::new`'s contract), inside and aligned
        // (`MmioRegion::registers`), valid for any content (`Plain`); only
        // volatile accesses are made.
        unsafe { VolatilePtr::new(self.0) }
    }

    /// Where the registers are mapped.
    pub fn address(&self) -> NonNull<T> {
        self.0
    }
}

impl<T> fmt::Debug for Registers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registers({:p})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_must_be_inside() {
        let mut memory = [0u32; 4];
        let base = NonNull::new(memory.as_mut_ptr().cast()).unwrap();
        // SAFETY: `memory` outlives the region.
        let region = unsafe { MmioRegion::new(base, 16) };
        assert_eq!(region.part(12, 4).unwrap().len(), 4);
        assert_eq!(region.part(16, 0).unwrap().len(), 0);
        assert!(region.part(13, 4).is_none());
        assert!(region.part(u64::MAX, 2).is_none());
        assert!(region.part(1, u64::MAX).is_none());
        assert!(region.registers::<u32>(2).is_none(), "not aligned");
        assert!(region.registers::<u32>(16).is_none(), "outside");
        assert!(region.registers::<u32>(12).is_some());
    }

    struct Nowhere;

    // SAFETY: it maps nothing.
    unsafe impl MapMmio for Nowhere {
        fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError> {
            Err(MapError { address, len })
        }
    }

    #[test]
    fn an_error_names_the_range() {
        // SAFETY: nothing is mapped.
        let error = unsafe { MmioRegion::map(&&Nowhere, 0xfe00_0000, 4096) }.unwrap_err();
        assert_eq!(
            std::format!("{error}"),
            "cannot map 4096 bytes of device memory at 0xfe000000"
        );
    }
}
