//! The final page tables: everything identity-mapped, nothing writable that
//! is executable, and no page 0.
//!
//! | what | rights |
//! |---|---|
//! | the image's code | read, execute |
//! | its constants | read |
//! | its variables and stack | read, write |
//! | the page below the stack, page 0 | none |
//! | all other RAM | read, write |
//!
//! Devices and firmware tables stay unmapped until the kernel asks for them.

use core::ops::Range;

use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame,
    Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use crate::error::BootError;
use crate::start_info::{BootInfo, RegionKind};

/// Where the entry code's page tables end: new tables must lie below, so that
/// they can be written before they are in force.
const FIRST_MAPPING_END: u64 = 1 << 32;

/// The image's parts as the linker script laid them out, in whole pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Code.
    pub text: Range<u64>,
    /// Constants.
    pub rodata: Range<u64>,
    /// Variables.
    pub data: Range<u64>,
    /// The page that stays unmapped. It ends where the stack's memory begins.
    pub guard: Range<u64>,
    /// The stack. It ends where the image ends.
    pub stack: Range<u64>,
}

impl Layout {
    /// The whole image, without the page tables that follow it.
    pub fn image(&self) -> Range<u64> {
        self.text.start..self.stack.end
    }
}

/// Hands out the frames that follow the image.
struct Frames {
    next: u64,
    end: u64,
}

// SAFETY: each frame is handed out once; `build` starts `next` behind the
// image, ends in the same RAM region, and reports what was taken.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let frame = self.next;
        self.next += Size4KiB::SIZE;
        (self.next <= self.end).then(|| PhysFrame::containing_address(PhysAddr::new(frame)))
    }
}

/// Page tables under construction.
struct Builder<'a> {
    tables: OffsetPageTable<'a>,
    frames: Frames,
}

/// Builds the tables in the RAM behind the image and returns the address of
/// the root. `info.image` becomes the image and its tables.
///
/// `offset` is what to add to a physical address to reach it now. With `nx`
/// the CPU knows the no-execute bit.
///
/// # Errors
/// When the map has no RAM at the image, or too little behind it.
///
/// # Safety
/// The RAM behind the image up to 4 GiB must be unused and reachable at
/// `offset`.
pub unsafe fn build(
    info: &mut BootInfo,
    layout: &Layout,
    offset: u64,
    nx: bool,
) -> Result<u64, BootError> {
    let image = layout.image();
    let home = info
        .memory_map()
        .filter(|region| region.kind == RegionKind::Ram)
        .find(|region| region.base <= image.start && image.end <= region.base + region.size)
        .ok_or(BootError::ImageOutsideRam {
            start: image.start,
            end: image.end,
        })?;
    let mut frames = Frames {
        next: image.end,
        end: (home.base + home.size).min(FIRST_MAPPING_END),
    };
    let no_room = BootError::NoRoomForPageTables { end: frames.end };
    let root = frames
        .allocate_frame()
        .ok_or(no_room)?
        .start_address()
        .as_u64();
    // SAFETY: the caller vouches that this frame is unused and reachable.
    let root_table = unsafe {
        let table = (root + offset) as *mut PageTable;
        table.write(PageTable::new());
        &mut *table
    };
    // SAFETY: the root is empty, and every table below it will come from
    // `frames`, all of it reachable at `offset`.
    let tables = unsafe { OffsetPageTable::new(root_table, VirtAddr::new(offset)) };
    let mut builder = Builder { tables, frames };

    let no_execute = if nx {
        PageTableFlags::NO_EXECUTE
    } else {
        PageTableFlags::empty()
    };
    let read_execute = PageTableFlags::PRESENT;
    let read = PageTableFlags::PRESENT | no_execute;
    let read_write = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | no_execute;
    for region in info
        .memory_map()
        .filter(|region| region.kind == RegionKind::Ram)
    {
        // Whole pages only, and never page 0: a null pointer must fault.
        let start = region
            .base
            .next_multiple_of(Size4KiB::SIZE)
            .max(Size4KiB::SIZE);
        let end = (region.base + region.size) / Size4KiB::SIZE * Size4KiB::SIZE;
        builder.map(start..end.min(image.start), read_write)?;
        builder.map(start.max(image.end)..end, read_write)?;
    }
    builder.map(layout.text.clone(), read_execute)?;
    builder.map(layout.rodata.clone(), read)?;
    builder.map(layout.data.clone(), read_write)?;
    builder.map(layout.stack.clone(), read_write)?;
    info.image = image.start..builder.frames.next;
    Ok(root)
}

impl Builder<'_> {
    /// Maps whole pages, in the largest size that fits. An empty or reversed
    /// range maps nothing.
    fn map(&mut self, range: Range<u64>, flags: PageTableFlags) -> Result<(), BootError> {
        let mut address = range.start;
        while address < range.end {
            let large =
                address.is_multiple_of(Size2MiB::SIZE) && range.end - address >= Size2MiB::SIZE;
            address += if large {
                self.map_page::<Size2MiB>(address, flags)?
            } else {
                self.map_page::<Size4KiB>(address, flags)?
            };
        }
        Ok(())
    }

    /// Maps one page at its own address and returns its size.
    fn map_page<S: PageSize>(
        &mut self,
        address: u64,
        flags: PageTableFlags,
    ) -> Result<u64, BootError>
    where
        for<'a> OffsetPageTable<'a>: Mapper<S>,
    {
        let page = Page::<S>::containing_address(VirtAddr::new(address));
        let frame = PhysFrame::<S>::containing_address(PhysAddr::new(address));
        // SAFETY: these tables are not in force yet, so mapping changes
        // nothing; that the frame is RAM or the image is `build`'s business.
        match unsafe { self.tables.map_to(page, frame, flags, &mut self.frames) } {
            Ok(flush) => {
                flush.ignore();
                Ok(S::SIZE)
            }
            Err(MapToError::FrameAllocationFailed) => Err(BootError::NoRoomForPageTables {
                end: self.frames.end,
            }),
            Err(_) => Err(BootError::MappedTwice { address }),
        }
    }
}

#[cfg(test)]
#[path = "paging_tests.rs"]
mod tests;
