//! Calls that copy frames, and so need no memory of the caller's that devices
//! reach.

use super::frame::ALIGN;
use super::{Frame, Net, Received, Sent};
use crate::device::{DeviceError, check_idle};
use crate::dma::{Dma, DmaRegion};
use crate::transport::Transport;
use crate::virtio::Wait;

impl<T: Transport, D: Dma + Clone> Net<T, D> {
    /// Sends a frame by pair 0, and waits until the device has taken it. No other
    /// may be in flight there. The frame is copied;
    /// [`submit_transmit`](Self::submit_transmit) does without.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] that says what failed. After [`DeviceError::Timeout`] the
    /// device is given up.
    pub fn send(&mut self, frame: &[u8], wait: &mut dyn Wait) -> Result<(), DeviceError> {
        let queue = self.transmit_queue(0);
        check_idle(&self.link.queue(queue))?;
        self.check_frame(frame.len())?;
        let mut copy = Frame::new(self.dma.clone(), frame.len())?;
        copy.copy_from_slice(frame);
        self.submit_transmit(0, copy).map_err(|(error, _)| error)?;
        self.link.queue(queue).kick();
        Sent::from(self.link.wait(queue, wait)?).result
    }

    /// Gives a pair's receive queue `count` new buffers of `size` bytes each, for
    /// [`receive_into`](Self::receive_into), and rings. How many fit depends on the
    /// queue's size: half as many as descriptors do in any case.
    ///
    /// # Errors
    ///
    /// As [`submit_receive`](Self::submit_receive), and [`DeviceError::Dma`].
    /// Buffers that the queue has got by then stay there.
    pub fn fill_receive(&mut self, pair: u16, count: u16, size: usize) -> Result<(), DeviceError> {
        self.check_pair(pair)?;
        let result = (0..count).try_for_each(|_| {
            let buffer = DmaRegion::new(self.dma.clone(), size, ALIGN)?;
            let submitted = self.submit_receive(pair, buffer);
            submitted.map(drop).map_err(|(error, _)| error)
        });
        let queue = self.receive_queue(pair);
        self.link.queue(queue).kick();
        result
    }

    /// Copies the next frame from a pair's receive queue to the start of `into`, if
    /// one has come, and says how long it is. Its buffers go back into the queue.
    ///
    /// # Errors
    ///
    /// [`DeviceError::BufferTooShort`] if the frame is longer than `into`: it is
    /// dropped then. Otherwise as [`poll_receive`](Self::poll_receive).
    pub fn receive_into(
        &mut self,
        pair: u16,
        into: &mut [u8],
    ) -> Result<Option<usize>, DeviceError> {
        let mut frame = None;
        while let Some(received) = self.poll_receive(pair)? {
            let Received {
                buffer,
                result,
                following,
                ..
            } = received;
            let piece = &buffer[result?];
            let at = frame.unwrap_or(0);
            let end = at + piece.len();
            if let Some(room) = into.get_mut(at..end) {
                room.copy_from_slice(piece);
            }
            frame = Some(end);
            self.submit_receive(pair, buffer)
                .map_err(|(error, _)| error)?;
            if following == 0 {
                break;
            }
        }
        let Some(len) = frame else { return Ok(None) };
        let queue = self.receive_queue(pair);
        self.link.queue(queue).kick();
        if len > into.len() {
            return Err(DeviceError::BufferTooShort {
                len: into.len(),
                needed: len,
            });
        }
        Ok(Some(len))
    }
}
