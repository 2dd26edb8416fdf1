//! The split virtqueue (virtio 1.2, 2.7).
//!
//! What the device may write (the used ring) is read once, checked, and never
//! trusted for the driver's own bookkeeping: free descriptors and requests in
//! flight are noted in memory that the device is not told of.

use core::mem;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering};

use virtio_spec::virtq::{AvailF, Desc, DescF, UsedElem, UsedF};
use virtio_spec::{le16, le32, le64};

use super::barrier;
use super::memory::{self, Field};
use super::request::{DESC, Lent, Note, Request, Tables, allocate, need_event};
use super::{Buffer, QueueError, Ring, Token, Used};
use crate::dma::{Dma, DmaError, Table};
use crate::transport::{RingAddresses, RingLayout};
use crate::virtio::Features;

const USED_ELEM: usize = mem::size_of::<UsedElem>();
/// `flags` and `idx`, with which both rings begin.
const RING_HEADER: usize = 4;
/// `used_event` and `avail_event`, with which they end.
const EVENT: usize = 2;

/// Offsets of a ring's parts in its memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    avail: usize,
    used: usize,
    len: usize,
}

impl Layout {
    fn new(size: u16, layout: RingLayout) -> Self {
        let size = usize::from(size);
        // The legacy layout (2.7.2) serves the other case too, with the used
        // ring where its own alignment puts it (4, 2.7). The legacy size counts
        // whole pages.
        let align = match layout {
            RingLayout::Contiguous { align } => align as usize,
            RingLayout::Separate => mem::align_of::<u32>(),
        };
        let avail = DESC * size;
        let used = (avail + RING_HEADER + 2 * size + EVENT).next_multiple_of(align);
        let end = used + RING_HEADER + USED_ELEM * size + EVENT;
        Self {
            avail,
            used,
            len: end.next_multiple_of(align),
        }
    }
}

/// A split ring.
pub struct SplitRing<D: Dma> {
    memory: Lent<D>,
    tables: Tables<D>,
    notes: Table<Note, D>,
    layout: Layout,
    size: u16,
    event_idx: bool,
    /// Without `VIRTIO_F_VERSION_1`, used lengths may be too large (2.7.8.1).
    legacy: bool,
    interrupts: bool,
    /// First free descriptor; valid if `free` is not 0.
    first_free: u16,
    free: u16,
    in_flight: u16,
    /// `avail.idx` as published.
    avail_idx: u16,
    /// How many requests were published since the last `needs_notification`.
    unannounced: u32,
    /// `used.idx` up to which requests were taken back.
    used_idx: u16,
    broken: bool,
}

impl<D: Dma + Clone> SplitRing<D> {
    /// A ring of `size` descriptors (a power of two up to 32768), empty. Where
    /// `features` has `VIRTIO_F_INDIRECT_DESC`, requests of 2 to `indirect`
    /// buffers take one descriptor and a table.
    ///
    /// # Errors
    ///
    /// [`DmaError`] where there is no memory for it.
    pub fn new(
        size: u16,
        layout: RingLayout,
        indirect: u16,
        features: Features,
        dma: D,
    ) -> Result<Self, DmaError> {
        debug_assert!(
            size.is_power_of_two() && size <= 0x8000,
            "`QueueSize::choose`"
        );
        let layout = Layout::new(size, layout);
        let (memory, tables, notes) = allocate(size, layout.len, indirect, features, dma)?;
        Ok(Self {
            memory,
            tables,
            notes,
            layout,
            size,
            event_idx: features.contains(Features::EVENT_IDX),
            legacy: !features.contains(Features::VERSION_1),
            interrupts: true,
            first_free: 0,
            free: size,
            in_flight: 0,
            avail_idx: 0,
            unannounced: 0,
            used_idx: 0,
            broken: false,
        })
    }
}

impl<D: Dma> SplitRing<D> {
    /// The available index, as published (2.7.6).
    pub fn avail_idx(&self) -> u16 {
        self.avail_idx
    }

    /// The used index (2.7.8) up to which requests were taken back.
    pub fn used_idx(&self) -> u16 {
        self.used_idx
    }

