//! Maps devices and firmware tables into the page tables in force, on demand.

use core::fmt;
use core::ptr::NonNull;

use spin::Mutex;
use x86_64::registers::control::Cr3;
use x86_64::registers::model_specific::{Efer, EferFlags};
use x86_64::structures::paging::mapper::{MapToError, MapperFlush, TranslateResult};
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame,
    Size2MiB, Size4KiB, Translate,
};
use x86_64::{PhysAddr, VirtAddr};

use super::memory;
use crate::arch::cpu;

/// The end of the identity mapping: the lower half of a 48-bit address space.
const IDENTITY_LIMIT: u64 = doorbell_boot::start_info::IDENTITY_LIMIT;

/// Why an address cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Length 0.
    Empty {
        /// The physical address asked for.
        physical: u64,
    },
    /// The range touches page 0, which stays unmapped to catch null pointers.
    PageZero {
        /// The physical address asked for.
        physical: u64,
    },
    /// The range ends beyond what the CPU, or the identity mapping, reaches.
    OutOfReach {
        /// The physical address asked for.
        physical: u64,
        /// Its length in bytes.
        length: usize,
        /// The first address out of reach.
        limit: u64,
    },
    /// A device range that is mapped as memory already.
    IsMemory {
        /// The first such page.
        physical: u64,
    },
    /// A firmware range that is not firmware's by the memory map.
    NotFirmware {
        /// The physical address asked for.
        physical: u64,
        /// Its length in bytes.
        length: usize,
    },
    /// No memory is left for page tables.
    NoMemory {
        /// The page that remained unmapped.
        physical: u64,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { physical } => write!(f, "0 bytes at {physical:#x} cannot be mapped"),
            Self::PageZero { physical } => {
                write!(
                    f,
                    "the address {physical:#x} lies in page 0, which stays unmapped"
                )
            }
            Self::OutOfReach {
                physical,
                length,
                limit,
            } => write!(
                f,
                "the {length:#x} bytes at {physical:#x} end beyond {limit:#x}, the last address \
                 in reach"
            ),
            Self::IsMemory { physical } => {
                write!(f, "the device address {physical:#x} is mapped as memory")
            }
            Self::NotFirmware { physical, length } => write!(
                f,
                "the {length:#x} bytes at {physical:#x} are not firmware's by the memory map"
            ),
            Self::NoMemory { physical } => {
                write!(f, "no memory is left for the page table of {physical:#x}")
            }
        }
    }
}

impl core::error::Error for MapError {}

/// What a mapping is for, which decides its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Read, write, uncached.
    Device,
    /// Read, cached.
    Firmware,
}

/// Maps the pages of `physical..physical + length` to themselves and returns
/// a pointer to `physical`. Pages that are mapped stay as they are.
pub(super) fn map(physical: u64, length: usize, usage: Use) -> Result<NonNull<u8>, MapError> {
    /// Held while the tables change.
    static TABLES: Mutex<()> = Mutex::new(());
    let limit = cpu::physical_address_limit().min(IDENTITY_LIMIT);
    let (start, end) = check(physical, length, limit)?;
    let _guard = TABLES.lock();
    // SAFETY: CR3 holds the tables that the boot code built, identity-mapped
    // and writable. The lock makes this the only reference to them.
    let mut tables = unsafe {
        let root = Cr3::read().0.start_address().as_u64() as *mut PageTable;
        OffsetPageTable::new(&mut *root, VirtAddr::zero())
    };
    // SAFETY: `check` keeps to addresses that the CPU has; RAM is not mapped a
    // second time, because the boot code mapped all of it.
    unsafe { map_pages(&mut tables, start, end, usage, no_execute())? };
    let pointer = core::ptr::with_exposed_provenance_mut(physical as usize);
    NonNull::new(pointer).ok_or(MapError::PageZero { physical })
}

/// The no-execute bit, where the boot code switched it on.
fn no_execute() -> PageTableFlags {
    if Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE) {
        PageTableFlags::NO_EXECUTE
    } else {
        PageTableFlags::empty()
    }
}

