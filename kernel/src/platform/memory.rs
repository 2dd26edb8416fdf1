//! Physical memory: the heap, whole pages for devices, and mappings of what
//! the boot code left unmapped.
//!
//! All addresses are identity-mapped, so a pointer's value is the physical
//! address that a device uses.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;

use doorbell_boot::{BootInfo, MemoryRegion, RegionKind};
use linked_list_allocator::Heap;
use spin::{Mutex, Once};

use super::mapping::{self, MapError};

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;

/// The heap stays below 4 GiB: there every device can reach it.
const HEAP_LIMIT: u64 = 1 << 32;

/// Why memory is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// The memory map has no RAM for a heap.
    NoRam,
    /// The heap has no block of this size left.
    Exhausted {
        /// What was asked for, in bytes.
        bytes: usize,
        /// What is free, in bytes, though not in one piece.
        free: usize,
    },
    /// So many pages that their bytes cannot be counted, or none.
    BadPageCount(usize),
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRam => write!(f, "the memory map has no RAM for a heap below 4 GiB"),
            Self::Exhausted { bytes, free } => {
                write!(
                    f,
                    "the heap has no {bytes} bytes in one piece ({free} are free)"
                )
            }
            Self::BadPageCount(pages) => write!(f, "{pages} pages cannot be allocated"),
        }
    }
}

impl core::error::Error for MemoryError {}

/// Where the heap turns when it has no block of a layout: gives some memory back to
/// it, and says whether it did, so that the heap looks again. It takes none itself.
pub type Relief<'a> = dyn Fn(Layout) -> bool + 'a;

/// The kernel's heap. The image makes it the global allocator.
pub struct KernelHeap {
    heap: Mutex<Heap>,
    relief: Mutex<Option<HeldRelief>>,
}

/// A relief while [`KernelHeap::relieved_by`] lasts.
#[derive(Clone, Copy)]
struct HeldRelief(*const Relief<'static>);

// SAFETY: it is called by who allocates, and this kernel has one CPU, whose
// interrupt handlers do not.
unsafe impl Send for HeldRelief {}

/// The heap, empty until [`init`].
#[cfg_attr(target_os = "none", global_allocator)]
pub static HEAP: KernelHeap = KernelHeap::new();

impl KernelHeap {
    const fn new() -> Self {
        Self {
            heap: Mutex::new(Heap::empty()),
            relief: Mutex::new(None),
        }
    }

    /// Runs `work`, during which the heap has a relief. One that it had before is
    /// back afterwards.
    pub fn relieved_by<R>(&self, relief: &Relief<'_>, work: impl FnOnce() -> R) -> R {
        let held: *const Relief<'_> = relief;
        // SAFETY: only the lifetime is another, and `Restore` takes the pointer away
        // before that ends.
        let held =
            unsafe { core::mem::transmute::<*const Relief<'_>, *const Relief<'static>>(held) };
        let _restore = Restore {
            heap: self,
            earlier: self.relief.lock().replace(HeldRelief(held)),
        };
        work()
    }

    /// Has memory given back for a block of this layout.
    fn relieve(&self, layout: Layout) -> bool {
        // Taken, so that a relief that wants memory itself has none.
        let Some(held) = self.relief.lock().take() else {
            return false;
        };
        // SAFETY: alive, or `Restore` would have taken it away.
        let relieved = unsafe { (*held.0)(layout) };
        *self.relief.lock() = Some(held);
        relieved
    }
}

/// Brings the heap's earlier relief back.
struct Restore<'h> {
    heap: &'h KernelHeap,
    earlier: Option<HeldRelief>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        *self.heap.relief.lock() = self.earlier;
    }
}