    /// Takes no more requests, and gives none back.
    pub(super) fn abandon(&mut self) {
        self.broken = true;
    }

    /// Empties the ring, as it was when it was made. Interrupts stay as they were
    /// asked for. A ring that was released stays broken.
    ///
    /// # Safety
    ///
    /// The device does not access the ring: it was reset, or the queue was.
    pub(super) unsafe fn clear(&mut self) {
        // SAFETY: the caller's promise.
        if !unsafe { self.memory.zero() } {
            return;
        }
        for (index, note) in self.notes.iter_mut().enumerate() {
            *note = Note::free(index);
        }
        (self.first_free, self.free, self.in_flight) = (0, self.size, 0);
        (self.avail_idx, self.unannounced, self.used_idx) = (0, 0, 0);
        self.broken = false;
        self.set_interrupts(self.interrupts);
    }

    /// Gives the ring's memory back; the ring is broken from then on. Without
    /// this call the memory is never freed: the device may still use it.
    ///
    /// # Safety
    ///
    /// The device does not access the ring any more.
    pub(super) unsafe fn release(&mut self) {
        // A broken ring touches its memory no more.
        self.abandon();
        // SAFETY: the caller's promise, and the line before.
        unsafe {
            self.memory.release();
            self.tables.release();
        }
    }

    /// A pointer to the `T` at `offset` in the ring's memory.
    fn at<T>(&self, offset: usize) -> NonNull<T> {
        // SAFETY: all callers' offsets are inside by `Layout::new`.
        unsafe { self.memory.at(offset) }
    }

    /// A 16-bit field that both sides access.
    fn field(&self, offset: usize) -> Field<'_, AtomicU16> {
        // SAFETY: inside the ring's memory, which a ring that is not broken has;
        // aligned to 2 (all offsets are even and the memory starts at a page), and
        // accessed atomically only.
        unsafe { self.memory.word(offset) }
    }

    fn avail_flags(&self) -> Field<'_, AtomicU16> {
        self.field(self.layout.avail)
    }

    fn avail_idx_field(&self) -> Field<'_, AtomicU16> {
        self.field(self.layout.avail + 2)
    }

    fn used_event(&self) -> Field<'_, AtomicU16> {
        self.field(self.layout.avail + RING_HEADER + 2 * usize::from(self.size))
    }

    fn used_flags(&self) -> Field<'_, AtomicU16> {
        self.field(self.layout.used)
    }

    fn used_idx_field(&self) -> Field<'_, AtomicU16> {
        self.field(self.layout.used + 2)
    }

    fn avail_event(&self) -> Field<'_, AtomicU16> {
        self.field(self.layout.used + RING_HEADER + USED_ELEM * usize::from(self.size))
    }

    /// The place of a free-running ring index in a ring.
    #[inline]
    fn slot(&self, idx: u16) -> usize {
        usize::from(idx & (self.size - 1))
    }

    #[inline(always)]
    fn write_descriptor(table: NonNull<Desc>, index: usize, buffer: &Buffer, next: Option<u16>) {
        let mut flags = if buffer.writable {
            DescF::WRITE
        } else {
            DescF::empty()
        };
        if next.is_some() {
            flags |= DescF::NEXT;
        }
        let desc = Desc {
            addr: le64::from(buffer.address),
            len: le32::from(buffer.len),
            flags,
            next: le16::from(next.unwrap_or(0)),
        };
        // SAFETY: callers pass a table of the ring's and an index inside it; the
        // device does not read a descriptor before it is made available.
        unsafe { write_whole(table.add(index), desc) }
    }

    /// Writes a request into a table of indirect descriptors and the table into
    /// the descriptor `head` (2.7.5.3).
    #[inline(always)]
    fn write_indirect(&mut self, head: u16, buffers: &[Buffer]) {
        let (table, address) = self.tables.table(head);
        for (index, buffer) in buffers.iter().enumerate() {
            let next = (index + 1 < buffers.len()).then_some(index as u16 + 1);
            Self::write_descriptor(table, index, buffer, next);
        }
        let desc = Desc {
            addr: le64::from(address),
            len: le32::from((buffers.len() * DESC) as u32),
            flags: DescF::INDIRECT,
            next: le16::from(0),
        };
        // SAFETY: `head` is below the ring's size.
        unsafe { write_whole(self.at(usize::from(head) * DESC), desc) }
    }

    /// Writes a request into a chain of descriptors that begins at `head`.
    #[inline(always)]
    fn write_chain(&mut self, head: u16, buffers: &[Buffer]) {
        let mut index = head;
        for (position, buffer) in buffers.iter().enumerate() {
            let next = self.notes[usize::from(index)].next;
            let link = (position + 1 < buffers.len()).then_some(next);
            Self::write_descriptor(self.at(0), index.into(), buffer, link);
            index = next;
        }
    }

    /// Checks what the device wrote about a finished request, and takes the
    /// request's descriptors back.
    #[inline(always)]
    fn take_back(&mut self, element: UsedElem) -> Result<Used, QueueError> {
        let (id, written) = (u32::from(element.id), u32::from(element.len));
        let (head, note) = Note::in_flight(&self.notes, id)?;
        let Note {
            descriptors,
            writable,
            ..
        } = note;
        if written > writable && !self.legacy {
            return Err(QueueError::UsedLength { written, writable });
        }
        let mut last = head;
        for _ in 1..descriptors {
            last = self.notes[usize::from(last)].next;
        }
        self.notes[usize::from(head)].descriptors = 0;
        self.notes[usize::from(last)].next = self.first_free;
        self.first_free = head;
        self.free += descriptors;
        self.in_flight -= 1;
        self.used_idx = self.used_idx.wrapping_add(1);
        Ok(Used {
            token: Token(head),
            written: written.min(writable),
        })
    }

    /// Tells the device by which used index to interrupt (2.7.7, 2.7.10).
    #[inline]
    fn write_used_event(&self) {
        // Without interrupts wanted: half of all indices ahead. No more requests
        // than that are in flight, so the device does not come to it before it
        // has moved on. An index just passed will not do: the device may be about
        // to ask whether its last step passed it.
        let event = if self.interrupts {
            self.used_idx
        } else {
            self.used_idx.wrapping_add(0x8000)
        };
        self.used_event().store(event.to_le(), Ordering::Relaxed);
    }
}

