//! The part that a driver's queues, transport and borrowed memory play together:
//! requests that own their memory, and a device that is reset before any of it
//! is let go.

use core::mem::ManuallyDrop;

use super::{DeviceError, Setup};
use crate::dma::{Dma, Table};
use crate::queue::{AnyRing, Buffer, QueueError, QueueMut, Token, VirtQueue};
use crate::transport::{DeviceStatus, Interrupt, Transport, is_gone};
use crate::virtio::{Features, Init, Wait, give_up, retire};

/// A queue that a driver wants.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Its index, by the specification.
    pub(super) index: u16,
    /// About how many descriptors it gets.
    pub(super) size: u16,
    /// The most buffers in a request.
    pub(super) buffers: u16,
}

/// A request that came back.
pub(super) struct Back<R> {
    pub(super) token: Token,
    pub(super) request: R,
    /// How many bytes the device says it wrote; `None` if the request was taken
    /// from a device or a queue that was reset.
    pub(super) written: Option<u32>,
}

/// A live device with its queues, numbered from 0 in the order of the plans. `R`
/// is what a request owns while the device has it.
pub(super) struct Link<T: Transport, R, D: Dma + Clone> {
    transport: T,
    features: Features,
    channels: Table<Channel<R, D>, D>,
    state: State,
}

/// A queue, and what its requests own.
struct Channel<R, D: Dma> {
    queue: VirtQueue<AnyRing<D>>,
    /// By token: what the request in flight owns.
    owned: ManuallyDrop<Table<Option<R>, D>>,
    vector: Option<u16>,
    /// Whether the device let go of the queue and of what is in `owned`.
    free: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    /// The device was reset: it has no memory of ours.
    Reset,
    /// The device did not reset: its memory is never used again.
    Lost,
}

impl<R, D: Dma + Clone> Channel<R, D> {
    fn open<T: Transport>(
        transport: &mut T,
        plan: Plan,
        size: u16,
        features: Features,
        vector: Option<u16>,
        dma: D,
    ) -> Result<Self, DeviceError> {
        // All that can fail comes before the device gets the queue.
        let owned = Table::new(dma.clone(), size.into(), |_| None)?;
        if vector.is_some() {
            transport.set_vector(Interrupt::Queue(plan.index), vector)?;
        }
        // Of that size: a device may say another if it is asked once more.
        let queue = VirtQueue::with_size(transport, plan.index, size, plan.buffers, features, dma)?;
        Ok(Self {
            queue,
            owned: ManuallyDrop::new(owned),
            vector,
            free: false,
        })
    }

    /// Notes that the device has nothing of this queue's any more.
    fn let_go(&mut self) {
        self.queue.abandon();
        self.free = true;
    }

    /// The next request that the device was relieved of.
    fn pending(&mut self) -> Option<Back<R>> {
        let held = self.owned.iter_mut().enumerate();
        let (index, request) = held
            .filter_map(|(index, slot)| Some((index, slot.take()?)))
            .next()?;
        Some(Back {
            token: Token::of(index),
            request,
            written: None,
        })
    }
}

impl<T: Transport, R, D: Dma + Clone> Link<T, R, D> {
    /// Sets up `count` queues, of which `plan` says what the driver wants of each,
    /// and makes the device live. `prepare` gets their sizes before that, to read
    /// the configuration and to allocate what the driver wants beside them.
    pub(super) fn open<P>(
        mut init: Init<T>,
        count: usize,
        plan: impl Fn(usize) -> Plan,
        setup: &Setup,
        dma: D,
        prepare: impl FnOnce(&mut T, &[u16]) -> Result<P, DeviceError>,
    ) -> Result<(Self, P), DeviceError> {
        let (features, vectors) = (init.features(), setup.vectors);
        let transport = init.transport();
        let sizes = Table::try_new(dma.clone(), count, |n| {
            let Plan { index, size, .. } = plan(n);
            Ok::<_, DeviceError>(transport.queue_size(index)?.choose(index, size, features)?)
        })?;
        let prepared = prepare(transport, &sizes)?;
        let mut channels = Table::with_capacity(dma.clone(), count)?;
        if let Some(vector) = vectors.config() {
            transport.set_vector(Interrupt::ConfigChange, Some(vector))?;
        }
        for (n, &size) in sizes.iter().enumerate() {
            let (plan, transport) = (plan(n), init.transport());
            let vector = vectors.queue(plan.index);
            match Channel::open(transport, plan, size, features, vector, dma.clone()) {
                Ok(channel) => channels.push(channel),
                Err(error) => {
                    if init.abort() {
                        // SAFETY: the device was reset.
                        unsafe { release(&mut channels) };
                    }
                    return Err(error);
                }
            }
        }
        let link = Self {
            transport: init.finish(),
            features,
            channels,
            state: State::Live,
        };
        Ok((link, prepared))
    }

