//! A device for tests on the host.
//!
//! [`FakeDevice`] is the device's side: its registers, and rings, split or packed as was
//! negotiated, that it serves through device addresses only. [`FakeTransport`] and [`FakePorts`] are
//! two ways to it for a driver. Both sides are one thread's: a test, or the
//! [`Wait`] of a blocking call (see [`stepping`]), runs the device by hand.
//!
//! The device writes down what a driver does against the specification
//! ([`FakeDevice::violations`]), and panics when it is dropped with any left.

use core::fmt;
use std::rc::Rc;

use virtio_spec::DeviceStatus;

use super::{
    Interface, Interrupt, IsrStatus, Notifier, NotifyPath, QueueSize, RingAddresses, RingLayout,
    Transport, TransportError,
};
use crate::virtio::{Features, Wait};

mod chain;
mod device;
mod options;
mod packed;
mod ports;
mod ring;
mod split;

pub use chain::Chain;
pub use device::FakeDevice;
use device::Shared;
pub use options::{ConfigHook, Event, Lie, Options};
pub use ports::FakePorts;
pub use ring::DeviceRing;

/// A patience for blocking calls that runs `step`, the device's turn, after each
/// look that found nothing. It ends after 10,000 of them.
pub fn stepping(mut step: impl FnMut()) -> impl Wait {
    let mut left = 10_000;
    move || {
        step();
        left -= 1;
        left > 0
    }
}

/// A transport that leads to a [`FakeDevice`]: made by [`FakeDevice::transport`].
pub struct FakeTransport<'d> {
    device: Rc<Shared<'d>>,
}

impl fmt::Debug for FakeTransport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeTransport")
    }
}

impl<'d> FakeTransport<'d> {
    fn new(device: Rc<Shared<'d>>) -> Self {
        Self { device }
    }

    fn is_legacy(&self) -> bool {
        matches!(self.ring_layout(), RingLayout::Contiguous { .. })
    }
}

// SAFETY: `reset` waits until the fake's status is 0, after which it serves no
// queue and touches no memory.
unsafe impl Transport for FakeTransport<'_> {
    fn interface(&self) -> Interface {
        if self.is_legacy() {
            Interface::PciLegacy
        } else {
            Interface::PciModern
        }
    }

    fn notify_path(&self) -> NotifyPath {
        NotifyPath::Mmio
    }

    fn device_type(&self) -> u16 {
        self.device.core.borrow().options.device_type
    }

    fn status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.device.core.borrow_mut().read_status())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.device.write_status(status.bits());
    }

    fn device_features(&mut self) -> Features {
        self.device.core.borrow_mut().read_features()
    }

    fn accept_features(&mut self, features: Features) -> Result<(), TransportError> {
        self.device.core.borrow_mut().accept(features);
        if self.is_legacy() {
            Ok(())
        } else {
            super::confirm_features(self, features)
        }
    }

    fn queue_size(&mut self, queue: u16) -> Result<QueueSize, TransportError> {
        let size = self.device.core.borrow_mut().queue_size(queue);
        match size {
            0 => Err(TransportError::NoQueue { queue }),
            size if self.is_legacy() => Ok(QueueSize::Fixed(size)),
            max => Ok(QueueSize::UpTo(max)),
        }
    }

    fn ring_layout(&self) -> RingLayout {
        self.device.core.borrow().options.layout
    }

    unsafe fn enable_queue(
        &mut self,
        queue: u16,
        size: u16,
        ring: &RingAddresses,
    ) -> Result<Notifier, TransportError> {
        if self.device.core.borrow_mut().enable(queue, size, *ring) {
            Ok(self.device.notifier(queue))
        } else {
            Err(TransportError::QueueRefused { queue })
        }
    }

    fn reset_queue(&mut self, queue: u16, wait: &mut dyn Wait) -> Result<(), TransportError> {
        if self.is_legacy() {
            return Err(TransportError::NoQueueReset { queue });
        }
        self.device.core.borrow_mut().reset_queue(queue);
        super::wait_queue_reset(queue, wait, || {
            self.device.core.borrow().options.refuse_queue_reset
        })
    }

    fn set_vector(
        &mut self,
        interrupt: Interrupt,
        vector: Option<u16>,
    ) -> Result<(), TransportError> {
        let found = self.device.core.borrow_mut().set_vector(interrupt, vector);
        super::check_vector(vector, found)
    }

    fn isr_status(&self) -> IsrStatus {
        self.device.isr_status()
    }

    fn config_generation(&self) -> u32 {
        self.device.core.borrow().generation
    }

    fn read_config(&self, offset: u16, width: u8, into: &mut [u8]) -> Result<(), TransportError> {
        let (start, len) = (usize::from(offset), into.len());
        let mut core = self.device.core.borrow_mut();
        let available = core.options.config.len();
        if start + len > available {
            return Err(TransportError::ConfigRange {
                offset,
                len,
                available,
            });
        }
        for (index, field) in into.chunks_exact_mut(width.into()).enumerate() {
            core.read_config(start + index * usize::from(width), field);
        }
        Ok(())
    }

    fn write_config(&mut self, offset: u16, _: u8, from: &[u8]) -> Result<(), TransportError> {
        let mut core = self.device.core.borrow_mut();
        let available = core.options.config.len();
        super::check_config(offset, 1, from.len(), available)?;
        core.write_config(offset.into(), from);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
