//! The ring that was negotiated, split or packed.

use super::{Buffer, PackedRing, QueueError, Ring, SetupError, SplitRing, Token, Used};
use crate::dma::Dma;
use crate::transport::{RingAddresses, RingLayout, TransportError};
use crate::virtio::Features;

/// A ring of the kind that the device and its driver agreed on.
///
/// Which one it is, is known at run time only, as the device decides. A call
/// costs one comparison for it, and no call through a pointer.
#[derive(Debug)]
pub enum AnyRing<D: Dma> {
    /// Without `VIRTIO_F_RING_PACKED`.
    Split(SplitRing<D>),
    /// With it.
    Packed(PackedRing<D>),
}

/// What is the same for both.
macro_rules! each {
    ($any:expr, $ring:ident => $what:expr) => {
        match $any {
            AnyRing::Split($ring) => $what,
            AnyRing::Packed($ring) => $what,
        }
    };
}

impl<D: Dma + Clone> AnyRing<D> {
    /// A ring of `size` descriptors, empty, as [`SplitRing::new`] or
    /// [`PackedRing::new`] makes it.
    ///
    /// # Errors
    ///
    /// [`SetupError::Dma`] where there is no memory for it;
    /// [`TransportError::NoPackedRing`] where `layout` is a legacy interface's, and
    /// `features` are not what was negotiated there.
    pub fn new(
        size: u16,
        layout: RingLayout,
        indirect: u16,
        features: Features,
        dma: D,
    ) -> Result<Self, SetupError> {
        if !features.contains(Features::RING_PACKED) {
            let ring = SplitRing::new(size, layout, indirect, features, dma)?;
            return Ok(Self::Split(ring));
        }
        if layout != RingLayout::Separate {
            return Err(TransportError::NoPackedRing.into());
        }
        let ring = PackedRing::new(size, indirect, features, dma)?;
        Ok(Self::Packed(ring))
    }
}

impl<D: Dma> AnyRing<D> {
    /// Whether it is a packed ring.
    pub fn is_packed(&self) -> bool {
        matches!(self, Self::Packed(_))
    }

    /// How far requests were made available: [`SplitRing::avail_idx`] or
    /// [`PackedRing::avail_idx`].
    pub fn avail_idx(&self) -> u16 {
        each!(self, ring => ring.avail_idx())
    }

    /// How far requests were taken back: [`SplitRing::used_idx`] or
    /// [`PackedRing::used_idx`].
    pub fn used_idx(&self) -> u16 {
        each!(self, ring => ring.used_idx())
    }

    /// Takes no more requests, and gives none back.
    pub(super) fn abandon(&mut self) {
        each!(self, ring => ring.abandon());
    }

    /// Empties the ring, as it was when it was made. Interrupts stay as they were
    /// asked for. A ring that was released stays broken.
    ///
    /// # Safety
    ///
    /// The device does not access the ring: it was reset, or the queue was.
    pub(super) unsafe fn clear(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { each!(self, ring => ring.clear()) }
    }

    /// Gives the ring's memory back; the ring is broken from then on. Without
    /// this call the memory is never freed: the device may still use it.
    ///
    /// # Safety
    ///
    /// The device does not access the ring any more.
    pub(super) unsafe fn release(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { each!(self, ring => ring.release()) }
    }
}

impl<D: Dma> Ring for AnyRing<D> {
    #[inline]
    fn size(&self) -> u16 {
        each!(self, ring => ring.size())
    }

    fn addresses(&self) -> RingAddresses {
        each!(self, ring => ring.addresses())
    }

    #[inline]
    fn in_flight(&self) -> u16 {
        each!(self, ring => ring.in_flight())
    }

    #[inline]
    fn next_token(&self) -> Result<Token, QueueError> {
        each!(self, ring => ring.next_token())
    }

    #[inline(always)]
    unsafe fn add(&mut self, buffers: &[Buffer]) -> Result<Token, QueueError> {
        // SAFETY: the caller's promise.
        unsafe { each!(self, ring => ring.add(buffers)) }
    }

    #[inline]
    fn needs_notification(&mut self) -> bool {
        each!(self, ring => ring.needs_notification())
    }

    #[inline]
    fn has_used(&self) -> bool {
        each!(self, ring => ring.has_used())
    }

    #[inline(always)]
    fn pop(&mut self) -> Result<Option<Used>, QueueError> {
        each!(self, ring => ring.pop())
    }

    #[inline]
    fn set_interrupts(&mut self, wanted: bool) {
        each!(self, ring => ring.set_interrupts(wanted));
    }
}
