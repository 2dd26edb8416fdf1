//! Where things are in a packed ring, and whose they are.

use core::mem;

use virtio_spec::pvirtq::EventSuppress;
use virtio_spec::virtq::DescF;

use crate::queue::request::DESC;

pub(super) const AVAIL: u16 = bits(DescF::AVAIL);
pub(super) const USED: u16 = bits(DescF::USED);
pub(super) const WRITE: u16 = bits(DescF::WRITE);
pub(super) const NEXT: u16 = bits(DescF::NEXT);
pub(super) const INDIRECT: u16 = bits(DescF::INDIRECT);

const fn bits(flags: DescF) -> u16 {
    flags.bits().to_ne()
}

/// A processor's cache line, in bytes.
pub(super) const LINE: usize = 64;

/// Offsets of the ring's parts behind the descriptors, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Driver event suppression.
    pub(super) driver: usize,
    /// Device event suppression.
    pub(super) device: usize,
    pub(super) len: usize,
}

impl Layout {
    pub(super) fn new(size: u16) -> Self {
        // They need no more than 4 (2.8.10.1). In lines of their own, neither side's
        // writes take away what the other side is reading.
        let driver = (DESC * usize::from(size)).next_multiple_of(LINE);
        let device = driver + LINE;
        Self {
            driver,
            device,
            len: device + mem::size_of::<EventSuppress>(),
        }
    }
}

/// Where one side is in the ring: a descriptor, and the side's wrap counter (2.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: u16,
    pub(super) wrap: bool,
}

impl Place {
    /// Where both sides begin.
    pub(super) const START: Self = Self {
        index: 0,
        wrap: true,
    };

    /// `descriptors` further on in a ring of `size`, which are no fewer.
    #[inline]
    pub(super) fn step(self, descriptors: u16, size: u16) -> Self {
        // At most 32767 and 32768.
        let index = self.index + descriptors;
        if index < size {
            Self { index, ..self }
        } else {
            Self {
                index: index - size,
                wrap: !self.wrap,
            }
        }
    }

    /// The flags of a descriptor here that is available.
    #[inline]
    pub(super) fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// Those of one that is used.
    #[inline]
    pub(super) fn used(self) -> u16 {
        if self.wrap { AVAIL | USED } else { 0 }
    }

    /// The place in an event suppression structure (2.8.14).
    #[inline]
    pub(super) fn event(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }
}
