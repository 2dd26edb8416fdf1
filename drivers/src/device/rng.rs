//! The entropy device (virtio 1.2, 5.4).

use core::fmt;

use super::driver::impl_driver;
use super::link::{Back, Link, Plan};
use super::{DeviceError, Setup, one_len};
use crate::dma::{Dma, DmaRegion};
use crate::queue::{Buffer, Token};
use crate::transport::Transport;
use crate::virtio::{Features, Init, Wait};

/// The device type (virtio 1.2, section 5).
pub const DEVICE_TYPE: u16 = 4;

/// How many bytes a blocking read asks the device for at once.
const READ_CHUNK: usize = 512;

/// An entropy device.
pub struct Rng<T: Transport, D: Dma + Clone> {
    link: Link<T, DmaRegion<D>, D>,
    dma: D,
}

/// A request that the device has finished.
#[derive(Debug)]
pub struct Filled<D: Dma> {
    /// Which.
    pub token: Token,
    /// The buffer that was given with it.
    pub buffer: DmaRegion<D>,
    /// How many bytes, from the buffer's start, are random; or
    /// [`DeviceError::Aborted`].
    pub result: Result<usize, DeviceError>,
}

impl_driver!(Rng);

impl<T: Transport, D: Dma + Clone> fmt::Debug for Rng<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rng").finish_non_exhaustive()
    }
}

impl<T: Transport, D: Dma + Clone> Rng<T, D> {
    /// Brings the device up.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] that says what failed; the device is then reset and
    /// marked FAILED.
    pub fn new(
        transport: T,
        setup: &Setup,
        dma: D,
        wait: &mut dyn Wait,
    ) -> Result<Self, DeviceError> {
        super::check_type(&transport, DEVICE_TYPE)?;
        let init = Init::begin(transport, setup.features, Features::empty(), wait)?;
        let plan = |_| Plan {
            index: 0,
            size: setup.queue_size,
            buffers: 1,
        };
        let (link, ()) = Link::open(init, 1, plan, setup, dma.clone(), |_, _| Ok(()))?;
        Ok(Self { link, dma })
    }

    /// Asks for `buffer` to be filled. The doorbell is for the caller to ring,
    /// once for a batch: `queue(0).kick()`.
    ///
    /// # Errors
    ///
    /// The buffer comes back with [`DeviceError::Queue`] if the queue is full,
    /// or the device was given up.
    pub fn submit(&mut self, buffer: DmaRegion<D>) -> Result<Token, (DeviceError, DmaRegion<D>)> {
        let len = match one_len(buffer.len(), usize::MAX) {
            Ok(len) => len,
            Err(error) => return Err((error, buffer)),
        };
        let descriptor = Buffer::writable(buffer.address(), len);
        // SAFETY: the memory is the request's own.
        unsafe { self.link.submit(0, &[descriptor], buffer) }
            .map_err(|(error, buffer)| (error.into(), buffer))
    }

    /// Takes back a request that the device has finished, if there is one.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Queue`] after a device's fault.
    pub fn poll(&mut self) -> Result<Option<Filled<D>>, DeviceError> {
        Ok(self.link.pop(0)?.map(Filled::from))
    }

    /// Fills `into` with random bytes, and waits for them. No other request may
    /// be in flight.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] that says what failed. After [`DeviceError::Timeout`] the
    /// device is given up.
    pub fn read(&mut self, into: &mut [u8], wait: &mut dyn Wait) -> Result<(), DeviceError> {
        super::check_idle(&self.link.queue(0))?;
        for chunk in into.chunks_mut(READ_CHUNK) {
            let mut done = 0;
            while done < chunk.len() {
                let buffer = DmaRegion::new(self.dma.clone(), chunk.len() - done, 16)?;
                self.submit(buffer).map_err(|(error, _)| error)?;
                self.link.queue(0).kick();
                let Filled { buffer, result, .. } = self.link.wait(0, wait)?.into();
                let len = result?;
                // 5.4.6.1: the device puts at least one byte into a buffer.
                if len == 0 {
                    self.link.fail();
                    return Err(DeviceError::BadAnswer {
                        status: 0,
                        written: 0,
                    });
                }
                chunk[done..done + len].copy_from_slice(&buffer[..len]);
                done += len;
            }
        }
        Ok(())
    }
}

impl<D: Dma> From<Back<DmaRegion<D>>> for Filled<D> {
    fn from(back: Back<DmaRegion<D>>) -> Self {
        // The queue checked that it is no more than the buffer's length.
        let written = back.written.map(|written| written as usize);
        Self {
            token: back.token,
            buffer: back.request,
            result: written.ok_or(DeviceError::Aborted),
        }
    }
}

#[cfg(test)]
mod tests;
