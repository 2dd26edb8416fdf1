//! What the rings have in common: what they check of a request, what they note
//! of it, and the memory that they lend to the device.

use core::mem::{self, ManuallyDrop};
use core::ptr::NonNull;
use core::sync::atomic::AtomicU16;

use super::memory::Field;
use super::{Buffer, QueueError};
use crate::dma::{Dma, DmaError, DmaRegion, PAGE_SIZE, Table};
use crate::virtio::Features;

/// Bytes of a descriptor, in a ring and in a table (2.7.5, 2.8.13).
pub(super) const DESC: usize = 16;

/// What a request takes of a ring.
#[derive(Clone, Copy)]
pub(super) struct Request {
    /// How many bytes the device may write.
    pub(super) writable: u32,
    /// How many of the ring's descriptors it takes.
    pub(super) descriptors: u16,
    /// Whether it goes into a table of indirect descriptors.
    pub(super) indirect: bool,
}

impl Request {
    /// Checks that a queue of `size` descriptors takes such a request, with tables
    /// of `entries` descriptors, and has room for it while `free` are free.
    #[inline(always)]
    pub(super) fn check(
        buffers: &[Buffer],
        size: u16,
        entries: u16,
        free: u16,
    ) -> Result<Self, QueueError> {
        let count = buffers.len();
        let writable = writable_bytes(buffers)
            .filter(|_| count <= size.into())
            .ok_or(QueueError::Chain { buffers: count })?;
        let indirect = count > 1 && count <= entries.into();
        let descriptors = if indirect { 1 } else { count as u16 };
        if descriptors > free {
            return Err(QueueError::Full {
                needed: descriptors.into(),
                free,
            });
        }
        Ok(Self {
            writable,
            descriptors,
            indirect,
        })
    }
}

/// How many writable bytes a well-formed request has; `None` for any other.
#[inline(always)]
fn writable_bytes(buffers: &[Buffer]) -> Option<u32> {
    let (mut readable, mut writable) = (0, 0);
    for buffer in buffers {
        let len = u64::from(buffer.len);
        // Readable ones come first.
        if len == 0 || !buffer.writable && writable > 0 {
            return None;
        }
        if buffer.writable {
            writable += len;
        } else {
            readable += len;
        }
    }
    let all = readable + writable;
    (all > 0 && all <= u64::from(u32::MAX)).then_some(writable as u32)
}

/// What the driver notes under each number that a request can have: the index of
/// its first descriptor in a split ring, its buffer ID in a packed one.
#[derive(Clone, Copy)]
pub(super) struct Note {
    /// The number after this one, in the free list; in a split ring also the
    /// descriptor after this one in a request.
    pub(super) next: u16,
    /// How many descriptors the request takes; 0 if there is none.
    pub(super) descriptors: u16,
    /// How many bytes the device may write.
    pub(super) writable: u32,
}

impl Note {
    /// Of number `index` while all are free.
    pub(super) fn free(index: usize) -> Self {
        Self {
            next: index as u16 + 1,
            descriptors: 0,
            writable: 0,
        }
    }

    /// The note of the request that the device says it gives back, if it has it.
    #[inline(always)]
    pub(super) fn in_flight(notes: &[Self], id: u32) -> Result<(u16, Self), QueueError> {
        let number = usize::try_from(id).ok();
        match number.and_then(|number| notes.get(number)) {
            // A queue has at most 32768 notes.
            Some(note) if note.descriptors > 0 => Ok((id as u16, *note)),
            _ => Err(QueueError::UsedId { id }),
        }
    }
}

