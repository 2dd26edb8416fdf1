//! Pages, and how a device is told of them (virtio 1.2, 5.5.6).

use core::fmt;
use core::mem::ManuallyDrop;

use crate::device::slots::Slot;
use crate::device::{DeviceError, check_len};
use crate::dma::{Dma, DmaRegion};
use crate::queue::Buffer;

/// Bytes in a page of a balloon, whatever the processor's have (5.5.6).
pub const PAGE: usize = 4096;

/// The most pages in a request.
pub const MAX_PAGES: usize = 256;

/// Bytes that the numbers of a request's pages take.
pub(super) const ARRAY: usize = MAX_PAGES * size_of::<u32>();

/// Pages that are in a balloon: the device may take away what they hold, and
/// nobody reads or writes them.
///
/// Dropped, they stay there, and are lost to the guest.
#[must_use = "pages that are dropped in the balloon are lost to the guest"]
pub struct Ballooned<D: Dma> {
    pages: ManuallyDrop<DmaRegion<D>>,
    /// Which driver's balloon.
    balloon: usize,
}

impl<D: Dma> Ballooned<D> {
    pub(super) fn new(pages: DmaRegion<D>, balloon: usize) -> Self {
        Self {
            pages: ManuallyDrop::new(pages),
            balloon,
        }
    }

    /// The pages, if they are in that driver's balloon.
    pub(super) fn out_of(self, balloon: usize) -> Result<DmaRegion<D>, Self> {
        if self.balloon == balloon {
            Ok(ManuallyDrop::into_inner(self.pages))
        } else {
            Err(self)
        }
    }

    /// The device address of the first page.
    pub fn address(&self) -> u64 {
        self.pages.address()
    }

    /// How many pages of 4096 bytes there are.
    pub fn pages(&self) -> u32 {
        count(&self.pages)
    }
}

impl<D: Dma> fmt::Debug for Ballooned<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ballooned({:#x}, {} pages)",
            self.address(),
            self.pages()
        )
    }
}

/// How many pages there are; [`check`] sees to it that they are few.
pub(super) fn count<D: Dma>(pages: &DmaRegion<D>) -> u32 {
    (pages.len() / PAGE) as u32
}

/// Checks that a device can be told of pages.
pub(super) fn check<D: Dma>(pages: &DmaRegion<D>) -> Result<(), DeviceError> {
    check_len(pages.len(), PAGE, MAX_PAGES * PAGE)?;
    let address = pages.address();
    let last = address / PAGE as u64 + u64::from(count(pages) - 1);
    if address.is_multiple_of(PAGE as u64) && u32::try_from(last).is_ok() {
        Ok(())
    } else {
        Err(DeviceError::PageAddress { address })
    }
}

/// Writes the numbers of pages, and says where the device finds them.
///
/// # Safety
///
/// The slot has [`ARRAY`] bytes, and the device is not accessing it. The pages are
/// such as [`check`] allows.
pub(super) unsafe fn write<D: Dma>(slot: Slot, pages: &DmaRegion<D>, is_legacy: bool) -> Buffer {
    let first = (pages.address() / PAGE as u64) as u32;
    let count = count(pages);
    for n in 0..count {
        // The legacy interface has the guest's own byte order (2.7.3).
        let number = if is_legacy {
            first + n
        } else {
            (first + n).to_le()
        };
        // SAFETY: no more than `MAX_PAGES`, so inside the slot; slots of that size
        // are aligned.
        unsafe {
            slot.pointer
                .cast::<u32>()
                .add(n as usize)
                .write_volatile(number)
        };
    }
    Buffer::readable(slot.address, count * size_of::<u32>() as u32)
}