// SAFETY: `Heap` hands out disjoint blocks of the RAM it was given, and the
// lock serves one caller at a time. No interrupt handler allocates.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        loop {
            let block = self.heap.lock().allocate_first_fit(layout);
            match block {
                Ok(block) => return block.as_ptr(),
                Err(()) if self.relieve(layout) => {}
                Err(()) => return core::ptr::null_mut(),
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller returns a block that `alloc` gave for `layout`.
            unsafe { self.heap.lock().deallocate(block, layout) };
        }
    }
}

/// The memory map, for [`map_firmware`] to check against.
static BOOT_INFO: Once<&'static BootInfo> = Once::new();

/// How the heap stands, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapUse {
    /// What the heap has in all.
    pub size: usize,
    /// What is free, in however many pieces.
    pub free: usize,
}

/// How the heap stands.
pub fn heap_use() -> HeapUse {
    let heap = HEAP.heap.lock();
    HeapUse {
        size: heap.size(),
        free: heap.free(),
    }
}

/// Gives the heap the largest piece of RAM below 4 GiB that the image leaves.
/// What lies there now is lost; the boot code copied what it needed.
///
/// Returns that piece. A second call changes nothing.
///
/// # Errors
/// [`MemoryError::NoRam`] if there is none.
pub fn init(boot: &'static BootInfo) -> Result<Range<u64>, MemoryError> {
    let ram = boot
        .memory_map()
        .filter(|region| region.kind == RegionKind::Ram)
        .map(|region| region.range());
    let range = largest_free(ram, boot.image()).ok_or(MemoryError::NoRam)?;
    BOOT_INFO.call_once(|| boot);
    let mut heap = HEAP.heap.lock();
    if heap.size() == 0 {
        // SAFETY: the memory map says that this is RAM, the boot code mapped it
        // writable, and `largest_free` leaves out the image.
        unsafe { heap.init(range.start as *mut u8, (range.end - range.start) as usize) };
    }
    Ok(range)
}

/// The largest run of whole pages in `ram`, below 4 GiB, that is neither page
/// 0 nor part of `image`.
fn largest_free(ram: impl Iterator<Item = Range<u64>>, image: Range<u64>) -> Option<Range<u64>> {
    let page = PAGE_SIZE as u64;
    ram.flat_map(|region| {
        let below = region.start..region.end.min(image.start);
        let above = region.start.max(image.end)..region.end;
        [below, above]
    })
    .map(|piece| {
        let start = piece.start.div_ceil(page).max(1) * page;
        start..piece.end.min(HEAP_LIMIT) / page * page
    })
    .filter(|piece| piece.start < piece.end)
    .max_by_key(|piece| piece.end - piece.start)
}

/// Whole pages of zeroed memory, contiguous and aligned, for devices to use.
/// Dropping it frees them.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    count: usize,
}

// SAFETY: the pages belong to this value alone.
unsafe impl Send for Pages {}

