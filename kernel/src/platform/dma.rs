//! What the driver library asks of this kernel: memory for devices, and device
//! memory. All is mapped at its own address, so a pointer's value is the address
//! that a device uses.

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::ptr::NonNull;

use doorbell::compat::{BufferDirection, StaticDma};
use doorbell::dma::{Dma, DmaError, DmaMemory};
use doorbell::mmio::{MapError, MapMmio};

use super::memory;

/// Memory for devices, from the kernel's heap.
#[derive(Clone, Copy, Debug)]
pub struct KernelDma;

// SAFETY: the heap's blocks are RAM below 4 GiB, mapped at their own addresses,
// and on this architecture coherent with devices.
unsafe impl Dma for KernelDma {
    fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
        let error = DmaError { size, align };
        let layout = Layout::from_size_align(size, align).map_err(|_| error)?;
        if size == 0 {
            return Err(error);
        }
        // SAFETY: the size is not 0.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(error)?;
        let address = pointer.as_ptr().expose_provenance() as u64;
        Ok(DmaMemory {
            pointer,
            address,
            size,
            align,
        })
    }

    unsafe fn free(&self, memory: DmaMemory) {
        if let Ok(layout) = Layout::from_size_align(memory.size, memory.align) {
            // SAFETY: from `allocate`, with the same layout, by the caller's word.
            unsafe { dealloc(memory.pointer.as_ptr(), layout) };
        }
    }
}

/// Upstream's drivers take their memory from the same heap, and devices see their
/// buffers, which are the heap's or a stack's, where they are.
// SAFETY: all `KernelDma`s are one heap, and address 0 is none of its; all RAM is
// mapped at its own address, so that a buffer is contiguous for devices as well.
unsafe impl StaticDma for KernelDma {
    type Dma = Self;

    fn dma() -> Self {
        Self
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> u64 {
        buffer.as_ptr().expose_provenance() as u64
    }

    unsafe fn unshare(_: u64, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// Device memory, mapped uncached and for good.
#[derive(Clone, Copy, Debug)]
pub struct KernelMmio;

// SAFETY: `map_mmio` maps all of it, uncached, never unmaps it, and refuses RAM.
unsafe impl MapMmio for KernelMmio {
    fn map(&self, address: u64, len: u64) -> Result<NonNull<u8>, MapError> {
        let error = MapError { address, len };
        let length = usize::try_from(len).map_err(|_| error)?;
        memory::map_mmio(address, length).map_err(|_| error)
    }
}
