//! The part that a driver's queue, transport and borrowed memory play together:
//! requests that own their memory, and a device that is reset before any of it
//! is let go.

use core::mem::ManuallyDrop;

use super::DeviceError;
use crate::dma::{Dma, Table};
use crate::queue::{Buffer, QueueError, QueueMut, SplitRing, Token, Used, VirtQueue};
use crate::transport::Transport;
use crate::virtio::{Features, Init, give_up, retire};

/// A live device with one queue. `R` is what a request owns while the device
/// has it.
pub(super) struct Link<T: Transport, R, D: Dma + Clone> {
    transport: T,
    features: Features,
    queue: VirtQueue<SplitRing<D>>,
    /// By token: what the request in flight owns.
    owned: ManuallyDrop<Table<Option<R>, D>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    /// The device was reset, and its memory let go.
    Reset,
    /// The device did not reset: its memory is never used again.
    Lost,
}

impl<T: Transport, R, D: Dma + Clone> Link<T, R, D> {
    /// Sets up queue 0 of about `wanted` descriptors for requests of up to
    /// `buffers` buffers, and makes the device live. `prepare` gets the queue's
    /// size before that, to allocate what the driver wants beside it.
    pub(super) fn open<P>(
        mut init: Init<T>,
        wanted: u16,
        buffers: u16,
        dma: D,
        prepare: impl FnOnce(&mut T, u16) -> Result<P, DeviceError>,
    ) -> Result<(Self, P), DeviceError> {
        let features = init.features();
        let transport = init.transport();
        // All that can fail comes before the device gets the queue.
        let size = transport.queue_size(0)?.choose(0, wanted)?;
        let prepared = prepare(transport, size)?;
        let owned = Table::new(dma.clone(), size.into(), |_| None)?;
        // Of that size: a device may say another if it is asked once more.
        let queue = VirtQueue::with_size(transport, 0, size, buffers, features, dma)?;
        let link = Self {
            transport: init.finish(),
            features,
            queue,
            owned: ManuallyDrop::new(owned),
            state: State::Live,
        };
        Ok((link, prepared))
    }

    pub(super) fn transport(&self) -> &T {
        &self.transport
    }

    pub(super) fn features(&self) -> Features {
        self.features
    }

    pub(super) fn queue(&mut self) -> QueueMut<'_, SplitRing<D>> {
        QueueMut::new(&mut self.queue)
    }

    /// Makes a request available that owns `request`; gives it back on error.
    ///
    /// # Safety
    ///
    /// The buffers are memory that `request` owns, or that lives until the link
    /// is dropped and that nobody else accesses while the request is in flight.
    pub(super) unsafe fn submit(
        &mut self,
        buffers: &[Buffer],
        request: R,
    ) -> Result<Token, (QueueError, R)> {
        // SAFETY: `owned` keeps the memory until the request comes back or the
        // device is reset (`fail`, `drop`).
        match unsafe { self.queue.add(buffers) } {
            Ok(token) => {
                self.owned[token.index()] = Some(request);
                Ok(token)
            }
            Err(error) => Err((error, request)),
        }
    }

    /// Takes back a finished request and what it owns. After a device's fault
    /// the device is reset and FAILED.
    pub(super) fn pop(&mut self) -> Result<Option<(Used, R)>, DeviceError> {
        match self.queue.pop() {
            Ok(None) => Ok(None),
            Ok(Some(used)) => {
                let request = self.owned[used.token.index()].take();
                Ok(request.map(|request| (used, request)))
            }
            Err(error) => {
                self.fail();
                Err(error.into())
            }
        }
    }

    /// Gives the device up: resets it, marks it FAILED, and lets go of the memory
    /// if it did reset. What requests in flight own is dropped then.
    pub(super) fn fail(&mut self) {
        self.end(|transport| give_up(transport));
    }

    /// Resets the device for good, and says whether it did: whether memory that
    /// it was given can be used again.
    pub(super) fn close(&mut self) -> bool {
        self.end(|transport| retire(transport));
        self.state == State::Reset
    }

    fn end(&mut self, reset: impl FnOnce(&mut T) -> bool) {
        if self.state != State::Live {
            return;
        }
        self.state = State::Lost;
        self.queue.abandon();
        if reset(&mut self.transport) {
            self.state = State::Reset;
            // SAFETY: a device that was reset accesses nothing (2.4.1); this
            // state is entered once.
            unsafe {
                self.queue.release();
                ManuallyDrop::drop(&mut self.owned);
            }
        }
    }
}

impl<T: Transport, R, D: Dma + Clone> Drop for Link<T, R, D> {
    fn drop(&mut self) {
        self.close();
    }
}
