//! Memory: all of the first GiB is seen at an offset, frames come from a bump
//! allocator that never takes any back, and devices have addresses of their own.

use core::ops::Range;
use core::ptr::{self, NonNull};

use spin::Mutex;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

/// Where physical address 0 is seen.
const PHYSICAL: u64 = 0xffff_8000_0000_0000;
/// Where that of devices is seen, uncached. Apart from RAM's, so that no address has
/// two kinds of caching.
const DEVICES: u64 = 0xffff_c000_0000_0000;
/// What boot.s mapped.
pub(super) const MAPPED: u64 = 1 << 30;

static FREE: Mutex<Range<u64>> = Mutex::new(0..0);

/// Where the CPU sees a physical address in the first GiB.
pub(super) fn at(address: u64) -> NonNull<u8> {
    let pointer = ptr::with_exposed_provenance_mut((PHYSICAL + address) as usize);
    NonNull::new(pointer).expect("the offset is not 0")
}

/// Takes over the RAM that is free, and takes away the lower half: a physical
/// address that is used as a pointer faults from now on.
///
/// # Safety
///
/// Nobody uses `ram`, and nothing in the lower half.
pub(super) unsafe fn init(ram: Range<u64>) {
    *FREE.lock() = ram.start..ram.end.min(MAPPED);
    tables().level_4_table_mut()[0].set_unused();
    x86_64::instructions::tlb::flush_all();
}

/// Takes `size` bytes of RAM, aligned to `align` (a power of two), for ever: their
/// physical address.
pub(super) fn allocate(size: usize, align: usize) -> Option<u64> {
    let mut free = FREE.lock();
    let start = free.start.checked_next_multiple_of(align as u64)?;
    let end = start.checked_add(size as u64)?;
    if end > free.end {
        return None;
    }
    free.start = end;
    Some(start)
}

/// Maps `len` bytes from the physical address `address` of a device.
pub(super) fn map_device(address: u64, len: u64) -> Option<NonNull<u8>> {
    let last = address.checked_add(len.checked_sub(1)?)?;
    let frames = PhysFrame::<Size4KiB>::range_inclusive(
        PhysFrame::containing_address(PhysAddr::try_new(address).ok()?),
        PhysFrame::containing_address(PhysAddr::try_new(last).ok()?),
    );
    let flags = PageTableFlags::PRESENT
        | PageTableFlags::WRITABLE
        | PageTableFlags::NO_CACHE
        | PageTableFlags::NO_EXECUTE;
    for frame in frames {
        let virt = VirtAddr::try_new(DEVICES + frame.start_address().as_u64()).ok()?;
        // SAFETY: a page of its own, for a frame that is no RAM.
        match unsafe { tables().map_to(Page::containing_address(virt), frame, flags, &mut Frames) }
        {
            Ok(flush) => flush.flush(),
            // Another device of the same page; it can only be the same frame.
            Err(MapToError::PageAlreadyMapped(_)) => {}
            Err(_) => return None,
        }
    }
    NonNull::new(ptr::with_exposed_provenance_mut(
        (DEVICES + address) as usize,
    ))
}

/// The page tables in use.
fn tables() -> OffsetPageTable<'static> {
    let (frame, _) = Cr3::read();
    let table = at(frame.start_address().as_u64()).cast::<PageTable>();
    // SAFETY: all tables are in the first GiB, and one CPU uses them, never in an
    // interrupt and never two at a time.
    unsafe { OffsetPageTable::new(&mut *table.as_ptr(), VirtAddr::new(PHYSICAL)) }
}

struct Frames;

// SAFETY: each frame is given once.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let address = allocate(4096, 4096)?;
        Some(PhysFrame::containing_address(PhysAddr::new(address)))
    }
}
