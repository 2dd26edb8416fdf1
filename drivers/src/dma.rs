//! Memory that the CPU and a device share.
//!
//! A kernel implements [`Dma`]; drivers hold [`DmaRegion`]s, which own their
//! memory and give it back when dropped. There is no registry and no free by
//! address. Addresses that a device uses and pointers that the CPU uses are kept
//! apart, so an IOMMU or an offset mapping is the kernel's affair alone.

use core::fmt;
use core::mem::{self, ManuallyDrop};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;

/// The page size that legacy virtio interfaces count in (4096 bytes,
/// virtio 1.2, 4.1.5.1.3.1).
pub const PAGE_SIZE: usize = 4096;

/// Allocates memory that devices can reach.
///
/// # Safety
///
/// An implementer owes, for each successful [`allocate`](Self::allocate), memory
/// that is valid for reads and writes of `size` bytes at `pointer` until it is
/// freed, belongs to nobody else, is zeroed, and is seen by devices,
/// contiguously and coherently, at `address`; both are aligned to `align`.
pub unsafe trait Dma {
    /// Allocates `size` bytes aligned to `align` (a power of two, at most 4096).
    ///
    /// # Errors
    ///
    /// [`DmaError`] where there is no such memory left.
    fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError>;

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `memory` comes from [`allocate`](Self::allocate) of the same allocator, is
    /// freed once, and neither the CPU nor a device uses it any more.
    unsafe fn free(&self, memory: DmaMemory);
}

// SAFETY: it is the referent's own promise.
unsafe impl<D: Dma + ?Sized> Dma for &D {
    fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
        (**self).allocate(size, align)
    }

    unsafe fn free(&self, memory: DmaMemory) {
        // SAFETY: the caller's promise is the referent's.
        unsafe { (**self).free(memory) }
    }
}

/// What [`Dma::allocate`] returns: a description, not an owner.
#[derive(Clone, Copy, Debug)]
pub struct DmaMemory {
    /// Where the CPU sees the memory.
    pub pointer: NonNull<u8>,
    /// Where a device sees it.
    pub address: u64,
    /// Its size in bytes, as asked for.
    pub size: usize,
    /// Its alignment in bytes, as asked for.
    pub align: usize,
}

/// There was no memory for a device to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaError {
    /// Bytes that were asked for.
    pub size: usize,
    /// Alignment that was asked for.
    pub align: usize,
}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no memory for {} bytes aligned to {} that a device can reach",
            self.size, self.align
        )
    }
}

impl core::error::Error for DmaError {}

/// Memory shared with a device, owned; freed on drop.
///
/// While a device may access the memory, the driver holds the region and gives
/// nobody else access; so whoever holds a region elsewhere may use its bytes
/// through [`Deref`].
pub struct DmaRegion<D: Dma> {
    memory: DmaMemory,
    dma: D,
}

// SAFETY: the region owns its memory as a `Box<[u8]>` would.
unsafe impl<D: Dma + Send> Send for DmaRegion<D> {}

impl<D: Dma> DmaRegion<D> {
    /// Allocates `size` zeroed bytes aligned to `align` (a power of two, at most
    /// 4096).
    ///
    /// # Errors
    ///
    /// [`DmaError`] where there is no such memory left, where `size` is zero, or
    /// `align` is none that is allowed.
    pub fn new(dma: D, size: usize, align: usize) -> Result<Self, DmaError> {
        if size == 0 || !align.is_power_of_two() || align > PAGE_SIZE {
            return Err(DmaError { size, align });
        }
        let memory = dma.allocate(size, align)?;
        Ok(Self { memory, dma })
    }

    /// Where a device sees the region.
    pub fn address(&self) -> u64 {
        self.memory.address
    }

    /// Where the CPU sees the region. Reading through it while a device writes
    /// takes volatile or atomic accesses.
    pub fn pointer(&self) -> NonNull<u8> {
        self.memory.pointer
    }
}

impl<D: Dma> Deref for DmaRegion<D> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: owned, initialised (`Dma` zeroes it), and not a device's while
        // the holder has it (see the type's text).
        unsafe { slice::from_raw_parts(self.memory.pointer.as_ptr(), self.memory.size) }
    }
}

impl<D: Dma> DerefMut for DmaRegion<D> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.memory.pointer.as_ptr(), self.memory.size) }
    }
}

impl<D: Dma> Drop for DmaRegion<D> {
    fn drop(&mut self) {
        // SAFETY: from `allocate` of this allocator, dropped once; no device has
        // the memory, or the driver would not have let go of it.
        unsafe { self.dma.free(self.memory) }
    }
}

impl<D: Dma> fmt::Debug for DmaRegion<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DmaRegion({:#x} +{:#x})",
            self.memory.address, self.memory.size
        )
    }
}

