//! One device's interrupt, as its handler sees it.

use core::sync::atomic::{AtomicU64, Ordering};

use doorbell::transport::{IsrBits, IsrStatus};

/// A device's interrupt: how often it came, and when last. The handler touches
/// nothing else; what there is to do is for whoever waits.
#[derive(Debug)]
pub struct Source {
    cause: Cause,
    queue: AtomicU64,
    config: AtomicU64,
    entered: AtomicU64,
}

/// How the handler learns what the interrupt is for.
#[derive(Debug)]
enum Cause {
    /// The device's ISR status says so. Reading it clears it, which also takes
    /// the interrupt back.
    Read(IsrStatus),
    /// The vector alone says so.
    Known(IsrBits),
}

// SAFETY: all but the ISR status is atomic. Taking that is an access to one
// register of the device, or on virtio-mmio a read and then a write of what was
// read; whoever comes between finds the same bits, or none.
unsafe impl Sync for Source {}

impl Source {
    /// A device's wired interrupt: INTx, or virtio-mmio's.
    pub fn line(isr: IsrStatus) -> Self {
        Self::new(Cause::Read(isr))
    }

    /// A message (MSI-X) that stands for these bits of an ISR status: for a queue's,
    /// for a change of the configuration, or where one vector is shared for
    /// both, since then it can be either.
    pub fn message(bits: IsrBits) -> Self {
        Self::new(Cause::Known(bits))
    }

    fn new(cause: Cause) -> Self {
        Self {
            cause,
            queue: AtomicU64::new(0),
            config: AtomicU64::new(0),
            entered: AtomicU64::new(0),
        }
    }

    /// How many interrupts said that a queue has used buffers.
    pub fn queue_interrupts(&self) -> u64 {
        self.queue.load(Ordering::Acquire)
    }

    /// How many interrupts said that the configuration changed.
    pub fn config_interrupts(&self) -> u64 {
        self.config.load(Ordering::Acquire)
    }

    /// The TSC when the CPU entered the handler of the last interrupt that was
    /// counted; 0 before the first.
    pub fn entered(&self) -> u64 {
        self.entered.load(Ordering::Acquire)
    }

    /// Handles an interrupt that may be this one's. `false` if it is not: nothing
    /// was counted then.
    pub(super) fn take(&self, entered: u64) -> bool {
        let bits = match &self.cause {
            Cause::Read(isr) => isr.take(),
            Cause::Known(bits) => *bits,
        };
        if bits.is_empty() {
            return false;
        }
        // The time first: whoever sees the count sees the time that belongs to
        // it.
        self.entered.store(entered, Ordering::Release);
        if bits.contains(IsrBits::QUEUE_INTERRUPT) {
            self.queue.fetch_add(1, Ordering::Release);
        }
        if bits.contains(IsrBits::DEVICE_CONFIGURATION_INTERRUPT) {
            self.config.fetch_add(1, Ordering::Release);
        }
        true
    }
}