/// Whether the other side wants to hear of the step from `old` to `new`
/// (2.7.10: `vring_need_event`): all three are free-running, so the whole is in
/// wrapping arithmetic.
#[inline]
pub(super) fn need_event(event: u16, new: u16, old: u16) -> bool {
    #[cfg(test)]
    if super::model::forgets_to_wrap() {
        return event < new && event >= old;
    }
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Memory that the device may access until it was reset: it is given back by
/// [`release`](Self::release), and not when this is dropped.
pub(super) struct Lent<D: Dma> {
    /// `None` once released.
    region: ManuallyDrop<Option<DmaRegion<D>>>,
    base: NonNull<u8>,
    address: u64,
    len: usize,
}

// SAFETY: it owns its memory as a `Box<[u8]>` would; the device on the other side
// is no thread of this program, and is synchronised with by the rings' fences.
unsafe impl<D: Dma + Send> Send for Lent<D> {}

impl<D: Dma> Lent<D> {
    /// `len` bytes, zeroed, aligned to `align`.
    pub(super) fn new(dma: D, len: usize, align: usize) -> Result<Self, DmaError> {
        let region = DmaRegion::new(dma, len, align)?;
        Ok(Self {
            base: region.pointer(),
            address: region.address(),
            region: ManuallyDrop::new(Some(region)),
            len,
        })
    }

    /// Where a device sees the first byte.
    #[inline]
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// Where the CPU sees the `T` at `offset`.
    ///
    /// # Safety
    ///
    /// It is inside.
    #[inline]
    pub(super) unsafe fn at<T>(&self, offset: usize) -> NonNull<T> {
        debug_assert!(offset + mem::size_of::<T>() <= self.len);
        // SAFETY: the caller's promise.
        unsafe { self.base.add(offset).cast() }
    }

    /// The 16-bit field at `offset`, which both sides access.
    ///
    /// # Safety
    ///
    /// It is inside, aligned, and the memory was not released. While others access
    /// it, they do so atomically.
    #[inline]
    pub(super) unsafe fn word(&self, offset: usize) -> Field<'_, AtomicU16> {
        // SAFETY: the caller's promise.
        Field(unsafe { AtomicU16::from_ptr(self.at(offset).as_ptr()) })
    }

    /// Fills the memory with zeros; says whether it still is there to be filled.
    ///
    /// # Safety
    ///
    /// The device does not access it.
    pub(super) unsafe fn zero(&mut self) -> bool {
        if self.region.is_none() {
            return false;
        }
        // SAFETY: it is owned, and the device does not access it.
        unsafe { self.base.write_bytes(0, self.len) };
        true
    }

    /// Gives the memory back.
    ///
    /// # Safety
    ///
    /// Neither the device nor the ring accesses it any more.
    pub(super) unsafe fn release(&mut self) {
        drop(self.region.take());
    }
}

/// Tables of indirect descriptors (2.7.5.3, 2.8.7): one for each number that a
/// request can have.
pub(super) struct Tables<D: Dma> {
    memory: Option<Lent<D>>,
    entries: u16,
}

impl<D: Dma> Tables<D> {
    /// `size` tables for requests of up to `indirect` buffers; none where
    /// `features` or the requests have no use for them.
    pub(super) fn new(
        size: u16,
        indirect: u16,
        features: Features,
        dma: D,
    ) -> Result<Self, DmaError> {
        // A single buffer needs no table, and no request is longer than the queue.
        let useful = indirect > 1 && features.contains(Features::INDIRECT_DESC);
        let entries = if useful { indirect.min(size) } else { 0 };
        let too_large = DmaError {
            size: usize::MAX,
            align: DESC,
        };
        let bytes = (usize::from(size) * DESC)
            .checked_mul(entries.into())
            .ok_or(too_large)?;
        let memory = match bytes {
            0 => None,
            bytes => Some(Lent::new(dma, bytes, DESC)?),
        };
        Ok(Self { memory, entries })
    }

    /// How many descriptors each has; 0 without tables.
    #[inline]
    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    /// Table `number`: where the CPU sees its descriptors, and where a device does.
    #[inline]
    pub(super) fn table<T>(&self, number: u16) -> (NonNull<T>, u64) {
        let Some(memory) = &self.memory else {
            unreachable!("a request goes into a table only where there are some")
        };
        let offset = usize::from(number) * usize::from(self.entries) * DESC;
        // SAFETY: there is a table for each number.
        (
            unsafe { memory.at(offset) },
            memory.address() + offset as u64,
        )
    }

    /// Gives the memory back.
    ///
    /// # Safety
    ///
    /// As for [`Lent::release`].
    pub(super) unsafe fn release(&mut self) {
        if let Some(memory) = &mut self.memory {
            // SAFETY: the caller's promise.
            unsafe { memory.release() }
        }
    }
}

/// The ring itself, tables of indirect descriptors, and the driver's notes.
type Parts<D> = (Lent<D>, Tables<D>, Table<Note, D>);

/// What a ring of `size` descriptors takes: `len` bytes for the ring itself, tables
/// for requests of up to `indirect` buffers where they are of use, and notes.
pub(super) fn allocate<D: Dma + Clone>(
    size: u16,
    len: usize,
    indirect: u16,
    features: Features,
    dma: D,
) -> Result<Parts<D>, DmaError> {
    let notes = Table::new(dma.clone(), size.into(), Note::free)?;
    let mut tables = Tables::new(size, indirect, features, dma.clone())?;
    match Lent::new(dma, len, PAGE_SIZE) {
        Ok(memory) => Ok((memory, tables, notes)),
        Err(error) => {
            // SAFETY: no device was told of them.
            unsafe { tables.release() };
            Err(error)
        }
    }
}