/// A list whose capacity is chosen at run time, for a driver's own notes.
///
/// Its memory comes from [`Dma`] too, so that drivers need no allocator; its
/// address is never given to a device.
pub(crate) struct Table<T, D: Dma> {
    region: ManuallyDrop<DmaRegion<D>>,
    items: NonNull<T>,
    len: usize,
    capacity: usize,
}

// SAFETY: the table owns its items as a `Vec<T>` would.
unsafe impl<T: Send, D: Dma + Send> Send for Table<T, D> {}

impl<T, D: Dma> Table<T, D> {
    /// An empty table with room for `capacity` items.
    pub(crate) fn with_capacity(dma: D, capacity: usize) -> Result<Self, DmaError> {
        let align = mem::align_of::<T>();
        let too_large = DmaError {
            size: usize::MAX,
            align,
        };
        let size = mem::size_of::<T>().checked_mul(capacity).ok_or(too_large)?;
        let region = ManuallyDrop::new(DmaRegion::new(dma, size, align)?);
        let items = region.pointer().cast::<T>();
        Ok(Self {
            region,
            items,
            len: 0,
            capacity,
        })
    }

    /// A table of `len` items made by `item`.
    pub(crate) fn new(
        dma: D,
        len: usize,
        mut item: impl FnMut(usize) -> T,
    ) -> Result<Self, DmaError> {
        Self::try_new(dma, len, |index| Ok(item(index)))
    }

    /// As [`new`](Self::new), if all items can be made.
    pub(crate) fn try_new<E: From<DmaError>>(
        dma: D,
        len: usize,
        mut item: impl FnMut(usize) -> Result<T, E>,
    ) -> Result<Self, E> {
        let mut table = Self::with_capacity(dma, len)?;
        for index in 0..len {
            table.push(item(index)?);
        }
        Ok(table)
    }

    /// Adds an item behind the others.
    ///
    /// # Panics
    ///
    /// If there is no room: the capacity is what the driver worked out.
    pub(crate) fn push(&mut self, item: T) {
        assert!(self.len < self.capacity, "a table of {}", self.capacity);
        // SAFETY: within the region, aligned, and not yet an item.
        unsafe { self.items.add(self.len).write(item) }
        self.len += 1;
    }
}

impl<T, D: Dma> Deref for Table<T, D> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `push` wrote `len` items; the table owns them.
        unsafe { slice::from_raw_parts(self.items.as_ptr(), self.len) }
    }
}

impl<T, D: Dma> DerefMut for Table<T, D> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.items.as_ptr(), self.len) }
    }
}

impl<T, D: Dma> Drop for Table<T, D> {
    fn drop(&mut self) {
        // SAFETY: the items are initialised, and dropped once, before the memory
        // that they are in; the region is not used again.
        unsafe {
            core::ptr::drop_in_place(&mut **self as *mut [T]);
            ManuallyDrop::drop(&mut self.region);
        }
    }
}

#[cfg(any(test, feature = "test-utils"))]
pub mod fake {
    //! A [`Dma`] for tests on the host.

    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::vec::Vec;

    use super::{Dma, DmaError, DmaMemory, NonNull};

    /// The first device address: above 32 bits, and in a legacy device's reach.
    /// Addresses are not pointers, so that a driver that confuses the two is found
    /// out.
    const FIRST: u64 = 0x1_0000_0000;

    /// Memory from the host's allocator. It knows which device addresses are
    /// allocated, refuses a fake device any others, and gives none out twice.
    #[derive(Debug, Default)]
    pub struct FakeDma {
        state: Mutex<State>,
        budget: Option<usize>,
        keeps: bool,
    }

    #[derive(Debug, Default)]
    struct State {
        /// By device address.
        live: BTreeMap<u64, DmaMemory>,
        /// How much of the device addresses was given out.
        given: u64,
        kept: Kept,
    }

    /// What was freed, and goes back to the host with the allocator.
    #[derive(Debug, Default)]
    struct Kept(Vec<DmaMemory>);

    impl Drop for Kept {
        fn drop(&mut self) {
            self.0.drain(..).for_each(give_back);
        }
    }

    /// Gives freed memory back to the host.
    fn give_back(memory: DmaMemory) {
        let layout = Layout::from_size_align(memory.size, memory.align).unwrap();
        // SAFETY: `allocate` allocated it with this layout, and `free` took it once.
        unsafe { dealloc(memory.pointer.as_ptr(), layout) }
    }

    // SAFETY: the pointers are to memory that the state owns.
    unsafe impl Send for State {}