/// Writes a descriptor by as few stores as there can be.
///
/// # Safety
///
/// There is one, aligned as descriptors are (to 16 bytes, 2.7), and the device does
/// not read it.
#[inline]
unsafe fn write_whole(at: NonNull<Desc>, desc: Desc) {
    // SAFETY: of the same size, and all of its bytes are fields'.
    let whole = unsafe { mem::transmute::<Desc, u128>(desc) };
    // SAFETY: the caller's promise.
    unsafe { memory::write(at.cast(), whole) }
}

impl<D: Dma> Ring for SplitRing<D> {
    #[inline]
    fn size(&self) -> u16 {
        self.size
    }

    fn addresses(&self) -> RingAddresses {
        let base = self.memory.address();
        RingAddresses {
            descriptors: base,
            driver: base + self.layout.avail as u64,
            device: base + self.layout.used as u64,
        }
    }

    #[inline]
    fn in_flight(&self) -> u16 {
        self.in_flight
    }

    #[inline]
    fn next_token(&self) -> Result<Token, QueueError> {
        match self.free {
            _ if self.broken => Err(QueueError::Broken),
            0 => Err(QueueError::Full { needed: 1, free: 0 }),
            _ => Ok(Token(self.first_free)),
        }
    }

    #[inline(always)]
    unsafe fn add(&mut self, buffers: &[Buffer]) -> Result<Token, QueueError> {
        if self.broken {
            return Err(QueueError::Broken);
        }
        let Request {
            writable,
            descriptors,
            indirect,
        } = Request::check(buffers, self.size, self.tables.entries(), self.free)?;
        let head = self.first_free;
        if indirect {
            self.write_indirect(head, buffers);
        } else {
            self.write_chain(head, buffers);
        }
        let mut after = head;
        for _ in 0..descriptors {
            after = self.notes[usize::from(after)].next;
        }
        self.first_free = after;
        self.free -= descriptors;
        self.in_flight += 1;
        let note = &mut self.notes[usize::from(head)];
        (note.descriptors, note.writable) = (descriptors, writable);

        let entry = self.layout.avail + RING_HEADER + 2 * self.slot(self.avail_idx);
        self.field(entry).store(head.to_le(), Ordering::Relaxed);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        // 2.7.13.3.1: the descriptors and the ring's entry are seen before the
        // index: that is what a release store is.
        self.avail_idx_field()
            .store(self.avail_idx.to_le(), Ordering::Release);
        self.unannounced = self.unannounced.saturating_add(1);
        Ok(Token(head))
    }