    pub(super) fn transport(&self) -> &T {
        &self.transport
    }

    /// The transport, whether or not the device is still driven.
    pub(super) fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The transport of a device that is still driven, to access its
    /// configuration.
    pub(super) fn live(&mut self) -> Result<&mut T, DeviceError> {
        match self.state {
            State::Live => Ok(&mut self.transport),
            State::Reset | State::Lost => Err(QueueError::Broken.into()),
        }
    }

    /// Whether the device was reset, or unplugged, and has no memory any more.
    pub(super) fn is_reset(&self) -> bool {
        self.state == State::Reset
    }

    pub(super) fn features(&self) -> Features {
        self.features
    }

    /// Whether all of `features` were negotiated.
    pub(super) fn has(&self, features: impl Into<Features>) -> bool {
        self.features.contains(features.into())
    }

    /// Whether the device still answers and wants no reset (2.1.2).
    pub(super) fn health(&self) -> Result<(), DeviceError> {
        // Set when the link was opened, and only a reset clears it (2.1.2).
        let lost = |status: DeviceStatus| {
            self.state == State::Live && !status.contains(DeviceStatus::DRIVER_OK)
        };
        match self.transport.status() {
            // On some machines zeros are read where nothing answers: QEMU's, in memory.
            status if is_gone(status) || lost(status) => Err(DeviceError::Gone),
            status if status.contains(DeviceStatus::DEVICE_NEEDS_RESET) => {
                Err(DeviceError::NeedsReset)
            }
            _ => Ok(()),
        }
    }

    /// How many queues there are.
    pub(super) fn queues(&self) -> usize {
        self.channels.len()
    }

    /// Checks that there is a queue `n`.
    #[inline(always)]
    pub(super) fn check_queue(&self, n: usize) -> Result<(), DeviceError> {
        let queues = self.queues();
        if n < queues {
            Ok(())
        } else {
            Err(DeviceError::NoQueue { queue: n, queues })
        }
    }

