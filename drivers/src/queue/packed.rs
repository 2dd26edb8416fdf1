//! The packed virtqueue (virtio 1.2, 2.8).
//!
//! One ring of descriptors, in which the driver makes requests available and the
//! device writes over them what it has used. Whose a descriptor is, is in two of
//! its flags, compared with a wrap counter; how many the device still has, and
//! what is in them, the driver notes in memory that the device is not told of.
//! What the device writes is read once, checked, and not trusted for that.

use core::mem::{self, offset_of};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use virtio_spec::RingEventFlags;
use virtio_spec::pvirtq::Desc;
use virtio_spec::virtq::DescF;
use virtio_spec::{le16, le32, le64};

use super::barrier;
use super::memory::{self, Field};
use super::request::{DESC, Lent, Note, Request, Tables, allocate, need_event};
use super::{Buffer, QueueError, Ring, Token, Used};
use crate::dma::{Dma, DmaError, Table};
use crate::transport::RingAddresses;
use crate::virtio::Features;

mod place;

use place::{AVAIL, INDIRECT, Layout, NEXT, Place, USED, WRITE};

const EVENT_DISABLE: u16 = RingEventFlags::Disable as u16;
const EVENT_DESC: u16 = RingEventFlags::Desc as u16;

/// A packed ring.
pub struct PackedRing<D: Dma> {
    memory: Lent<D>,
    tables: Tables<D>,
    /// By buffer ID.
    notes: Table<Note, D>,
    layout: Layout,
    size: u16,
    event_idx: bool,
    interrupts: bool,
    /// First free buffer ID; valid if `free` is not 0.
    first_free: u16,
    /// How many descriptors are free.
    free: u16,
    in_flight: u16,
    /// Where the next request is made available.
    avail: Place,
    /// How many descriptors were published since the last `needs_notification`; no
    /// more are counted than 65535.
    unannounced: u16,
    /// Where the device writes the next used descriptor.
    used: Place,
    broken: bool,
}

impl<D: Dma + Clone> PackedRing<D> {
    /// A ring of `size` descriptors (1 to 32768), empty. Where `features` has
    /// `VIRTIO_F_INDIRECT_DESC`, requests of 2 to `indirect` buffers take one
    /// descriptor and a table.
    ///
    /// # Errors
    ///
    /// [`DmaError`] where there is no memory for it.
    pub fn new(size: u16, indirect: u16, features: Features, dma: D) -> Result<Self, DmaError> {
        debug_assert!((1..=0x8000).contains(&size), "`QueueSize::choose`");
        let layout = Layout::new(size);
        let (memory, tables, notes) = allocate(size, layout.len, indirect, features, dma)?;
        Ok(Self {
            memory,
            tables,
            notes,
            layout,
            size,
            event_idx: features.contains(Features::EVENT_IDX),
            interrupts: true,
            first_free: 0,
            free: size,
            in_flight: 0,
            avail: Place::START,
            unannounced: 0,
            used: Place::START,
            broken: false,
        })
    }
}

impl<D: Dma> PackedRing<D> {
    /// The descriptor that is made available next: its place in the ring, and the
    /// driver's wrap counter in bit 15, as 2.8.14 has them.
    pub fn avail_idx(&self) -> u16 {
        self.avail.event()
    }

    /// The descriptor in which the driver looks for the next used one: its place in
    /// the ring, and the wrap counter that it expects in bit 15.
    pub fn used_idx(&self) -> u16 {
        self.used.event()
    }

    /// Takes no more requests, and gives none back.
    pub(super) fn abandon(&mut self) {
        self.broken = true;
    }

    /// As `AnyRing::clear`.
    ///
    /// # Safety
    ///
    /// The device does not access the ring: it was reset, or the queue was.
    pub(super) unsafe fn clear(&mut self) {
        // SAFETY: the caller's promise.
        if !unsafe { self.memory.zero() } {
            return;
        }
        for (id, note) in self.notes.iter_mut().enumerate() {
            *note = Note::free(id);
        }
        (self.first_free, self.free, self.in_flight) = (0, self.size, 0);
        (self.avail, self.unannounced, self.used) = (Place::START, 0, Place::START);
        self.broken = false;
        self.set_interrupts(self.interrupts);
    }

    /// As `AnyRing::release`.
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

    /// The descriptor at `index`, below the ring's size.
    #[inline]
    fn descriptor(&self, index: u16) -> NonNull<Desc> {
        // SAFETY: the ring begins with `size` descriptors.
        unsafe { self.memory.at(usize::from(index) * DESC) }
    }

