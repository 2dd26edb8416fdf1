//! Data that is copied, by buffers that the driver owns.

use super::{Console, Request, receive_queue, transmit_queue};
use crate::device::DeviceError;
use crate::dma::{Dma, DmaRegion};
use crate::queue::{Buffer, QueueError};
use crate::transport::Transport;
use crate::virtio::Wait;

/// Bytes in a buffer for writes.
const WRITE_LEN: usize = 4096;
/// How many of them a port has at the most, all in flight at once.
const WRITES: usize = 8;

/// A received buffer of which something is left to read.
pub(super) struct Reading<D: Dma> {
    buffer: DmaRegion<D>,
    /// What is left of it.
    at: usize,
    end: usize,
}

/// The buffers for writes to a port.
pub(super) struct Writes<D: Dma> {
    /// Those that are not in flight.
    spare: [Option<DmaRegion<D>>; WRITES],
    /// How many of this session are.
    in_flight: usize,
    /// It ends when the host's end closes: what was pending then may never come
    /// back, and is not waited for.
    session: u32,
}

impl<D: Dma> Writes<D> {
    pub(super) fn new() -> Self {
        Self {
            spare: [const { None }; WRITES],
            in_flight: 0,
            session: 0,
        }
    }

    pub(super) fn end_session(&mut self) {
        self.in_flight = 0;
        self.session = self.session.wrapping_add(1);
    }

    /// Notes that a write's buffer came back.
    pub(super) fn done(&mut self, buffer: DmaRegion<D>, session: u32) {
        if session == self.session {
            self.in_flight -= 1;
        }
        self.keep(buffer);
    }

    /// Keeps a buffer for later, if there is room.
    fn keep(&mut self, buffer: DmaRegion<D>) {
        if let Some(place) = self.spare.iter_mut().find(|place| place.is_none()) {
            *place = Some(buffer);
        }
    }