/// The whole pages that a range touches.
fn check(physical: u64, length: usize, limit: u64) -> Result<(u64, u64), MapError> {
    if length == 0 {
        return Err(MapError::Empty { physical });
    }
    let end = physical
        .checked_add(length as u64)
        .filter(|&end| end <= limit);
    let Some(end) = end else {
        return Err(MapError::OutOfReach {
            physical,
            length,
            limit,
        });
    };
    if physical < Size4KiB::SIZE {
        return Err(MapError::PageZero { physical });
    }
    Ok((
        physical / Size4KiB::SIZE * Size4KiB::SIZE,
        end.next_multiple_of(Size4KiB::SIZE),
    ))
}

/// Hands out frames from the heap.
struct HeapFrames;

// SAFETY: the heap hands out each page once, and a page table's is never freed.
unsafe impl FrameAllocator<Size4KiB> for HeapFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let address = memory::page_table_frame()?;
        Some(PhysFrame::containing_address(PhysAddr::new(address)))
    }
}

/// Maps the unmapped pages of `start..end`, in 2 MiB where that fits.
///
/// # Safety
/// The range must not be RAM that is in use under another mapping.
unsafe fn map_pages(
    tables: &mut OffsetPageTable<'_>,
    start: u64,
    end: u64,
    usage: Use,
    no_execute: PageTableFlags,
) -> Result<(), MapError> {
    let flags = PageTableFlags::PRESENT
        | no_execute
        | match usage {
            // Both bits select "uncacheable" in the page attribute table that
            // every CPU starts with.
            Use::Device => {
                PageTableFlags::WRITABLE | PageTableFlags::NO_CACHE | PageTableFlags::WRITE_THROUGH
            }
            Use::Firmware => PageTableFlags::empty(),
        };
    let mut address = start;
    while address < end {
        if let TranslateResult::Mapped { frame, flags, .. } =
            tables.translate(VirtAddr::new(address))
        {
            if usage == Use::Device && !flags.contains(PageTableFlags::NO_CACHE) {
                return Err(MapError::IsMemory { physical: address });
            }
            address = (frame.start_address().as_u64() + frame.size()).max(address + 1);
            continue;
        }
        let large = address.is_multiple_of(Size2MiB::SIZE) && end - address >= Size2MiB::SIZE;
        // SAFETY: the caller vouches for the range.
        let mapped = large && unsafe { map_page::<Size2MiB>(tables, address, flags)? };
        if mapped {
            address += Size2MiB::SIZE;
        } else {
            // SAFETY: as above.
            unsafe { map_page::<Size4KiB>(tables, address, flags)? };
            address += Size4KiB::SIZE;
        }
    }
    Ok(())
}

