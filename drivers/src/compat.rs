//! The drivers of the crate `virtio-drivers` over this crate's transports: GPU,
//! input, 9P, sound and vsock, which have no driver here, and its block, network,
//! entropy and console drivers to compare ours with.
//!
//! [`Compat`] wraps any [`Transport`] as the transport that such a driver takes,
//! [`DmaHal`] makes its `Hal` from a [`StaticDma`], and a [`Fault`] says what went
//! wrong where upstream's interface has no room for an error:
//!
//! ```no_run
//! use doorbell::compat::{Compat, CompatError, DmaHal, Fault, StaticDma};
//! use doorbell::transport::Transport;
//! use virtio_drivers::device::blk::VirtIOBlk;
//!
//! fn capacity<S: StaticDma>(transport: impl Transport) -> Result<u64, CompatError> {
//!     let fault = Fault::new();
//!     // SAFETY: `VirtIOBlk` keeps its ring until it has dropped the transport.
//!     let transport = unsafe { Compat::new(transport, &fault) }?;
//!     let disk = fault.check(VirtIOBlk::<DmaHal<S>, _>::new(transport))?;
//!     Ok(disk.capacity())
//! }
//! ```
//!
//! # What stays upstream's
//!
//! - Its queue sizes are constants, so a legacy PCI device, which fixes its own, is
//!   one for it only where both are the same: [`CompatError::FixedSize`] otherwise.
//!   virtio-mmio of version 1 lets the driver choose, and has no such limit.
//! - It waits without end for a device that does not answer, and takes the device's
//!   word for most that it reads. A `Compat` bounds what it waits for itself.
//! - It frees memory without asking whether the device was reset. A `Compat` resets
//!   the device whenever upstream takes a queue away or drops it; that a device did
//!   not reset is a fault like others, but its memory is freed all the same.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use virtio_drivers::transport as upstream;
use virtio_drivers::transport::{DeviceType, InterruptStatus};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::transport::{
    DeviceStatus, Notifier, Notify, QueueSize, RingAddresses, RingLayout, Transport,
    TransportError, is_gone,
};
use crate::virtio::{Features, RESET_POLLS, give_up};

mod fault;
mod hal;

pub use fault::{CompatError, Fault};
pub use hal::{DmaHal, StaticDma};
pub use virtio_drivers::BufferDirection;

/// How many queues a device can have here; upstream's drivers use up to four.
pub const QUEUES: u16 = 8;

/// A transport for upstream's drivers; see the module.
///
/// A queue's doorbell is looked up once, when upstream sets the queue up, and rung
/// by one access. A doorbell that upstream rings before DRIVER_OK, where it may not
/// be (3.1.1), is rung when the device is live.
///
/// After the first fault the device is reset and marked FAILED, and this transport
/// does nothing more: queues have no size, the configuration cannot be read.
pub struct Compat<'f, T: Transport> {
    transport: T,
    device_type: DeviceType,
    masked: Features,
    bells: [Bell; QUEUES as usize],
    /// The queue whose size was read and that was not set up since, with its size.
    looked: Option<(u16, u16)>,
    fault: &'f Fault,
    /// Where doorbells are counted, if they are.
    doorbells: Option<&'f AtomicU64>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Reset, or never touched.
    AtRest,
    /// On its way to DRIVER_OK, or there.
    Driven,
    /// Given up.
    Failed,
}

#[derive(Clone, Copy, Debug)]
enum Bell {
    /// The queue is not set up.
    Absent,
    /// The device is not live. `due`: it is to be rung when it is.
    Held {
        notifier: Notifier,
        due: bool,
    },
    Live(Notifier),
}

impl<'f, T: Transport> Compat<'f, T> {
    /// Wraps `transport`. What goes wrong later is reported to `fault`.
    ///
    /// # Errors
    ///
    /// [`CompatError::DeviceType`] if upstream has no such type of device.
    ///
    /// # Safety
    ///
    /// Upstream's `queue_set` is a safe function. So the caller owes here that
    /// whatever calls it passes rings whose memory stays valid until the transport
    /// is dropped, or the queue taken away, and puts into them only buffers that do:
    /// as upstream's drivers do by their queues. The device is trusted to reset.
    pub unsafe fn new(transport: T, fault: &'f Fault) -> Result<Self, CompatError> {
        let id = transport.device_type();
        let device_type =
            DeviceType::try_from(id).map_err(|_| CompatError::DeviceType { device_type: id })?;
        Ok(Self {
            transport,
            device_type,
            masked: Features::empty(),
            bells: [Bell::Absent; QUEUES as usize],
            looked: None,
            fault,
            doorbells: None,
            state: State::AtRest,
        })
    }