    /// A buffer to write into; `None` if it takes one that is in flight.
    fn take(&mut self, dma: D) -> Result<Option<DmaRegion<D>>, DeviceError> {
        if self.in_flight >= WRITES {
            return Ok(None);
        }
        if let Some(buffer) = self.spare.iter_mut().find_map(Option::take) {
            return Ok(Some(buffer));
        }
        match DmaRegion::new(dma, WRITE_LEN, 16) {
            Ok(buffer) => Ok(Some(buffer)),
            Err(_) if self.in_flight > 0 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl<T: Transport, D: Dma + Clone> Console<T, D> {
    /// Gives the device `count` receive buffers of `size` bytes for
    /// [`read`](Self::read), and rings.
    ///
    /// # Errors
    ///
    /// As [`submit_receive`](Self::submit_receive), and [`DeviceError::Dma`]. The
    /// buffers that the device has got until then it keeps.
    pub fn fill_receive(
        &mut self,
        port: u32,
        count: usize,
        size: usize,
    ) -> Result<(), DeviceError> {
        let filled = (0..count).try_for_each(|_| {
            self.present(port)?;
            let buffer = DmaRegion::new(self.dma.clone(), size, 16)?;
            self.submit_receive(port, buffer)
                .map(drop)
                .map_err(|(error, _)| error)
        });
        if self.index(port).is_ok() {
            self.link.queue(receive_queue(port)).kick();
        }
        filled
    }

    /// Copies what was received into `into`, and says how many bytes; it does not
    /// wait. Buffers that are read to their end are given to the device again, with
    /// one look at the doorbell a call. All that was received on the port counts:
    /// who calls [`poll_receive`](Self::poll_receive) too gets what is not read yet,
    /// but for the rest of a buffer that this call has begun.
    ///
    /// # Errors
    ///
    /// Where nothing was copied: [`DeviceError::NoPort`],
    /// [`DeviceError::Aborted`] for a buffer that a reset took back, which is freed,
    /// and [`DeviceError::Queue`] after a device's fault.
    pub fn read(&mut self, port: u32, into: &mut [u8]) -> Result<usize, DeviceError> {
        let index = self.index(port)?;
        let queue = receive_queue(port);
        // A device that gives back one empty buffer after the other ends it too.
        let mut looks = self.link.queue(queue).size();
        let (mut done, mut posted) = (0, false);
        let mut failed = None;
        while done < into.len() {
            if self.ports[index].reading.is_none() {
                if looks == 0 {
                    break;
                }
                looks -= 1;
                match self.next_reading(port) {
                    Ok(next) => self.ports[index].reading = next,
                    Err(error) => failed = Some(error),
                }
            }
            let Some(reading) = &mut self.ports[index].reading else {
                break;
            };
            let len = (reading.end - reading.at).min(into.len() - done);
            into[done..done + len].copy_from_slice(&reading.buffer[reading.at..][..len]);
            reading.at += len;
            done += len;
            posted |= self.recycle(port, index);
        }
        if posted {
            self.link.queue(queue).kick();
        }
        match failed {
            Some(error) if done == 0 => Err(error),
            _ => Ok(done),
        }
    }

    /// The next buffer that was received.
    fn next_reading(&mut self, port: u32) -> Result<Option<Reading<D>>, DeviceError> {
        let Some(received) = self.poll_receive(port)? else {
            return Ok(None);
        };
        Ok(Some(Reading {
            end: received.result?,
            buffer: received.buffer,
            at: 0,
        }))
    }

    /// Gives the device the buffer again that was read to its end, if it was.
    fn recycle(&mut self, port: u32, index: usize) -> bool {
        let reading = &mut self.ports[index].reading;
        match reading.take_if(|reading| reading.at == reading.end) {
            // A queue that was given up takes it no more; the next call says so.
            Some(Reading { buffer, .. }) => self.post(port, buffer).is_ok(),
            None => false,
        }
    }

    /// Copies as much of `from` as there are buffers for, hands it to the device,
    /// rings, and says how many bytes; it does not wait.
    ///
    /// # Errors
    ///
    /// Where nothing was handed over: [`DeviceError::NoPort`],
    /// [`DeviceError::PortAbsent`], [`DeviceError::PortClosed`];
    /// [`DeviceError::Busy`] while requests by
    /// [`submit_transmit`](Self::submit_transmit) are in flight on the port;
    /// [`DeviceError::Dma`] if there is no memory for a first buffer;
    /// [`DeviceError::Queue`] after a device's fault.
    pub fn write(&mut self, port: u32, from: &[u8]) -> Result<usize, DeviceError> {
        let index = self.open_at_both_ends(port)?;
        self.reclaim(port, index)?;
        let mut done = 0;
        let mut result = Ok(());
        for chunk in from.chunks(WRITE_LEN) {
            match self.write_chunk(port, index, chunk) {
                Ok(true) => done += chunk.len(),
                Ok(false) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if done > 0 {
            self.link.queue(transmit_queue(port)).kick();
            return Ok(done);
        }
        result.map(|()| 0)
    }

    /// Hands one buffer's worth to the device, if there is room.
    fn write_chunk(&mut self, port: u32, index: usize, chunk: &[u8]) -> Result<bool, DeviceError> {
        let writes = &mut self.ports[index].writes;
        let Some(mut buffer) = writes.take(self.dma.clone())? else {
            return Ok(false);
        };
        buffer[..chunk.len()].copy_from_slice(chunk);
        let descriptor = Buffer::readable(buffer.address(), chunk.len() as u32);
        let request = Request::Copy(buffer, writes.session);
        let submitted = self.submit(transmit_queue(port), descriptor, request);
        let writes = &mut self.ports[index].writes;
        match submitted {
            Ok(_) => {
                writes.in_flight += 1;
                Ok(true)
            }
            Err((error, buffer)) => {
                writes.keep(buffer);
                match error {
                    DeviceError::Queue(QueueError::Full { .. }) => Ok(false),
                    error => Err(error),
                }
            }
        }
    }

    /// Hands all of `from` to the device, and waits only where more is in flight
    /// than there are buffers for: several are, and [`flush`](Self::flush) waits for
    /// the last.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and [`DeviceError::Timeout`] if the device, or the
    /// host behind it, does not take it in time; the device is not given up for
    /// that. Some may have been sent: who has to know how much calls `write`.
    pub fn write_all(
        &mut self,
        port: u32,
        mut from: &[u8],
        wait: &mut dyn Wait,
    ) -> Result<(), DeviceError> {
        while !from.is_empty() {
            let done = self.write(port, from)?;
            from = &from[done..];
            if done == 0 && !wait.again() {
                return Err(self.late());
            }
        }
        Ok(())
    }

    /// Waits until the device is done with all that was written to the port.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoPort`]; [`DeviceError::Busy`] as [`write`](Self::write);
    /// [`DeviceError::Timeout`] as [`write_all`](Self::write_all);
    /// [`DeviceError::Queue`] after a device's fault.
    pub fn flush(&mut self, port: u32, wait: &mut dyn Wait) -> Result<(), DeviceError> {
        let index = self.index(port)?;
        loop {
            self.reclaim(port, index)?;
            if self.ports[index].writes.in_flight == 0 {
                return Ok(());
            }
            if !wait.again() {
                return Err(self.late());
            }
        }
    }

    /// Takes back the buffers of finished writes.
    fn reclaim(&mut self, port: u32, index: usize) -> Result<(), DeviceError> {
        // There are none of the caller's among them then.
        match self.ports[index].submitted {
            0 => self.poll_transmit(port).map(drop),
            in_flight => Err(DeviceError::Busy { in_flight }),
        }
    }
}