/// Maps one page to its own address. `false` if smaller pages are mapped there.
///
/// # Safety
/// As [`map_pages`].
unsafe fn map_page<S: PageSize>(
    tables: &mut OffsetPageTable<'_>,
    address: u64,
    flags: PageTableFlags,
) -> Result<bool, MapError>
where
    for<'a> OffsetPageTable<'a>: Mapper<S>,
{
    let page = Page::<S>::containing_address(VirtAddr::new(address));
    let frame = PhysFrame::<S>::containing_address(PhysAddr::new(address));
    // SAFETY: the caller vouches for the page; the frames are the heap's.
    match unsafe { tables.map_to(page, frame, flags, &mut HeapFrames) } {
        // Nothing to flush: the CPU does not cache that a page is unmapped.
        Ok(flush) => {
            MapperFlush::ignore(flush);
            Ok(true)
        }
        Err(MapToError::FrameAllocationFailed) => Err(MapError::NoMemory { physical: address }),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;

    const LIMIT: u64 = 1 << 40;

    #[test]
    fn a_range_becomes_whole_pages() {
        assert_eq!(
            check(0xfeb0_0e00, 0x200, LIMIT),
            Ok((0xfeb0_0000, 0xfeb0_1000))
        );
        assert_eq!(
            check(0xfeb0_0e00, 0x201, LIMIT),
            Ok((0xfeb0_0000, 0xfeb0_2000))
        );
    }

    #[test]
    fn what_is_out_of_reach_is_named() {
        let physical = LIMIT - 0x1000;
        assert!(check(physical, 0x1000, LIMIT).is_ok());
        let error = MapError::OutOfReach {
            physical,
            length: 0x1001,
            limit: LIMIT,
        };
        assert_eq!(check(physical, 0x1001, LIMIT), Err(error));
        assert!(check(u64::MAX, 2, LIMIT).is_err());
        assert_eq!(
            check(0xfff, 1, LIMIT),
            Err(MapError::PageZero { physical: 0xfff })
        );
        assert_eq!(
            check(0x5000, 0, LIMIT),
            Err(MapError::Empty { physical: 0x5000 })
        );
    }

    /// Page tables in the test's own memory, which is identity-mapped for it.
    fn with_tables(test: impl FnOnce(&mut OffsetPageTable<'_>)) {
        let mut root = Box::new(PageTable::new());
        // SAFETY: the root is empty, and `HeapFrames` gives host memory.
        test(&mut unsafe { OffsetPageTable::new(&mut root, VirtAddr::zero()) });
    }

    fn flags_at(tables: &OffsetPageTable<'_>, address: u64) -> Option<(u64, PageTableFlags)> {
        match tables.translate(VirtAddr::new(address)) {
            TranslateResult::Mapped {
                frame,
                offset,
                flags,
            } => {
                assert_eq!(frame.start_address().as_u64() + offset, address);
                Some((frame.size(), flags))
            }
            _ => None,
        }
    }

    fn device(tables: &mut OffsetPageTable<'_>, start: u64, end: u64) -> Result<(), MapError> {
        // SAFETY: these tables are never in force.
        unsafe { map_pages(tables, start, end, Use::Device, PageTableFlags::NO_EXECUTE) }
    }

    #[test]
    fn devices_are_uncached_and_large_ranges_use_large_pages() {
        with_tables(|tables| {
            device(tables, 0xb000_0000, 0xb040_1000).unwrap();
            let (size, flags) = flags_at(tables, 0xb020_0123).unwrap();
            assert_eq!(size, Size2MiB::SIZE);
            assert!(flags.contains(PageTableFlags::NO_CACHE | PageTableFlags::WRITE_THROUGH));
            assert!(flags.contains(PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE));
            assert_eq!(flags_at(tables, 0xb040_0000).unwrap().0, Size4KiB::SIZE);
            assert_eq!(flags_at(tables, 0xb040_1000), None);
        });
    }

    #[test]
    fn mapping_again_and_around_what_is_mapped_works() {
        with_tables(|tables| {
            device(tables, 0xc000_3000, 0xc000_4000).unwrap();
            device(tables, 0xc000_0000, 0xc040_0000).unwrap();
            device(tables, 0xc000_0000, 0xc040_0000).unwrap();
            assert_eq!(flags_at(tables, 0xc000_2000).unwrap().0, Size4KiB::SIZE);
            assert_eq!(flags_at(tables, 0xc020_0000).unwrap().0, Size2MiB::SIZE);
        });
    }

    #[test]
    fn memory_is_not_remapped_as_a_device() {
        with_tables(|tables| {
            // SAFETY: these tables are never in force.
            unsafe {
                map_pages(
                    tables,
                    0x5000,
                    0x6000,
                    Use::Firmware,
                    PageTableFlags::empty(),
                )
            }
            .unwrap();
            let (_, flags) = flags_at(tables, 0x5000).unwrap();
            assert!(!flags.intersects(PageTableFlags::WRITABLE | PageTableFlags::NO_CACHE));
            // Firmware may lie in memory that is mapped for another reason.
            // SAFETY: these tables are never in force.
            unsafe {
                map_pages(
                    tables,
                    0x4000,
                    0x7000,
                    Use::Firmware,
                    PageTableFlags::empty(),
                )
            }
            .unwrap();
            let error = device(tables, 0x4000, 0x6000);
            assert_eq!(error, Err(MapError::IsMemory { physical: 0x4000 }));
        });
    }
}