    /// Hides `features` from the driver, as if the device did not offer them.
    #[must_use]
    pub fn without(mut self, features: Features) -> Self {
        self.masked |= features;
        self
    }

    /// Counts in `doorbells` how often the device's doorbells are rung. Nobody else
    /// changes it meanwhile.
    #[must_use]
    pub fn counting(mut self, doorbells: &'f AtomicU64) -> Self {
        self.doorbells = Some(doorbells);
        self
    }

    /// Gives the device up.
    fn fail(&mut self, error: impl Into<CompatError>) {
        self.fault.report(error.into());
        if self.state != State::Failed {
            self.state = State::Failed;
            self.bells = [Bell::Absent; QUEUES as usize];
            if !give_up(&mut self.transport) {
                self.fault.report_kept();
            }
        }
    }

    /// Resets the device, after which it has no queue.
    fn reset(&mut self) {
        match self.transport.reset(&mut { RESET_POLLS }) {
            Ok(()) => {
                self.bells = [Bell::Absent; QUEUES as usize];
                self.state = State::AtRest;
            }
            Err(error) => self.fail(error),
        }
    }

    /// Lets doorbells through, and rings those that upstream rang too early.
    fn go_live(&mut self) {
        for queue in 0..QUEUES {
            let bell = &mut self.bells[usize::from(queue)];
            if let Bell::Held { notifier, due } = *bell {
                *bell = Bell::Live(notifier);
                if due {
                    self.ring(notifier);
                }
            }
        }
    }

    #[inline]
    fn ring(&self, notifier: Notifier) {
        // The ring's writes come before the doorbell (2.7.13.4.1).
        fence(Ordering::Release);
        notifier.notify();
        if let Some(doorbells) = self.doorbells {
            // One writer: no read-modify-write is needed.
            let count = doorbells.load(Ordering::Relaxed);
            doorbells.store(count + 1, Ordering::Relaxed);
        }
    }

    fn set_up(
        &mut self,
        queue: u16,
        size: u32,
        ring: &RingAddresses,
    ) -> Result<Notifier, CompatError> {
        if queue >= QUEUES {
            return Err(CompatError::TooManyQueues { queue });
        }
        let size = match self.transport.queue_size(queue)? {
            QueueSize::Fixed(fixed) if u32::from(fixed) != size => {
                return Err(CompatError::FixedSize {
                    queue,
                    fixed,
                    wanted: size,
                });
            }
            QueueSize::UpTo(max) if u32::from(max) < size => {
                return Err(CompatError::QueueTooSmall { queue, size: max });
            }
            QueueSize::Fixed(_) | QueueSize::UpTo(_) => size as u16,
        };
        if let RingLayout::Contiguous { align } = self.transport.ring_layout()
            && !is_contiguous(ring, size, align)
        {
            return Err(CompatError::Layout { queue });
        }
        // SAFETY: the ring is of that size, and laid out as the transport wants it;
        // that its memory stays is the word of `new`'s caller.
        Ok(unsafe { self.transport.enable_queue(queue, size, ring) }?)
    }
}

