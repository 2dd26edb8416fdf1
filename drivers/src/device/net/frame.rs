//! A frame with room for the header that the device wants before it (virtio 1.2,
//! 5.1.6), so that both are one piece of memory.

use core::fmt;
use core::mem::offset_of;
use core::ops::{Deref, DerefMut};

use virtio_spec::net::Hdr;

use crate::device::DeviceError;
use crate::dma::{Dma, DmaError, DmaRegion};

/// Bytes in an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;

/// Bytes before a frame in its memory, for `struct virtio_net_hdr`.
pub const HEADROOM: usize = size_of::<Hdr>();

/// Offset of the header's last field, which is not always there.
pub(super) const NUM_BUFFERS: usize = offset_of!(Hdr, num_buffers);

/// Frames begin at a cache line.
pub(super) const ALIGN: usize = 64;

/// A frame to be sent, in memory that devices reach. It reads and writes as the
/// frame's bytes, from the Ethernet header on.
pub struct Frame<D: Dma> {
    region: DmaRegion<D>,
    len: usize,
}

impl<D: Dma> Frame<D> {
    /// A frame of `len` bytes, all zero.
    ///
    /// # Errors
    ///
    /// [`DmaError`] where there is no memory for it.
    pub fn new(dma: D, len: usize) -> Result<Self, DmaError> {
        let region = DmaRegion::new(dma, len.saturating_add(HEADROOM), ALIGN)?;
        Ok(Self { region, len })
    }

    /// A frame that fills `region`, behind [`HEADROOM`] bytes.
    ///
    /// # Errors
    ///
    /// The region comes back with [`DeviceError::BufferTooShort`] if nothing is
    /// left of it.
    pub fn from_region(region: DmaRegion<D>) -> Result<Self, (DeviceError, DmaRegion<D>)> {
        let len = region.len();
        match len.checked_sub(HEADROOM) {
            Some(len) if len > 0 => Ok(Self { region, len }),
            _ => {
                let needed = HEADROOM + 1;
                Err((DeviceError::BufferTooShort { len, needed }, region))
            }
        }
    }

    /// Memory that has no frame.
    pub(super) fn empty(region: DmaRegion<D>) -> Self {
        Self { region, len: 0 }
    }

    /// The memory that the frame is in.
    pub fn into_region(self) -> DmaRegion<D> {
        self.region
    }

    /// How many bytes the frame can have.
    pub fn capacity(&self) -> usize {
        self.region.len().saturating_sub(HEADROOM)
    }

    /// Changes how many bytes the frame has. Those that come in are what the memory
    /// holds.
    ///
    /// # Errors
    ///
    /// [`DeviceError::BufferTooShort`] if they are more than
    /// [`capacity`](Self::capacity).
    pub fn set_len(&mut self, len: usize) -> Result<(), DeviceError> {
        let capacity = self.capacity();
        if len > capacity {
            return Err(DeviceError::BufferTooShort {
                len: capacity,
                needed: len,
            });
        }
        self.len = len;
        Ok(())
    }

    /// Puts a header of `header` bytes before the frame; both are then at this
    /// address and of this length. The frame is not longer than a packet can be.
    pub(super) fn with_header(&mut self, header: usize) -> (u64, u32) {
        // 5.1.6.2.1: no offload was negotiated, so all of its fields are 0.
        self.region[..HEADROOM].fill(0);
        let start = HEADROOM - header;
        let address = self.region.address() + start as u64;
        (address, (header + self.len) as u32)
    }

    /// `num_buffers` of the header that the memory begins with (5.1.6).
    pub(super) fn num_buffers(&self) -> u16 {
        u16::from_le_bytes([self.region[NUM_BUFFERS], self.region[NUM_BUFFERS + 1]])
    }
}

impl<D: Dma> Deref for Frame<D> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.region[HEADROOM..][..self.len]
    }
}

impl<D: Dma> DerefMut for Frame<D> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.region[HEADROOM..][..self.len]
    }
}

impl<D: Dma> fmt::Debug for Frame<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes in {:?})", self.len, self.region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::fake::FakeDma;

    #[test]
    fn a_frame_has_the_header_before_it() {
        let dma = FakeDma::default();
        let mut frame = Frame::new(&dma, 60).unwrap();
        assert_eq!((frame.len(), frame.capacity()), (60, 60));
        frame.region.fill(0xee);
        for header in [10, 12] {
            let (address, len) = frame.with_header(header);
            assert_eq!(len as usize, header + 60);
            let start = (address - frame.region.address()) as usize;
            let (head, rest) = frame.region[start..].split_at(header);
            assert!(head.iter().all(|&byte| byte == 0));
            assert_eq!(rest, [0xee; 60]);
        }
        drop(frame);
        assert_eq!(dma.live(), 0);
    }

    #[test]
    fn a_frame_is_as_long_as_its_memory_allows() {
        let dma = FakeDma::default();
        let region = |len| DmaRegion::new(&dma, len, 1).unwrap();
        let mut frame = Frame::from_region(region(112)).unwrap();
        assert_eq!((frame.len(), frame.capacity()), (100, 100));
        frame.set_len(20).unwrap();
        assert_eq!((frame.len(), frame.capacity()), (20, 100));
        let error = DeviceError::BufferTooShort {
            len: 100,
            needed: 101,
        };
        assert_eq!(frame.set_len(101), Err(error));
        assert_eq!(frame.len(), 20);
        assert_eq!(frame.into_region().len(), 112);
        for len in [1, 12] {
            let (error, region) = Frame::from_region(region(len)).unwrap_err();
            let needed = 13;
            assert_eq!(error, DeviceError::BufferTooShort { len, needed });
            assert_eq!(region.len(), len);
        }
    }
}
