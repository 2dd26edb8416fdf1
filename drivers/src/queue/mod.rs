//! Virtqueues (virtio 1.2, 2.6 and 2.7).
//!
//! A [`VirtQueue`] is a [`Ring`] and a [`Notifier`]. The ring knows memory,
//! addresses and barriers, and never a transport; the notifier knows how to ring
//! and nothing else. [`split`] is the ring that every device has, [`packed`] one
//! that it may have beside; [`AnyRing`] is the one that was negotiated.

use core::ops::Deref;

use crate::dma::Dma;
use crate::port::order;
use crate::transport::{Notifier, Notify, RingAddresses, Transport, TransportError};
use crate::virtio::Features;

mod any;
mod barrier;
mod error;
mod memory;
#[cfg(test)]
mod model;
pub mod packed;
mod request;
pub mod split;

pub use any::AnyRing;
#[cfg(any(test, feature = "test-utils"))]
pub use barrier::count::full_barriers;
pub use error::{QueueError, SetupError};
pub use packed::PackedRing;
pub use split::SplitRing;

/// A piece of memory that a device reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Device address of the first byte.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
    /// Whether the device writes it; it reads it otherwise.
    pub writable: bool,
}

impl Buffer {
    /// Memory that the device reads.
    pub fn readable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            writable: false,
        }
    }

    /// Memory that the device writes.
    pub fn writable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            writable: true,
        }
    }
}

/// Names a request while the device has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(u16);

impl Token {
    /// The token with this number.
    pub(crate) fn of(index: usize) -> Self {
        debug_assert!(index <= usize::from(u16::MAX));
        Self(index as u16)
    }

    /// The token's number: below the queue's size, and no other request in
    /// flight has it.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// A request that the device has finished with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Which.
    pub token: Token,
    /// How many bytes the device says it wrote; no more than were writable.
    /// Nothing behind them may be trusted (2.7.8.3).
    pub written: u32,
}

/// A ring of requests in memory shared with a device.
pub trait Ring {
    /// The number of descriptors.
    fn size(&self) -> u16;

    /// Where the device finds the ring.
    fn addresses(&self) -> RingAddresses;

    /// How many requests are in flight.
    fn in_flight(&self) -> u16;

    /// The token that the next [`add`](Self::add) will return.
    ///
    /// # Errors
    ///
    /// [`QueueError::Full`] if there is no room now; [`QueueError::Broken`].
    fn next_token(&self) -> Result<Token, QueueError>;

    /// Makes a request available: readable buffers first, then writable ones.
    /// It does not ring.
    ///
    /// # Errors
    ///
    /// [`QueueError::Full`] if there is no room now; [`QueueError::Chain`] if
    /// there never is for such a request.
    ///
    /// # Safety
    ///
    /// The buffers stay valid, and nobody else accesses them, until the request
    /// comes back from [`pop`](Self::pop) or the device has been reset.
    unsafe fn add(&mut self, buffers: &[Buffer]) -> Result<Token, QueueError>;

    /// Whether the device wants the doorbell rung for what was added since the
    /// last call. It executes the full barrier that the question needs.
    fn needs_notification(&mut self) -> bool;

    /// Whether the device shows that it has finished with something: one load,
    /// for who waits and times. What it shows is checked by [`pop`](Self::pop).
    fn has_used(&self) -> bool;

    /// Takes a request back that the device has finished with, if there is one.
    ///
    /// # Errors
    ///
    /// What the device wrote makes no sense; the queue can't be used any more,
    /// and says so again at each call.
    fn pop(&mut self) -> Result<Option<Used>, QueueError>;

    /// Asks the device for interrupts, or asks it to spare them (a hint, 2.7.7).
    fn set_interrupts(&mut self, wanted: bool);
}

/// A ring with its doorbell.
#[derive(Debug)]
pub struct VirtQueue<R> {
    ring: R,
    notifier: Notifier,
    index: u16,
    doorbells: u64,
}

impl<D: Dma + Clone> VirtQueue<AnyRing<D>> {
    /// Makes a ring for queue `index` of a device, packed if `features` has
    /// `VIRTIO_F_RING_PACKED` and split otherwise, and gives it to the device: of
    /// `wanted` descriptors, or as near to it as the device and the ring allow.
    /// Requests of up to `indirect` buffers take one descriptor where `features`
    /// has `VIRTIO_F_INDIRECT_DESC`. Interrupts are off.
    ///
    /// # Errors
    ///
    /// [`SetupError`] from the device or the allocator.
    pub fn new<T: Transport + ?Sized>(
        transport: &mut T,
        index: u16,
        wanted: u16,
        indirect: u16,
        features: Features,
        dma: D,
    ) -> Result<Self, SetupError> {
        let size = transport.queue_size(index)?;
        let size = size.choose(index, wanted, features)?;
        Self::with_size(transport, index, size, indirect, features, dma)
    }

    /// As [`new`](Self::new), of exactly `size` descriptors, which the transport
    /// allows.
    pub(crate) fn with_size<T: Transport + ?Sized>(
        transport: &mut T,
        index: u16,
        size: u16,
        indirect: u16,
        features: Features,
        dma: D,
    ) -> Result<Self, SetupError> {
        let mut ring = AnyRing::new(size, transport.ring_layout(), indirect, features, dma)?;
        ring.set_interrupts(false);
        // The device must not find what was in this memory before.
        order::device();
        // SAFETY: the ring is of that size and layout, and keeps its memory
        // until it is told that the device was reset (`AnyRing::release`).
        let notifier = unsafe { transport.enable_queue(index, size, &ring.addresses()) };
        match notifier {
            Ok(notifier) => Ok(Self {
                ring,
                notifier,
                index,
                doorbells: 0,
            }),
            // The device may have taken the ring: its memory is lost.
            Err(error @ TransportError::QueueRefused { .. }) => Err(error.into()),
            Err(error) => {
                // SAFETY: by any other error the device was not told of the ring
                // (`Transport`).
                unsafe { ring.release() };
                Err(error.into())
            }
        }
    }

