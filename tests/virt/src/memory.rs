//! Memory for devices: all of RAM behind the image, as it is. Without paging and without
//! an IOMMU, a pointer is an address and the other way round.

use core::cell::Cell;
use core::ptr::NonNull;

use doorbell::dma::{Dma, DmaError, DmaMemory};
use doorbell::mmio::{MapError, MapMmio};
use doorbell::pci::AddressRange;

use crate::report::Error;

unsafe extern "C" {
    static __image_end: u8;
}

/// Device memory is where its address says.
pub(crate) struct Identity;

// SAFETY: there is no paging, and machine mode reaches everything; QEMU's machine says
// by address what is device memory.
unsafe impl MapMmio for Identity {
    fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError> {
        NonNull::new(address as *mut u8).ok_or(MapError { address, len })
    }
}

/// Gives memory from the bottom up, and begins anew when all of it has come back.
pub(crate) struct Arena {
    range: AddressRange,
    next: Cell<u64>,
    live: Cell<usize>,
}

impl Arena {
    /// What is free of `ram`: from the end of the image up to the device tree, or to
    /// the end.
    pub(crate) fn new(ram: AddressRange, device_tree: u64) -> Result<Self, Error> {
        let image_end = (&raw const __image_end) as u64;
        let last = if device_tree > image_end {
            ram.last.min(device_tree - 1)
        } else {
            ram.last
        };
        let range = AddressRange::new(image_end, last)
            .filter(|range| ram.contains(*range))
            .ok_or(Error::Memory(ram))?;
        Ok(Self {
            range,
            next: Cell::new(range.first),
            live: Cell::new(0),
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.range.size()
    }
}

// SAFETY: RAM behind the image is nobody else's; a region is given once until all are
// back, and zeroed. `virt` keeps the caches of its devices coherent (`dma-coherent`).
unsafe impl Dma for Arena {
    fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
        let full = DmaError { size, align };
        let first = self.next.get().checked_next_multiple_of(align as u64);
        let range = first.and_then(|first| AddressRange::sized(first, size as u64));
        let range = range.filter(|range| self.range.contains(*range));
        let range = range.ok_or(full)?;
        let pointer = NonNull::new(range.first as *mut u8).ok_or(full)?;
        // SAFETY: inside of what is free.
        unsafe { pointer.write_bytes(0, size) };
        self.next.set(range.last + 1);
        self.live.set(self.live.get() + 1);
        Ok(DmaMemory {
            pointer,
            address: range.first,
            size,
            align,
        })
    }

    unsafe fn free(&self, _: DmaMemory) {
        self.live.set(self.live.get() - 1);
        if self.live.get() == 0 {
            self.next.set(self.range.first);
        }
    }
}