    #[inline]
    fn needs_notification(&mut self) -> bool {
        if self.broken {
            return false;
        }
        // 2.7.13.4.1: the index is seen before the suppression word is read.
        // A store and a later load: only a full barrier orders these.
        barrier::full();
        let count = mem::take(&mut self.unannounced);
        if self.event_idx {
            let event = u16::from_le(self.avail_event().load(Ordering::Relaxed));
            // A batch that went all the way round has passed any index.
            count > u32::from(u16::MAX)
                || need_event(
                    event,
                    self.avail_idx,
                    self.avail_idx.wrapping_sub(count as u16),
                )
        } else {
            let flags = u16::from_le(self.used_flags().load(Ordering::Relaxed));
            count > 0 && flags & u16::from(UsedF::NO_NOTIFY.bits()) == 0
        }
    }

    #[inline]
    fn has_used(&self) -> bool {
        !self.broken && u16::from_le(self.used_idx_field().load(Ordering::Acquire)) != self.used_idx
    }

    #[inline(always)]
    fn pop(&mut self) -> Result<Option<Used>, QueueError> {
        if self.broken {
            return Err(QueueError::Broken);
        }
        // 2.7.14: the index is read before the entry that it covers: an acquire.
        let index = u16::from_le(self.used_idx_field().load(Ordering::Acquire));
        let finished = index.wrapping_sub(self.used_idx);
        if finished == 0 {
            return Ok(None);
        }
        if finished > self.in_flight {
            self.broken = true;
            let (seen, in_flight) = (self.used_idx, self.in_flight);
            return Err(QueueError::UsedIndex {
                index,
                seen,
                in_flight,
            });
        }
        let entry = self.layout.used + RING_HEADER + USED_ELEM * self.slot(self.used_idx);
        // SAFETY: inside the ring's memory and aligned; the device has written
        // it, as its index says, and a copy is taken once.
        let element = unsafe { memory::read(self.at::<UsedElem>(entry)) };
        let used = self.take_back(element);
        if used.is_err() {
            self.broken = true;
        } else if self.event_idx {
            self.write_used_event();
            if self.interrupts {
                // Seen before the used index is looked at again: or the device
                // might step past the event unseen, and the interrupt be lost.
                barrier::full();
            }
        }
        used.map(Some)
    }

    fn set_interrupts(&mut self, wanted: bool) {
        // A queue that was reset is given again as it was asked for meanwhile.
        self.interrupts = wanted;
        if self.broken {
            return;
        }
        // With VIRTIO_F_EVENT_IDX the flag must stay 0, and `used_event` speaks
        // (2.7.7.1).
        if self.event_idx {
            self.write_used_event();
        } else {
            let flags = if wanted {
                AvailF::empty()
            } else {
                AvailF::NO_INTERRUPT
            };
            self.avail_flags()
                .store(u16::from(flags.bits()).to_le(), Ordering::Relaxed);
        }
        // Whoever asks for interrupts looks once more for what was finished
        // before the device saw it; this orders the two (2.7.7.1).
        barrier::full();
    }
}

impl<D: Dma> core::fmt::Debug for SplitRing<D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SplitRing")
            .field("size", &self.size)
            .field("in_flight", &self.in_flight)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