    /// The flags of the descriptor at `index`, which both sides access.
    #[inline]
    fn flags(&self, index: u16) -> Field<'_, AtomicU16> {
        let offset = usize::from(index) * DESC + offset_of!(Desc, flags);
        // SAFETY: inside the ring's memory, which a ring that is not broken has;
        // aligned, as descriptors are to 16, and accessed atomically only.
        unsafe { self.memory.word(offset) }
    }

    /// An event suppression structure, of which both halves are accessed at once.
    #[inline]
    fn event(&self, offset: usize) -> Field<'_, AtomicU32> {
        // SAFETY: as in `flags`; the structures are aligned to `LINE`.
        Field(unsafe { AtomicU32::from_ptr(self.memory.at(offset).as_ptr()) })
    }

    /// Writes a request into a table of indirect descriptors (2.8.7), and says what
    /// the descriptor is that refers to the table.
    #[inline]
    fn write_table(&self, id: u16, buffers: &[Buffer]) -> Buffer {
        let (table, address) = self.tables.table::<Desc>(id);
        for (index, buffer) in buffers.iter().enumerate() {
            // Only this flag counts in a table, and the ID does not (2.8.19).
            let flags = if buffer.writable {
                DescF::WRITE
            } else {
                DescF::empty()
            };
            let desc = Desc {
                addr: le64::from(buffer.address),
                len: le32::from(buffer.len),
                id: le16::from(0),
                flags,
            };
            // SAFETY: no request has more buffers than its table has descriptors;
            // the device does not read them before the request is available.
            unsafe { memory::write(table.add(index), desc) }
        }
        Buffer::readable(address, (buffers.len() * DESC) as u32)
    }

    /// Writes a descriptor but for its flags.
    #[inline]
    fn write_body(&self, index: u16, id: u16, buffer: &Buffer) {
        let desc = self.descriptor(index);
        // SAFETY: a descriptor of the ring's that is free, so that the device does
        // not read it before it is made available.
        unsafe {
            let (addr, len) = (offset_of!(Desc, addr), offset_of!(Desc, len));
            memory::write(desc.byte_add(addr).cast(), le64::from(buffer.address));
            memory::write(desc.byte_add(len).cast(), le32::from(buffer.len));
            memory::write(desc.byte_add(offset_of!(Desc, id)).cast(), le16::from(id));
        }
    }

    /// Writes a request's descriptors and makes them available; `more` are flags of
    /// all of them. There are as many free. Returns the place behind them.
    #[inline]
    fn publish(&self, id: u16, buffers: &[Buffer], more: u16) -> Place {
        let (first, mut place) = (self.avail, self.avail);
        let mut first_flags = 0;
        for (position, buffer) in buffers.iter().enumerate() {
            // The ID is looked for in the last descriptor of a chain (2.8.6).
            self.write_body(place.index, id, buffer);
            let mut flags = place.available() | more;
            if buffer.writable {
                flags |= WRITE;
            }
            if position + 1 < buffers.len() {
                flags |= NEXT;
            }
            if position == 0 {
                first_flags = flags;
            } else {
                self.flags(place.index)
                    .store(flags.to_le(), Ordering::Relaxed);
            }
            place = place.step(1, self.size);
        }
        // 2.8.21.1.1, and 2.8.17 for the rest of a chain: all of it is seen before
        // the first descriptor's flags: that is what a release store is.
        self.flags(first.index)
            .store(first_flags.to_le(), Ordering::Release);
        place
    }

    /// Checks what the device wrote about a finished request, and takes the
    /// request's descriptors back.
    #[inline]
    fn take_back(&mut self, flags: u16, id: u16, len: u32) -> Result<Used, QueueError> {
        let (id, note) = Note::in_flight(&self.notes, id.into())?;
        let written = match len {
            len if len <= note.writable => len,
            // Where nothing was written the length means nothing (2.8.4). It is not
            // ignored above because QEMU never says that something was.
            _ if flags & WRITE == 0 => 0,
            written => {
                return Err(QueueError::UsedLength {
                    written,
                    writable: note.writable,
                });
            }
        };
        let freed = &mut self.notes[usize::from(id)];
        (freed.descriptors, freed.next) = (0, self.first_free);
        self.first_free = id;
        self.free += note.descriptors;
        self.in_flight -= 1;
        // One used descriptor stands for the whole chain (2.8.6).
        self.used = self.used.step(note.descriptors, self.size);
        Ok(Used {
            token: Token(id),
            written,
        })
    }

    /// Tells the device by which used descriptor to interrupt (2.8.10).
    #[inline]
    fn write_driver_event(&self) {
        let flags = match (self.interrupts, self.event_idx) {
            (false, _) => RingEventFlags::Disable,
            (true, false) => RingEventFlags::Enable,
            (true, true) => RingEventFlags::Desc,
        };
        // Both halves by one store: the device never meets one without the other.
        let event = u32::from(self.used.event()) | (flags as u32) << 16;
        self.event(self.layout.driver)
            .store(event.to_le(), Ordering::Relaxed);
    }
}