    /// Queue `n`, which there is.
    #[inline(always)]
    pub(super) fn queue(&mut self, n: usize) -> QueueMut<'_, AnyRing<D>> {
        QueueMut::new(&mut self.channels[n].queue)
    }

    /// Asks for interrupts of all queues, or asks to be spared them.
    pub(super) fn set_interrupts(&mut self, wanted: bool) {
        for channel in self.channels.iter_mut() {
            channel.queue.set_interrupts(wanted);
        }
    }

    /// Makes a request available on queue `n` that owns `request`; gives it back on
    /// error.
    ///
    /// # Safety
    ///
    /// The buffers are memory that `request` owns, or that lives until the link
    /// is dropped and that nobody else accesses while the request is in flight.
    #[inline(always)]
    pub(super) unsafe fn submit(
        &mut self,
        n: usize,
        buffers: &[Buffer],
        request: R,
    ) -> Result<Token, (QueueError, R)> {
        let channel = &mut self.channels[n];
        // SAFETY: `owned` keeps the memory until the request comes back, or the
        // device or the queue is reset.
        match unsafe { channel.queue.add(buffers) } {
            Ok(token) => {
                channel.owned[token.index()] = Some(request);
                Ok(token)
            }
            Err(error) => Err((error, request)),
        }
    }

    /// Takes back a finished request of queue `n` and what it owns. After a
    /// device's fault the device is reset and FAILED; the requests that it had come
    /// back by the next calls, and after them [`QueueError::Broken`].
    #[inline(always)]
    pub(super) fn pop(&mut self, n: usize) -> Result<Option<Back<R>>, DeviceError> {
        let channel = &mut self.channels[n];
        if channel.free {
            return match channel.pending() {
                None => Err(QueueError::Broken.into()),
                pending => Ok(pending),
            };
        }
        match channel.queue.pop() {
            Ok(None) => Ok(None),
            Ok(Some(used)) => {
                let token = used.token;
                let request = channel.owned[token.index()].take();
                Ok(request.map(|request| Back {
                    token,
                    request,
                    written: Some(used.written),
                }))
            }
            Err(error) => {
                self.fail();
                Err(error.into())
            }
        }
    }

    /// Waits until a request of queue `n` comes back. Without an answer in time the
    /// device is given up.
    pub(super) fn wait(&mut self, n: usize, wait: &mut dyn Wait) -> Result<Back<R>, DeviceError> {
        loop {
            if let Some(back) = self.pop(n)? {
                return Ok(back);
            }
            if !wait.again() {
                let error = self.health().err().unwrap_or(DeviceError::Timeout);
                self.fail();
                return Err(error);
            }
        }
    }

    /// Takes queue `n` back from the device (2.6.1). The requests that the device
    /// had then come back by [`pop`](Self::pop).
    pub(super) fn reset_queue(&mut self, n: usize, wait: &mut dyn Wait) -> Result<(), DeviceError> {
        self.check_queue(n)?;
        if !self.has(Features::RING_RESET) {
            return Err(DeviceError::Unsupported);
        }
        let channel = &mut self.channels[n];
        if self.state != State::Live || channel.free {
            return Err(QueueError::Broken.into());
        }
        let result = self.transport.reset_queue(channel.queue.index(), wait);
        match result {
            Ok(()) => channel.let_go(),
            Err(_) => self.fail(),
        }
        Ok(result?)
    }

    /// Gives queue `n` to the device again after [`reset_queue`](Self::reset_queue),
    /// once all its requests were taken back.
    pub(super) fn restart_queue(&mut self, n: usize) -> Result<(), DeviceError> {
        self.check_queue(n)?;
        let channel = &mut self.channels[n];
        if self.state != State::Live {
            return Err(QueueError::Broken.into());
        }
        let in_flight = channel.owned.iter().flatten().count() as u16;
        if !channel.free || in_flight > 0 {
            return Err(DeviceError::Busy { in_flight });
        }
        let queue = Interrupt::Queue(channel.queue.index());
        let vector = channel.vector;
        let set = vector.map_or(Ok(()), |vector| {
            self.transport.set_vector(queue, Some(vector))
        });
        // SAFETY: the transport is this link's, and the device let go of the queue.
        let result = set.and_then(|()| unsafe { channel.queue.restart(&mut self.transport) });
        match result {
            Ok(()) => channel.free = false,
            Err(_) => self.fail(),
        }
        Ok(result?)
    }

    /// Gives the device up: resets it and marks it FAILED. If it did reset, the
    /// requests that it had come back by [`pop`](Self::pop).
    pub(super) fn fail(&mut self) {
        self.end(|transport| give_up(transport));
    }

    /// Resets the device for good, and says whether it did: whether memory that
    /// it was given can be used again.
    pub(super) fn close(&mut self) -> bool {
        self.end(|transport| retire(transport));
        self.state == State::Reset
    }

    /// Notes that the device is gone, which it cannot be told to reset for.
    ///
    /// # Safety
    ///
    /// The device accesses no memory any more: it was unplugged.
    pub(super) unsafe fn unplugged(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.take_all() };
    }

    fn end(&mut self, reset: impl FnOnce(&mut T) -> bool) {
        if self.state != State::Live {
            return;
        }
        // Where nothing answers, zeros may be read, which look like a finished reset.
        let gone = matches!(self.health(), Err(DeviceError::Gone));
        self.state = State::Lost;
        for channel in self.channels.iter_mut() {
            channel.queue.abandon();
        }
        if reset(&mut self.transport) && !gone {
            // SAFETY: a device that was reset accesses nothing (2.4.1).
            unsafe { self.take_all() };
        }
    }

    /// Takes everything back.
    ///
    /// # Safety
    ///
    /// The device accesses no memory any more.
    unsafe fn take_all(&mut self) {
        self.state = State::Reset;
        // SAFETY: the caller's promise.
        unsafe { release(&mut self.channels) };
    }
}

/// Gives the memory of all queues back; what their requests own stays.
///
/// # Safety
///
/// The device accesses no memory any more.
unsafe fn release<R, D: Dma + Clone>(channels: &mut [Channel<R, D>]) {
    for channel in channels {
        channel.let_go();
        // SAFETY: the caller's promise.
        unsafe { channel.queue.release() };
    }
}

impl<T: Transport, R, D: Dma + Clone> Drop for Link<T, R, D> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<R, D: Dma> Drop for Channel<R, D> {
    fn drop(&mut self) {
        // What a device may still access is never freed.
        if self.free {
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.owned) }
        }
    }
}

#[cfg(test)]
mod tests;
