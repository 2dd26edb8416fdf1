//! Upstream's `Hal`, made from memory of ours.

use core::marker::PhantomData;
use core::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::dma::{Dma, DmaMemory};

/// Memory that can be reached without a value: upstream's `Hal` has none to ask.
///
/// # Safety
///
/// An implementer owes that memory which one [`Dma`] from [`dma`](Self::dma)
/// allocated may be freed by another; that no memory has the device address 0; and
/// what [`share`](Self::share) and [`unshare`](Self::unshare) say.
pub unsafe trait StaticDma {
    /// What allocates rings.
    type Dma: Dma;

    /// The allocator.
    fn dma() -> Self::Dma;

    /// Lets a device reach a driver's own `buffer`, which lies anywhere in the
    /// kernel's memory, and says where the device sees all of it, contiguously. Where
    /// devices see all memory, this is its address; elsewhere the buffer is mapped or
    /// copied. Upstream knows no failure here.
    ///
    /// # Safety
    ///
    /// `buffer` is valid, not empty, and nobody else accesses it during the call.
    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> u64;

    /// Ends what [`share`](Self::share) began, and brings back into `buffer` what the
    /// device wrote, if that is elsewhere.
    ///
    /// # Safety
    ///
    /// As for [`share`](Self::share), which returned `address` for this buffer; the
    /// device is done with it.
    unsafe fn unshare(address: u64, buffer: NonNull<[u8]>, direction: BufferDirection);
}

/// The `Hal` for upstream's drivers that takes its memory from `S`.
#[derive(Debug)]
pub struct DmaHal<S>(PhantomData<S>);

/// What describes `pages` of memory.
fn describe(address: PhysAddr, pointer: NonNull<u8>, pages: usize) -> DmaMemory {
    DmaMemory {
        pointer,
        address,
        size: pages * PAGE_SIZE,
        align: PAGE_SIZE,
    }
}

// SAFETY: memory from `Dma::allocate` is valid, zeroed, aligned as asked for, and
// nobody else's.
unsafe impl<S: StaticDma> Hal for DmaHal<S> {
    /// Where there is no memory, the address is 0, which upstream asks for.
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let nothing = (0, NonNull::dangling());
        let size = pages.checked_mul(PAGE_SIZE).filter(|&size| size != 0);
        let Some(size) = size else { return nothing };
        match S::dma().allocate(size, PAGE_SIZE) {
            Ok(memory) => (memory.address, memory.pointer),
            Err(_) => nothing,
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller says that this is from `dma_alloc`, and used no more.
        unsafe { S::dma().free(describe(paddr, vaddr, pages)) };
        0
    }

    /// Upstream's own PCI transport alone maps device memory: it is not this crate's.
    ///
    /// # Panics
    ///
    /// Always.
    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        panic!("{size} bytes at {paddr:#x}: `DmaHal` is for doorbell's transports")
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        // SAFETY: the caller's promise.
        unsafe { S::share(buffer, direction) }
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        // SAFETY: the caller's promise.
        unsafe { S::unshare(paddr, buffer, direction) }
    }
}
