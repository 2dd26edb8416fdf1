//! What the guest reports of its memory (virtio 1.2, 5.5.6.3).

use super::{Balloon, STATSQ};
use crate::device::DeviceError;
use crate::dma::{Dma, DmaError, DmaRegion};
use crate::queue::Buffer;
use crate::transport::Transport;
use crate::virtio::Features;

/// What a statistic is of (VIRTIO_BALLOON_S_\*, 5.5.6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Tag {
    /// Bytes that were swapped in.
    SwapIn = 0,
    /// Bytes that were swapped out to disk.
    SwapOut = 1,
    /// Major page faults.
    Majflt = 2,
    /// Minor page faults.
    Minflt = 3,
    /// Bytes that are not used for anything.
    Memfree = 4,
    /// Bytes of memory in all.
    Memtot = 5,
    /// Bytes that could be had without swapping.
    Avail = 6,
    /// Bytes that could be reclaimed at once, like those of caches.
    Caches = 7,
    /// Successful allocations of huge pages.
    HtlbPgalloc = 8,
    /// Failed allocations of huge pages.
    HtlbPgfail = 9,
}

/// How many kinds of statistics there are.
const TAGS: usize = 10;

/// Bytes that a statistic takes: its tag in 16 bits, and its value in 64.
const ENTRY: usize = 10;

/// A statistic (`struct virtio_balloon_stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// What it is of.
    pub tag: Tag,
    /// Bytes, or a count, as the tag says.
    pub value: u64,
}

impl Statistic {
    fn bytes(self, is_legacy: bool) -> [u8; ENTRY] {
        let (tag, value) = (self.tag as u16, self.value);
        // The legacy interface has the guest's own byte order (5.5.6.3.3).
        let (tag, value) = if is_legacy {
            (tag.to_ne_bytes(), value.to_ne_bytes())
        } else {
            (tag.to_le_bytes(), value.to_le_bytes())
        };
        let mut bytes = [0; ENTRY];
        bytes[..2].copy_from_slice(&tag);
        bytes[2..].copy_from_slice(&value);
        bytes
    }
}

/// A set of tags, a bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tags(u16);

impl Tags {
    /// Those of `statistics`, if each is there once.
    pub(super) fn of(statistics: &[Statistic]) -> Result<Self, DeviceError> {
        let mut tags = Self(0);
        for statistic in statistics {
            let tag = statistic.tag as u16;
            if tags.0 & 1 << tag != 0 {
                return Err(DeviceError::Statistic { tag });
            }
            tags.0 |= 1 << tag;
        }
        Ok(tags)
    }

    /// Checks that `statistics` are these, in any order.
    fn check(self, statistics: &[Statistic]) -> Result<(), DeviceError> {
        match self.0 ^ Self::of(statistics)?.0 {
            0 => Ok(()),
            other => Err(DeviceError::Statistic {
                tag: other.trailing_zeros() as u16,
            }),
        }
    }
}

/// The one buffer that statistics go in.
pub(super) struct StatisticsBuffer<D: Dma> {
    /// Which ones the device gets: the same each time (5.5.6.3.1).
    tags: Tags,
    /// `None` while the device has it.
    memory: Option<DmaRegion<D>>,
}

impl<D: Dma> StatisticsBuffer<D> {
    pub(super) fn new(dma: D, tags: Tags) -> Result<Self, DmaError> {
        let memory = Some(DmaRegion::new(dma, TAGS * ENTRY, 2)?);
        Ok(Self { tags, memory })
    }
}

impl<T: Transport, D: Dma + Clone> Balloon<T, D> {
    /// Whether the device wants statistics: it has used what it had
    /// (5.5.6.3). Without a statsq it never does.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Queue`] after a device's fault, [`DeviceError::Aborted`]
    /// once after it was reset.
    pub fn poll_statistics_request(&mut self) -> Result<bool, DeviceError> {
        let Some(buffer) = &mut self.statistics else {
            return Ok(false);
        };
        if let Some(back) = self.link.pop(STATSQ)? {
            buffer.memory = Some(back.request);
            back.written.ok_or(DeviceError::Aborted)?;
        }
        Ok(buffer.memory.is_some())
    }

    /// Gives the device statistics that it wants, and rings.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Statistic`] if they are not of the kinds that the driver
    /// started with (5.5.6.3.1); [`DeviceError::Busy`] if the device still has
    /// some; [`DeviceError::Unsupported`] without a statsq; [`DeviceError::Queue`]
    /// once the device was given up.
    pub fn submit_statistics(&mut self, statistics: &[Statistic]) -> Result<(), DeviceError> {
        let Some(buffer) = &mut self.statistics else {
            return Err(DeviceError::Unsupported);
        };
        self.link.live()?;
        buffer.tags.check(statistics)?;
        let is_legacy = !self.link.has(Features::VERSION_1);
        let Some(mut memory) = buffer.memory.take() else {
            return Err(DeviceError::Busy { in_flight: 1 });
        };
        for (entry, statistic) in memory.chunks_exact_mut(ENTRY).zip(statistics) {
            entry.copy_from_slice(&statistic.bytes(is_legacy));
        }
        let len = statistics.len() * ENTRY;
        let descriptor = Buffer::readable(memory.address(), len as u32);
        // SAFETY: the memory is the request's own.
        match unsafe { self.link.submit(STATSQ, &[descriptor], memory) } {
            Ok(_) => {
                self.link.queue(STATSQ).kick();
                Ok(())
            }
            Err((error, memory)) => {
                buffer.memory = Some(memory);
                Err(error.into())
            }
        }
    }
}
