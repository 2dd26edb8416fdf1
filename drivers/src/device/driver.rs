//! What all drivers offer, whatever their kind of device.

use super::DeviceError;
use crate::dma::Dma;
use crate::queue::{AnyRing, QueueMut};
use crate::virtio::{Features, Wait};

/// What all drivers offer, whatever their kind of device: it can be used as
/// `&mut dyn Driver<D>`.
pub trait Driver<D: Dma> {
    /// The negotiated features.
    fn features(&self) -> Features;

    /// How many queues the driver has, numbered from 0. The numbers are the
    /// specification's indices where the driver's text says nothing else.
    fn queues(&self) -> usize;

    /// Queue `n`, to ring and to time its doorbell.
    ///
    /// # Panics
    ///
    /// If there is no such queue: there are [`queues`](Self::queues).
    fn queue(&mut self, n: usize) -> QueueMut<'_, AnyRing<D>>;

    /// Asks for interrupts of all queues, or asks to be spared them, as they are
    /// when the driver starts. Whoever asks looks once more afterwards for what
    /// was finished before (2.7.7.1).
    fn set_interrupts(&mut self, wanted: bool);

    /// Whether the device still answers and wants no reset: a look at its status.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Gone`] or [`DeviceError::NeedsReset`] (2.1.2).
    fn health(&self) -> Result<(), DeviceError>;

    /// Takes queue `n` back from the device, with `VIRTIO_F_RING_RESET` negotiated
    /// (2.6.1). What was in flight there comes back as aborted; after that
    /// [`restart_queue`](Self::restart_queue) gives the device the queue again.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] without the feature, [`DeviceError::NoQueue`],
    /// or, where the device does not follow, [`DeviceError::Transport`]: it is
    /// given up then.
    fn reset_queue(&mut self, n: usize, wait: &mut dyn Wait) -> Result<(), DeviceError>;

    /// Gives queue `n` to the device again, empty.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Busy`] if it was not reset, or while not all that was in
    /// flight was taken back; [`DeviceError::NoQueue`]; and what makes the device
    /// be given up.
    fn restart_queue(&mut self, n: usize) -> Result<(), DeviceError>;

    /// Resets the device for good, and says whether it did reset. Then what was in
    /// flight comes back as aborted.
    fn close(&mut self) -> bool;

    /// Notes that the device was unplugged, so that it can be told no more to let
    /// go of its memory. What was in flight comes back as aborted.
    ///
    /// # Safety
    ///
    /// The device accesses no memory any more, as the slot or bus says that it was
    /// in.
    unsafe fn unplugged(&mut self);
}

/// Implements [`Driver`] for a driver whose field `link` is a
/// [`Link`](super::link::Link).
macro_rules! impl_driver {
    ($driver:ident) => {
        impl<T: $crate::transport::Transport, D: $crate::dma::Dma + Clone> $crate::device::Driver<D>
            for $driver<T, D>
        {
            fn features(&self) -> $crate::virtio::Features {
                self.link.features()
            }

            fn queues(&self) -> usize {
                self.link.queues()
            }

            fn queue(
                &mut self,
                n: usize,
            ) -> $crate::queue::QueueMut<'_, $crate::queue::AnyRing<D>> {
                self.link.queue(n)
            }

            fn set_interrupts(&mut self, wanted: bool) {
                self.link.set_interrupts(wanted);
            }

            fn health(&self) -> Result<(), $crate::device::DeviceError> {
                self.link.health()
            }

            fn reset_queue(
                &mut self,
                n: usize,
                wait: &mut dyn $crate::virtio::Wait,
            ) -> Result<(), $crate::device::DeviceError> {
                self.link.reset_queue(n, wait)
            }

            fn restart_queue(&mut self, n: usize) -> Result<(), $crate::device::DeviceError> {
                self.link.restart_queue(n)
            }

            fn close(&mut self) -> bool {
                self.link.close()
            }

            unsafe fn unplugged(&mut self) {
                // SAFETY: the caller's promise.
                unsafe { self.link.unplugged() };
            }
        }

        impl<T: $crate::transport::Transport, D: $crate::dma::Dma + Clone> $driver<T, D> {
            /// The transport, for reports.
            pub fn transport(&self) -> &T {
                self.link.transport()
            }
        }
    };
}

pub(super) use impl_driver;
