//! Memory that goes with a queue's tokens: what a request carries beside its own,
//! without an allocator.

use core::ptr::NonNull;

use crate::dma::{Dma, DmaError, DmaRegion, PAGE_SIZE};
use crate::queue::Token;

/// A slot for each token of each of a driver's queues. A driver keeps it as long
/// as its device may access it: until that was reset.
pub(super) struct Slots<D: Dma> {
    region: DmaRegion<D>,
    /// Bytes in a slot.
    size: usize,
    /// Slots of a queue: as many as the largest has tokens.
    stride: usize,
}

/// The memory that goes with a token.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// Where the CPU sees it. The device may be accessing its neighbours, so it is
    /// accessed by pointer only.
    pub(super) pointer: NonNull<u8>,
    /// Where the device sees it.
    pub(super) address: u64,
}

impl<D: Dma> Slots<D> {
    /// Slots of `size` bytes, a power of two to which they are aligned, for queues
    /// of `queues` descriptors each.
    pub(super) fn new(dma: D, queues: &[u16], size: usize) -> Result<Self, DmaError> {
        let stride = queues.iter().copied().max().map_or(0, usize::from);
        let len = queues.len().saturating_mul(stride).saturating_mul(size);
        let region = DmaRegion::new(dma, len, size.min(PAGE_SIZE))?;
        Ok(Self {
            region,
            size,
            stride,
        })
    }

    /// What no other driver's slots have as long as a device may access these.
    pub(super) fn id(&self) -> usize {
        self.region.pointer().addr().get()
    }

    /// The slot of a token of queue `queue`.
    ///
    /// # Panics
    ///
    /// If there is no such token: queues give out none beyond their size.
    #[inline(always)]
    pub(super) fn of(&self, queue: usize, token: Token) -> Slot {
        assert!(token.index() < self.stride, "token {}", token.index());
        let offset = (queue * self.stride + token.index()) * self.size;
        assert!(offset < self.region.len(), "queue {queue}");
        Slot {
            // SAFETY: inside the region, as was just checked; slots are whole.
            pointer: unsafe { self.region.pointer().add(offset) },
            address: self.region.address() + offset as u64,
        }
    }
}