    /// Takes no more requests, and gives none back: every call says
    /// [`QueueError::Broken`] from then on.
    pub fn abandon(&mut self) {
        self.ring.abandon();
    }

    /// Gives a queue that was reset to the device once more, empty.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); the queue is abandoned then.
    ///
    /// # Safety
    ///
    /// The transport is the queue's own, and the device does not access the queue:
    /// [`Transport::reset_queue`] said so.
    pub(crate) unsafe fn restart<T: Transport + ?Sized>(
        &mut self,
        transport: &mut T,
    ) -> Result<(), TransportError> {
        // SAFETY: the caller's promise.
        unsafe { self.ring.clear() };
        order::device();
        // SAFETY: the ring is as it was given to the device before.
        let notifier =
            unsafe { transport.enable_queue(self.index, self.ring.size(), &self.ring.addresses()) };
        match notifier {
            Ok(notifier) => self.notifier = notifier,
            Err(error) => {
                self.abandon();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives the ring's memory back, and abandons the queue. A queue that is
    /// dropped without this call leaves its memory to the device for ever.
    ///
    /// # Safety
    ///
    /// The device was reset, and no longer accesses the queue.
    pub unsafe fn release(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.release() }
    }
}

impl<R: Ring> VirtQueue<R> {
    /// The queue's index.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The ring.
    pub fn ring(&self) -> &R {
        &self.ring
    }

    /// As [`Ring::has_used`].
    #[inline]
    pub fn has_used(&self) -> bool {
        self.ring.has_used()
    }

    /// The number of descriptors.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> u16 {
        self.ring.in_flight()
    }

    /// Where the device finds the ring.
    pub fn addresses(&self) -> RingAddresses {
        self.ring.addresses()
    }

    /// The doorbell, to be timed.
    pub fn notifier(&self) -> Notifier {
        self.notifier
    }

    /// How often [`kick`](Self::kick) and [`notify`](Self::notify) rang.
    pub fn doorbells(&self) -> u64 {
        self.doorbells
    }

    /// The token that the next [`add`](Self::add) will return.
    ///
    /// # Errors
    ///
    /// As [`Ring::next_token`].
    #[inline]
    pub fn next_token(&self) -> Result<Token, QueueError> {
        self.ring.next_token()
    }

    /// Makes a request available.
    ///
    /// # Errors
    ///
    /// As [`Ring::add`].
    ///
    /// # Safety
    ///
    /// As for [`Ring::add`].
    #[inline(always)]
    pub unsafe fn add(&mut self, buffers: &[Buffer]) -> Result<Token, QueueError> {
        // SAFETY: the caller's promise.
        unsafe { self.ring.add(buffers) }
    }

    /// Rings if the device wants it (2.7.13.4, 2.7.10), and says whether it did.
    #[inline]
    pub fn kick(&mut self) -> bool {
        let due = self.ring.needs_notification();
        if due {
            self.notifier.notify();
            self.doorbells += 1;
        }
        due
    }

    /// Rings whatever the device says, as an experiment may want.
    pub fn notify(&mut self) {
        // Keeps the count of what was announced, and orders the ring's writes
        // before the doorbell.
        let _ = self.ring.needs_notification();
        self.notifier.notify();
        self.doorbells += 1;
    }

    /// As [`Ring::set_interrupts`].
    pub fn set_interrupts(&mut self, wanted: bool) {
        self.ring.set_interrupts(wanted);
    }

    /// Takes a finished request back, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Ring::pop`].
    #[inline(always)]
    pub fn pop(&mut self) -> Result<Option<Used>, QueueError> {
        self.ring.pop()
    }
}

/// A driver's queue, lent out: to look at and to ring.
///
/// It is not a `&mut VirtQueue`, by which two drivers' queues could change
/// places, and be freed when the wrong device was reset; nor does it take
/// requests back behind the driver's back.
#[derive(Debug)]
pub struct QueueMut<'q, R>(&'q mut VirtQueue<R>);

impl<'q, R: Ring> QueueMut<'q, R> {
    pub(crate) fn new(queue: &'q mut VirtQueue<R>) -> Self {
        Self(queue)
    }

    /// As [`VirtQueue::kick`].
    #[inline]
    pub fn kick(&mut self) -> bool {
        self.0.kick()
    }

    /// As [`VirtQueue::notify`].
    pub fn notify(&mut self) {
        self.0.notify();
    }

    /// As [`Ring::needs_notification`], for who rings the
    /// [`notifier`](VirtQueue::notifier) without the queue.
    pub fn needs_notification(&mut self) -> bool {
        self.0.ring.needs_notification()
    }

    /// As [`Ring::set_interrupts`].
    pub fn set_interrupts(&mut self, wanted: bool) {
        self.0.set_interrupts(wanted);
    }
}

impl<R> Deref for QueueMut<'_, R> {
    type Target = VirtQueue<R>;

    fn deref(&self) -> &VirtQueue<R> {
        self.0
    }
}

#[cfg(test)]
mod tests;