impl<D: Dma> Ring for PackedRing<D> {
    #[inline]
    fn size(&self) -> u16 {
        self.size
    }

    fn addresses(&self) -> RingAddresses {
        let base = self.memory.address();
        RingAddresses {
            descriptors: base,
            driver: base + self.layout.driver as u64,
            device: base + self.layout.device as u64,
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
            // There are as many IDs as descriptors, and a request has one of the
            // first and at least one of the others.
            _ => Ok(Token(self.first_free)),
        }
    }

    #[inline]
    unsafe fn add(&mut self, buffers: &[Buffer]) -> Result<Token, QueueError> {
        if self.broken {
            return Err(QueueError::Broken);
        }
        let request = Request::check(buffers, self.size, self.tables.entries(), self.free)?;
        let id = self.first_free;
        self.avail = if request.indirect {
            let table = self.write_table(id, buffers);
            self.publish(id, &[table], INDIRECT)
        } else {
            self.publish(id, buffers, 0)
        };
        let Request {
            writable,
            descriptors,
            ..
        } = request;
        let note = &mut self.notes[usize::from(id)];
        self.first_free = note.next;
        (note.descriptors, note.writable) = (descriptors, writable);
        self.free -= descriptors;
        self.in_flight += 1;
        self.unannounced = self.unannounced.saturating_add(descriptors);
        Ok(Token(id))
    }

    #[inline]
    fn needs_notification(&mut self) -> bool {
        if self.broken {
            return false;
        }
        // 2.8.21.3.1: the flags are seen before the event suppression structure is
        // read. A store and a later load: only a full barrier orders these.
        barrier::full();
        let count = mem::take(&mut self.unannounced);
        let event = u32::from_le(self.event(self.layout.device).load(Ordering::Relaxed));
        let (place, flags) = (event as u16, (event >> 16) as u16 & 3);
        let (index, wrap) = (place & 0x7fff, place >> 15 != 0);
        match flags {
            EVENT_DISABLE => false,
            EVENT_DESC if self.event_idx && index < self.size => {
                // Counted from where this lap of the driver's began.
                let lap = if wrap == self.avail.wrap {
                    0
                } else {
                    self.size
                };
                let new = self.avail.index;
                need_event(index.wrapping_sub(lap), new, new.wrapping_sub(count))
            }
            // By what makes no sense no doorbell is lost.
            _ => count > 0,
        }
    }

    #[inline]
    fn has_used(&self) -> bool {
        if self.broken {
            return false;
        }
        let flags = u16::from_le(self.flags(self.used.index).load(Ordering::Acquire));
        flags & (AVAIL | USED) == self.used.used()
    }

    #[inline]
    fn pop(&mut self) -> Result<Option<Used>, QueueError> {
        if self.broken {
            return Err(QueueError::Broken);
        }
        let index = self.used.index;
        // 2.8.22: the flags are read before the rest of the descriptor: an acquire.
        let flags = u16::from_le(self.flags(index).load(Ordering::Acquire));
        let state = flags & (AVAIL | USED);
        if state != self.used.used() {
            // With requests in flight, one of them was made available here. Without,
            // the flags are what an earlier lap has left.
            if self.in_flight > 0 && state != self.used.available() {
                self.broken = true;
                return Err(QueueError::UsedFlags { index, flags });
            }
            return Ok(None);
        }
        let desc = self.descriptor(index);
        // SAFETY: inside the ring's memory and aligned; the device has written it, as
        // its flags say, and copies are taken once.
        let (id, len): (le16, le32) = unsafe {
            let id = memory::read(desc.byte_add(offset_of!(Desc, id)).cast());
            (
                id,
                memory::read(desc.byte_add(offset_of!(Desc, len)).cast()),
            )
        };
        let used = self.take_back(flags, id.into(), len.into());
        if used.is_err() {
            self.broken = true;
        } else if self.event_idx && self.interrupts {
            self.write_driver_event();
            // Seen before the next descriptor is looked at: or the device might use
            // that unseen, and read the event that was before, and the interrupt be
            // lost (2.8.22).
            barrier::full();
        }
        used.map(Some)
    }

    fn set_interrupts(&mut self, wanted: bool) {
        // A queue that was reset is given again as it was asked for meanwhile.
        self.interrupts = wanted;
        if self.broken {
            return;
        }
        self.write_driver_event();
        // Whoever asks for interrupts looks once more for what was finished
        // before the device saw it; this orders the two (2.8.22).
        barrier::full();
    }
}

impl<D: Dma> core::fmt::Debug for PackedRing<D> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PackedRing")
            .field("size", &self.size)
            .field("in_flight", &self.in_flight)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