    impl State {
        /// Where the CPU sees the `len` bytes that a device sees at `address`, if
        /// they are inside one region.
        fn find(&self, address: u64, len: usize) -> Option<*mut u8> {
            let (start, memory) = self.live.range(..=address).next_back()?;
            let offset = (address - start) as usize;
            if offset.checked_add(len)? > memory.size {
                return None;
            }
            // SAFETY: inside the region.
            Some(unsafe { memory.pointer.as_ptr().add(offset) })
        }
    }

    impl FakeDma {
        /// An allocator that has `bytes` in all.
        pub fn with_budget(bytes: usize) -> Self {
            Self {
                budget: Some(bytes),
                ..Self::default()
            }
        }

        /// An allocator whose freed memory belongs to nobody as long as it lives: for
        /// devices that still write there.
        pub fn keeping() -> Self {
            Self {
                keeps: true,
                ..Self::default()
            }
        }

        /// How many regions are allocated.
        pub fn live(&self) -> usize {
            self.state.lock().unwrap().live.len()
        }

        /// Whether the `len` bytes that a device sees at `address` are inside one
        /// allocated region.
        pub fn is_shared(&self, address: u64, len: usize) -> bool {
            self.state.lock().unwrap().find(address, len).is_some()
        }

        /// Where the CPU sees the `len` bytes that a device sees at `address`.
        ///
        /// # Panics
        ///
        /// If they are not inside one allocated region.
        pub fn cpu_pointer(&self, address: u64, len: usize) -> *mut u8 {
            let found = self.state.lock().unwrap().find(address, len);
            found.unwrap_or_else(|| panic!("{len} bytes at {address:#x} are no shared memory"))
        }
    }

    // SAFETY: the memory is the host allocator's, zeroed; "devices" are fakes
    // that go through `cpu_pointer`.
    unsafe impl Dma for FakeDma {
        fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
            let mut state = self.state.lock().unwrap();
            let used: usize = state.live.values().map(|memory| memory.size).sum();
            if self.budget.is_some_and(|budget| used + size > budget) {
                return Err(DmaError { size, align });
            }
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: `DmaRegion::new` refuses a size of zero.
            let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
            let address = FIRST + state.given.next_multiple_of(align as u64);
            // One byte apart at least: no access reaches from one into the next.
            state.given = address - FIRST + size as u64 + 1;
            let memory = DmaMemory {
                pointer,
                address,
                size,
                align,
            };
            state.live.insert(address, memory);
            Ok(memory)
        }

        unsafe fn free(&self, memory: DmaMemory) {
            let mut state = self.state.lock().unwrap();
            let known = state.live.remove(&memory.address);
            let known = known.expect("freed what was not allocated");
            assert_eq!(
                (known.pointer, known.size, known.align),
                (memory.pointer, memory.size, memory.align),
                "freed something else than was allocated"
            );
            // A driver that still uses the memory shows in the test's results.
            // SAFETY: it is still there.
            unsafe { memory.pointer.write_bytes(0xdb, memory.size) };
            if self.keeps {
                state.kept.0.push(memory);
            } else {
                give_back(memory);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeDma;
    use super::*;

    #[test]
    fn a_region_is_zeroed_and_freed_on_drop() {
        let dma = FakeDma::default();
        let region = DmaRegion::new(&dma, 100, 64).unwrap();
        assert!(region.iter().all(|&byte| byte == 0));
        assert_eq!(region.len(), 100);
        assert_eq!(region.address() % 64, 0);
        assert_eq!(dma.live(), 1);
        drop(region);
        assert_eq!(dma.live(), 0);
    }

    #[test]
    fn what_cannot_be_allocated_is_named() {
        let dma = FakeDma::with_budget(64);
        let error = DmaRegion::new(&dma, 65, 1).unwrap_err();
        assert_eq!(error, DmaError { size: 65, align: 1 });
        assert!(DmaRegion::new(&dma, 0, 1).is_err());
        assert!(DmaRegion::new(&dma, 1, 3).is_err());
    }

    #[test]
    fn a_table_drops_its_items() {
        let dma = FakeDma::default();
        let item = std::rc::Rc::new(());
        let table = Table::new(&dma, 5, |_| item.clone()).unwrap();
        assert_eq!(std::rc::Rc::strong_count(&item), 6);
        drop(table);
        assert_eq!(std::rc::Rc::strong_count(&item), 1);
        assert_eq!(dma.live(), 0);
    }

    #[test]
    fn a_table_that_cannot_be_finished_drops_what_it_has() {
        let dma = FakeDma::default();
        let item = std::rc::Rc::new(());
        let full = DmaError { size: 9, align: 1 };
        let table = Table::try_new(&dma, 5, |index| match index {
            3 => Err(full),
            _ => Ok(item.clone()),
        });
        assert_eq!(table.err(), Some(full));
        assert_eq!(std::rc::Rc::strong_count(&item), 1);
        assert_eq!(dma.live(), 0);
    }
}
