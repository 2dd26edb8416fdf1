//! Data, by token and without a copy (virtio 1.2, 5.3.6).

use super::{Console, Request, receive_queue, transmit_queue};
use crate::device::{DeviceError, one_len};
use crate::dma::{Dma, DmaRegion};
use crate::queue::{Buffer, Token};
use crate::transport::Transport;

/// A receive buffer that came back.
#[derive(Debug)]
pub struct Received<D: Dma> {
    /// Which.
    pub token: Token,
    /// The buffer that was given with it.
    pub buffer: DmaRegion<D>,
    /// How many bytes, from the buffer's start, were received; or
    /// [`DeviceError::Aborted`].
    pub result: Result<usize, DeviceError>,
}

/// A transmit request that came back.
#[derive(Debug)]
pub struct Sent<D: Dma> {
    /// Which.
    pub token: Token,
    /// The buffer that was given with it.
    pub buffer: DmaRegion<D>,
    /// Whether the device is done with it by itself, or it is
    /// [`DeviceError::Aborted`]. That does not say that the host read it.
    pub result: Result<(), DeviceError>,
}

/// An error, and the buffer that was submitted.
type Refused<D> = (DeviceError, DmaRegion<D>);

impl<T: Transport, D: Dma + Clone> Console<T, D> {
    /// Gives the device a buffer to receive into on a port that is there, open or
    /// not. The doorbell is for the caller to ring, once for a batch:
    /// `queue(receive_queue(port)).kick()`.
    ///
    /// # Errors
    ///
    /// The buffer comes back with [`DeviceError::NoPort`] or
    /// [`DeviceError::PortAbsent`], or with [`DeviceError::Queue`] if the queue is
    /// full, or the device was given up.
    pub fn submit_receive(&mut self, port: u32, buffer: DmaRegion<D>) -> Result<Token, Refused<D>> {
        match self.present(port) {
            Ok(_) => self.post(port, buffer),
            Err(error) => Err((error, buffer)),
        }
    }

    /// Gives the device a receive buffer for a port that has queues, there or not.
    pub(super) fn post(&mut self, port: u32, buffer: DmaRegion<D>) -> Result<Token, Refused<D>> {
        let len = match one_len(buffer.len(), usize::MAX) {
            Ok(len) => len,
            Err(error) => return Err((error, buffer)),
        };
        let descriptor = Buffer::writable(buffer.address(), len);
        self.submit(receive_queue(port), descriptor, Request::Buffer(buffer))
    }

    /// Takes back a receive buffer that the device has finished with, if there is
    /// one, whether or not the port is still there.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoPort`]; [`DeviceError::Queue`] after a device's fault.
    pub fn poll_receive(&mut self, port: u32) -> Result<Option<Received<D>>, DeviceError> {
        self.index(port)?;
        let back = self.link.pop(receive_queue(port))?;
        Ok(back.and_then(|back| {
            // The queue checked that it is no more than the buffer's length.
            let written = back.written.map(|written| written as usize);
            Some(Received {
                token: back.token,
                buffer: back.request.into_buffer()?,
                result: written.ok_or(DeviceError::Aborted),
            })
        }))
    }

    /// Sends the first `len` bytes of a buffer by a port that is open at both ends.
    /// The doorbell is for the caller to ring, once for a batch:
    /// `queue(transmit_queue(port)).kick()`.
    ///
    /// # Errors
    ///
    /// The buffer comes back with [`DeviceError::NoPort`],
    /// [`DeviceError::PortAbsent`], [`DeviceError::PortClosed`] or
    /// [`DeviceError::BufferLength`], or with [`DeviceError::Queue`] if the queue is
    /// full, or the device was given up.
    pub fn submit_transmit(
        &mut self,
        port: u32,
        buffer: DmaRegion<D>,
        len: usize,
    ) -> Result<Token, Refused<D>> {
        let checked = self
            .open_at_both_ends(port)
            .and_then(|index| Ok((index, one_len(len, buffer.len())?)));
        let (index, len) = match checked {
            Ok(checked) => checked,
            Err(error) => return Err((error, buffer)),
        };
        let descriptor = Buffer::readable(buffer.address(), len);
        let token = self.submit(transmit_queue(port), descriptor, Request::Buffer(buffer))?;
        self.ports[index].submitted += 1;
        Ok(token)
    }

    /// Takes back a transmit request that the device has finished with, if there is
    /// one, whether or not the port is still there.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoPort`]; [`DeviceError::Queue`] after a device's fault.
    pub fn poll_transmit(&mut self, port: u32) -> Result<Option<Sent<D>>, DeviceError> {
        let index = self.index(port)?;
        while let Some(back) = self.link.pop(transmit_queue(port))? {
            let channel = &mut self.ports[index];
            match back.request {
                Request::Buffer(buffer) => {
                    channel.submitted -= 1;
                    return Ok(Some(Sent {
                        token: back.token,
                        buffer,
                        result: back.written.map(drop).ok_or(DeviceError::Aborted),
                    }));
                }
                Request::Copy(buffer, session) => channel.writes.done(buffer, session),
                Request::Control => {}
            }
        }
        Ok(None)
    }

    /// The place of a port that is there and open at both ends.
    pub(super) fn open_at_both_ends(&self, port: u32) -> Result<usize, DeviceError> {
        let index = self.present(port)?;
        match &self.ports[index].port {
            Some(known) if known.takes_data() => Ok(index),
            _ => Err(DeviceError::PortClosed { port }),
        }
    }

    /// Submits a request of one buffer that it owns.
    pub(super) fn submit(
        &mut self,
        queue: usize,
        descriptor: Buffer,
        request: Request<D>,
    ) -> Result<Token, Refused<D>> {
        // SAFETY: the memory is the request's own.
        match unsafe { self.link.submit(queue, &[descriptor], request) } {
            Ok(token) => Ok(token),
            Err((error, Request::Buffer(buffer) | Request::Copy(buffer, _))) => {
                Err((error.into(), buffer))
            }
            Err((_, Request::Control)) => unreachable!("control messages own no buffer"),
        }
    }
}

impl<D: Dma> Request<D> {
    fn into_buffer(self) -> Option<DmaRegion<D>> {
        match self {
            Self::Buffer(buffer) | Self::Copy(buffer, _) => Some(buffer),
            Self::Control => None,
        }
    }
}