impl<T: Transport> upstream::Transport for Compat<'_, T> {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn read_device_features(&mut self) -> u64 {
        self.transport
            .device_features()
            .difference(self.masked)
            .bits()
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        if self.state == State::Failed {
            return;
        }
        let features = Features::from_bits_retain(driver_features);
        if let Err(error) = self.transport.accept_features(features) {
            self.fail(error);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        if self.state == State::Failed {
            return 0;
        }
        match self.transport.queue_size(queue) {
            Ok(QueueSize::Fixed(size) | QueueSize::UpTo(size)) => {
                self.looked = Some((queue, size));
                size.into()
            }
            Err(error) => {
                self.fail(error);
                0
            }
        }
    }

    #[inline]
    fn notify(&mut self, queue: u16) {
        match self.bells.get_mut(usize::from(queue)) {
            Some(Bell::Live(notifier)) => {
                let notifier = *notifier;
                self.ring(notifier);
            }
            Some(Bell::Held { due, .. }) => *due = true,
            Some(Bell::Absent) | None => {}
        }
    }

    fn get_status(&self) -> upstream::DeviceStatus {
        upstream::DeviceStatus::from_bits_retain(self.transport.status().bits().into())
    }

    fn set_status(&mut self, status: upstream::DeviceStatus) {
        if self.state == State::Failed {
            return;
        }
        if status.is_empty() {
            return self.reset();
        }
        let now = self.transport.status();
        if is_gone(now) {
            return self.fail(TransportError::Gone);
        }
        // `accept_features` has set FEATURES_OK where the interface has it.
        let steps = status.difference(upstream::DeviceStatus::FEATURES_OK);
        let steps = DeviceStatus::from_bits_retain(steps.bits() as u8);
        self.transport.set_status(now | steps);
        self.state = State::Driven;
        if steps.contains(DeviceStatus::DRIVER_OK) {
            self.go_live();
        }
    }

    /// The transports themselves tell the device, where it wants to know.
    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        matches!(self.transport.ring_layout(), RingLayout::Contiguous { .. })
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.looked = None;
        if self.state == State::Failed {
            return;
        }
        let ring = RingAddresses {
            descriptors,
            driver: driver_area,
            device: device_area,
        };
        match self.set_up(queue, size, &ring) {
            Ok(notifier) => {
                let due = false;
                self.bells[usize::from(queue)] = Bell::Held { notifier, due };
            }
            Err(error) => self.fail(error),
        }
    }

    /// Resets the device: the one way to take a queue back that each interface has.
    /// Upstream's drivers do it when they are dropped, and drive it no further.
    fn queue_unset(&mut self, _: u16) {
        if self.state == State::Driven {
            self.reset();
        }
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        let bell = self.bells.get(usize::from(queue));
        bell.is_some_and(|bell| !matches!(bell, Bell::Absent))
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let pending = self.transport.isr_status().take();
        InterruptStatus::from_bits_truncate(pending.bits().into())
    }

    fn read_config_generation(&self) -> u32 {
        self.transport.config_generation()
    }

    fn read_config_space<V: FromBytes + IntoBytes>(
        &self,
        offset: usize,
    ) -> virtio_drivers::Result<V> {
        let (offset, width) = self.config_access::<V>(offset)?;
        let mut value = V::new_zeroed();
        self.transport
            .read_config(offset, width, value.as_mut_bytes())
            .map_err(config_error)?;
        Ok(value)
    }

    fn write_config_space<V: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: V,
    ) -> virtio_drivers::Result<()> {
        let (offset, width) = self.config_access::<V>(offset)?;
        self.transport
            .write_config(offset, width, value.as_bytes())
            .map_err(config_error)
    }

    /// Upstream's own waits without end for a configuration that stands still.
    fn read_consistent<V>(
        &self,
        read: impl Fn() -> virtio_drivers::Result<V>,
    ) -> virtio_drivers::Result<V> {
        /// As [`TransportError::ConfigUnstable`] has it.
        const ATTEMPTS: usize = 100;
        for _ in 0..ATTEMPTS {
            let before = self.read_config_generation();
            let value = read();
            if self.read_config_generation() == before {
                return value;
            }
        }
        self.fault
            .report(TransportError::ConfigUnstable { offset: 0 }.into());
        Err(Error::IoError)
    }
}

impl<T: Transport> Compat<'_, T> {
    /// The offset of a `V` in the configuration, and by accesses of how many bytes
    /// it is read: as wide as its fields, but two of 32 bits for one of 64 (2.5.1).
    fn config_access<V>(&self, offset: usize) -> virtio_drivers::Result<(u16, u8)> {
        if self.state == State::Failed {
            return Err(Error::IoError);
        }
        let width = align_of::<V>().min(4);
        if !offset.is_multiple_of(width) {
            return Err(Error::InvalidParam);
        }
        let offset = u16::try_from(offset).map_err(|_| Error::ConfigSpaceTooSmall)?;
        Ok((offset, width as u8))
    }
}

/// Whether the parts of a ring of `size` are where a legacy device looks for them
/// (2.7.2): it is told of the first alone.
fn is_contiguous(ring: &RingAddresses, size: u16, align: u32) -> bool {
    const DESCRIPTOR: u64 = 16;
    /// `flags`, `idx` and `used_event`; an entry has two bytes.
    const AVAIL: u64 = 6;
    let size = u64::from(size);
    // Numbers relative to the first part, which is at a page's start.
    let avail = DESCRIPTOR * size;
    let used = (avail + AVAIL + 2 * size).next_multiple_of(align.into());
    let at = |offset| ring.descriptors.checked_add(offset);
    at(avail) == Some(ring.driver) && at(used) == Some(ring.device)
}

fn config_error(error: TransportError) -> Error {
    match error {
        TransportError::ConfigRange { .. } => Error::ConfigSpaceTooSmall,
        _ => Error::IoError,
    }
}

/// Upstream drops the transport before it frees a driver's rings.
impl<T: Transport> Drop for Compat<'_, T> {
    fn drop(&mut self) {
        if let Some((queue, size)) = self.looked {
            // Upstream gave up with no word of the queue.
            self.fault.note_queue(queue, size);
        }
        if self.state == State::Driven {
            self.reset();
        }
    }
}

impl<T: Transport> fmt::Debug for Compat<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compat")
            .field("device_type", &self.device_type)
            .field("interface", &self.transport.interface())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