impl Pages {
    /// Allocates `count` pages.
    ///
    /// # Errors
    /// [`MemoryError::Exhausted`] when the heap has no such piece,
    /// [`MemoryError::BadPageCount`] for 0 or an impossible count.
    pub fn new(count: usize) -> Result<Self, MemoryError> {
        let layout = Self::layout(count).ok_or(MemoryError::BadPageCount(count))?;
        // SAFETY: `layout` refuses a size of 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        let exhausted = || MemoryError::Exhausted {
            bytes: layout.size(),
            free: heap_use().free,
        };
        Ok(Self {
            start: start.ok_or_else(exhausted)?,
            count,
        })
    }

    fn layout(count: usize) -> Option<Layout> {
        let size = count.checked_mul(PAGE_SIZE).filter(|&size| size != 0)?;
        Layout::from_size_align(size, PAGE_SIZE).ok()
    }

    /// Where the pages begin.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.start
    }

    /// The physical address of the first page.
    pub fn physical(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    /// Length in bytes.
    pub fn size(&self) -> usize {
        self.count * PAGE_SIZE
    }

    /// Gives the pages up for good, as page tables do.
    fn leak(self) -> NonNull<u8> {
        core::mem::ManuallyDrop::new(self).start
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.count) {
            // SAFETY: `new` allocated them with this layout.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

/// A frame for a page table, zeroed and never freed.
pub(super) fn page_table_frame() -> Option<u64> {
    let page = Pages::new(1).ok()?;
    let address = page.physical();
    page.leak();
    Some(address)
}

/// Makes the `length` bytes of device registers at `physical` accessible,
/// uncached. Parts already mapped so stay as they are. Mappings are for good.
///
/// # Errors
/// A [`MapError`] that names the address: out of the CPU's reach, in page 0,
/// RAM, or no memory left for page tables.
pub fn map_mmio(physical: u64, length: usize) -> Result<NonNull<u8>, MapError> {
    mapping::map(physical, length, mapping::Use::Device)
}

/// Makes the `length` bytes of firmware tables at `physical` readable.
/// Parts already mapped stay as they are. Mappings are for good.
///
/// # Errors
/// As [`map_mmio`]; and [`MapError::NotFirmware`] for what the memory map does
/// not list as firmware's, or before [`init`].
pub fn map_firmware(physical: u64, length: usize) -> Result<&'static [u8], MapError> {
    let map = BOOT_INFO
        .get()
        .into_iter()
        .flat_map(|boot| boot.memory_map());
    if !is_firmware(map, physical, length) {
        return Err(MapError::NotFirmware { physical, length });
    }
    let start = mapping::map(physical, length, mapping::Use::Firmware)?;
    // SAFETY: mapped for good and readable. Nothing writes there: the memory
    // map keeps it out of the heap and the image.
    Ok(unsafe { core::slice::from_raw_parts(start.as_ptr(), length) })
}

/// Whether a range lies in one region that the map lists and that is not RAM,
/// or in the BIOS ROM area, which some maps leave out.
fn is_firmware(mut map: impl Iterator<Item = MemoryRegion>, physical: u64, length: usize) -> bool {
    /// Where a PC's BIOS and its tables are (ACPI 6.5, 5.2.5.1).
    const BIOS: Range<u64> = 0xe_0000..0x10_0000;
    let Some(end) = physical.checked_add(length as u64) else {
        return false;
    };
    let holds = |region: &Range<u64>| region.start <= physical && end <= region.end;
    holds(&BIOS) || map.any(|region| region.kind != RegionKind::Ram && holds(&region.range()))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::vec;

    use super::*;

    /// Each piece of RAM as its start and end.
    fn pick(ram: &[(u64, u64)], image: Range<u64>) -> Option<Range<u64>> {
        largest_free(ram.iter().map(|&(start, end)| start..end), image)
    }

    #[test]
    fn the_image_is_left_out() {
        let ram = [(0, 0x9_fc00), (0x10_0000, 0x100_0000)];
        assert_eq!(
            pick(&ram, 0x10_0000..0x13_6000),
            Some(0x13_6000..0x100_0000)
        );
        assert_eq!(pick(&ram, 0xf0_0000..0xf3_0800), Some(0x10_0000..0xf0_0000));
        assert_eq!(pick(&ram, 0x10_0000..0x100_0000), Some(0x1000..0x9_f000));
    }

    #[test]
    fn what_lies_above_4_gib_is_not_used() {
        let ram = [(0x10_0000, 0x8000_0000), (0x1_0000_0000, 0x9_0000_0000)];
        assert_eq!(
            pick(&ram, 0x10_0000..0x20_0000),
            Some(0x20_0000..0x8000_0000)
        );
        assert_eq!(
            pick(&[(0xffff_0000, 0x2_0000_0000)], 0..0),
            Some(0xffff_0000..0x1_0000_0000)
        );
    }

    #[test]
    fn no_whole_page_is_no_ram() {
        assert_eq!(pick(&[], 0..0), None);
        assert_eq!(pick(&[(0, 0x1fff)], 0x10_0000..0x20_0000), None);
        assert_eq!(pick(&[(0x10_0800, 0x10_1000)], 0..0), None);
    }

    #[test]
    fn tables_lie_in_firmware_regions() {
        let region = |base, size, kind| MemoryRegion { base, size, kind };
        let map = [
            region(0, 0x9_fc00, RegionKind::Ram),
            region(0x9_fc00, 0x400, RegionKind::Reserved),
            region(0x10_0000, 0x70_0000, RegionKind::Ram),
            region(0x80_0000, 0x1000, RegionKind::AcpiReclaimable),
        ];
        let ask = |physical, length| is_firmware(map.into_iter(), physical, length);
        assert!(ask(0x80_0000, 0x1000));
        assert!(ask(0xf_59e0, 36));
        assert!(ask(0x9_fc00, 0x400));
        assert!(!ask(0x80_0000, 0x1001));
        assert!(!ask(0x7f_ffff, 2));
        assert!(!ask(0x20_0000, 36));
        assert!(!ask(0xfee0_0000, 36));
        assert!(!ask(u64::MAX, 2));
    }

    #[test]
    fn pages_are_aligned_zeroed_and_counted() {
        let pages = Pages::new(3).unwrap();
        assert_eq!(pages.size(), 3 * PAGE_SIZE);
        assert!(pages.physical().is_multiple_of(PAGE_SIZE as u64));
        // SAFETY: the pages are this test's own.
        let bytes = unsafe { core::slice::from_raw_parts(pages.as_ptr().as_ptr(), pages.size()) };
        assert!(bytes.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn relief_is_asked_until_it_has_nothing_more() {
        const BLOCK: usize = 4096;
        let block = |blocks| Layout::from_size_align(blocks * BLOCK, 16).unwrap();
        let mut memory = vec![0u128; 4 * BLOCK / 16];
        let heap = KernelHeap::new();
        // SAFETY: the memory is this test's own, and outlives the heap's use.
        unsafe { heap.heap.lock().init(memory.as_mut_ptr().cast(), 4 * BLOCK) };
        // SAFETY: the layouts have a size; blocks go back with their layout.
        let alloc = |blocks| unsafe { heap.alloc(block(blocks)) };
        let held = RefCell::new([alloc(1), alloc(1), alloc(1)].to_vec());
        let asked = Cell::new(0);
        let relief = |layout: Layout| {
            asked.set(asked.get() + 1);
            assert_eq!(layout, block(2));
            // It cannot be relieved itself.
            assert!(alloc(2).is_null());
            let Some(last) = held.borrow_mut().pop() else {
                return false;
            };
            // SAFETY: as above.
            unsafe { heap.dealloc(last, block(1)) };
            true
        };
        assert!(alloc(2).is_null());
        heap.relieved_by(&relief, || {
            assert!(!alloc(1).is_null(), "there is one left");
            assert_eq!(asked.get(), 0);
            assert!(!alloc(2).is_null());
            assert_eq!((asked.get(), held.borrow().len()), (2, 1));
            heap.relieved_by(&|_| false, || assert!(alloc(2).is_null()));
            assert_eq!(asked.get(), 2);
            assert!(alloc(2).is_null());
            assert_eq!((asked.get(), held.borrow().len()), (4, 0));
        });
        assert!(alloc(2).is_null());
        assert_eq!(asked.get(), 4);
    }

    #[test]
    fn impossible_counts_are_errors() {
        assert_eq!(Pages::new(0).unwrap_err(), MemoryError::BadPageCount(0));
        let huge = usize::MAX / PAGE_SIZE + 1;
        assert_eq!(
            Pages::new(huge).unwrap_err(),
            MemoryError::BadPageCount(huge)
        );
        let error = Pages::new(1 << 40).unwrap_err();
        assert!(matches!(error, MemoryError::Exhausted { bytes, .. } if bytes == 1 << 52));
    }
}
