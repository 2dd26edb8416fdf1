//! Calls that wait: one request at a time on queue 0, as long as the device
//! allows.

use super::{Blk, ID_LEN, Request, SECTOR};
use crate::device::{DeviceError, check_idle};
use crate::dma::{Dma, DmaRegion};
use crate::transport::Transport;
use crate::virtio::Wait;

/// How many bytes a blocking call moves in one request, if a block is not more.
const CHUNK: usize = 64 * 1024;

impl<T: Transport, D: Dma + Clone> Blk<T, D> {
    /// Submits one request and waits for it; no other may be in flight on queue 0.
    fn perform(
        &mut self,
        request: Request<D>,
        wait: &mut dyn Wait,
    ) -> Result<Option<DmaRegion<D>>, DeviceError> {
        check_idle(&self.link.queue(0))?;
        self.submit(request).map_err(|(error, _)| error)?;
        self.link.queue(0).kick();
        let back = self.link.wait(0, wait)?;
        let done = self.complete(0, back);
        done.result.map(|()| done.request.into_buffer())
    }

    /// The most bytes that a blocking call moves in one request: whole blocks.
    fn chunk(&self) -> usize {
        let block = self.info.block_size as usize;
        CHUNK.max(block).min(self.info.max_data as usize)
    }

    /// Reads `into`, whole blocks, from `sector` on, and waits for it. No other
    /// request may be in flight on queue 0. The data is copied;
    /// [`submit`](Self::submit) does without.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] that says what failed. After [`DeviceError::Timeout`] the
    /// device is given up.
    pub fn read(
        &mut self,
        mut sector: u64,
        into: &mut [u8],
        wait: &mut dyn Wait,
    ) -> Result<(), DeviceError> {
        self.info.check_data(sector, into.len(), usize::MAX)?;
        for chunk in into.chunks_mut(self.chunk()) {
            let buffer = DmaRegion::new(self.dma.clone(), chunk.len(), SECTOR)?;
            if let Some(buffer) = self.perform(Request::Read { sector, buffer }, wait)? {
                chunk.copy_from_slice(&buffer);
            }
            sector += (chunk.len() / SECTOR) as u64;
        }
        Ok(())
    }

    /// Writes `from`, whole blocks, from `sector` on, and waits for it. No other
    /// request may be in flight on queue 0. The data is copied. Where it fails in
    /// the middle, what came before is written.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and [`DeviceError::ReadOnly`].
    pub fn write(
        &mut self,
        mut sector: u64,
        from: &[u8],
        wait: &mut dyn Wait,
    ) -> Result<(), DeviceError> {
        self.info.check_writable()?;
        self.info.check_data(sector, from.len(), usize::MAX)?;
        for chunk in from.chunks(self.chunk()) {
            let mut buffer = DmaRegion::new(self.dma.clone(), chunk.len(), SECTOR)?;
            buffer.copy_from_slice(chunk);
            self.perform(Request::Write { sector, buffer }, wait)?;
            sector += (chunk.len() / SECTOR) as u64;
        }
        Ok(())
    }

    /// Makes finished writes durable, and waits for it. No other request may be
    /// in flight on queue 0.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] if the device does not offer
    /// VIRTIO_BLK_F_FLUSH; otherwise as [`read`](Self::read).
    pub fn flush(&mut self, wait: &mut dyn Wait) -> Result<(), DeviceError> {
        self.perform(Request::Flush, wait).map(drop)
    }

    /// Reads the device's ID: up to 20 bytes, padded with zeros. No other
    /// request may be in flight on queue 0.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn device_id(&mut self, wait: &mut dyn Wait) -> Result<[u8; ID_LEN], DeviceError> {
        let buffer = DmaRegion::new(self.dma.clone(), ID_LEN, 4)?;
        let mut id = [0; ID_LEN];
        if let Some(buffer) = self.perform(Request::DeviceId { buffer }, wait)? {
            id.copy_from_slice(&buffer);
        }
        Ok(id)
    }

    /// Discards `count` sectors from `sector` on, whole blocks, and waits for it:
    /// in requests as long as the device takes them, that end where it likes them
    /// to. No other request may be in flight on queue 0.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] if the device does not offer
    /// VIRTIO_BLK_F_DISCARD; otherwise as [`write`](Self::write).
    pub fn discard(
        &mut self,
        sector: u64,
        count: u64,
        wait: &mut dyn Wait,
    ) -> Result<(), DeviceError> {
        let limits = self.info.discards()?;
        self.info.check_sectors(sector, count)?;
        for (sector, count) in pieces(sector, count, limits.max_sectors, limits.alignment) {
            self.perform(Request::Discard { sector, count }, wait)?;
        }
        Ok(())
    }

    /// Fills `count` sectors from `sector` on, whole blocks, with zeroes, and waits
    /// for it: in requests as long as the device takes them. `unmap` allows it to
    /// give up their storage. No other request may be in flight on queue 0.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] if the device does not offer
    /// VIRTIO_BLK_F_WRITE_ZEROES; otherwise as [`write`](Self::write).
    pub fn write_zeroes(
        &mut self,
        sector: u64,
        count: u64,
        unmap: bool,
        wait: &mut dyn Wait,
    ) -> Result<(), DeviceError> {
        let limits = self.info.writes_zeroes()?;
        self.info.check_sectors(sector, count)?;
        for (sector, count) in pieces(sector, count, limits.max_sectors, 1) {
            let request = Request::WriteZeroes {
                sector,
                count,
                unmap,
            };
            self.perform(request, wait)?;
        }
        Ok(())
    }
}

/// Splits `count` sectors from `sector` on into pieces of at most `max` that end at
/// multiples of `alignment`, where there is one in reach.
fn pieces(sector: u64, count: u64, max: u32, alignment: u32) -> impl Iterator<Item = (u64, u32)> {
    let (mut at, end) = (sector, sector + count);
    core::iter::from_fn(move || {
        let mut stop = end.min(at.saturating_add(max.into()));
        let aligned = stop - stop % u64::from(alignment);
        if stop < end && aligned > at {
            stop = aligned;
        }
        let piece = (at, (stop - at) as u32);
        at = stop;
        (piece.1 > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn pieces_end_where_the_device_likes_them_to() {
        let split = |sector, count, max, alignment| {
            pieces(sector, count, max, alignment).collect::<Vec<_>>()
        };
        assert_eq!(split(3, 5, 8, 1), [(3, 5)]);
        assert_eq!(split(3, 20, 8, 1), [(3, 8), (11, 8), (19, 4)]);
        assert_eq!(split(3, 20, 10, 8), [(3, 5), (8, 8), (16, 7)]);
        // None within reach.
        assert_eq!(split(9, 12, 5, 8), [(9, 5), (14, 2), (16, 5)]);
        let end = u64::MAX - 4;
        assert_eq!(split(end, 4, u32::MAX, 8), [(end, 4)]);
    }
}
