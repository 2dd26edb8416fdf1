//! A ring with both of its sides.

use std::vec::Vec;

use crate::dma::DmaRegion;
use crate::dma::fake::FakeDma;
use crate::queue::{AnyRing, Buffer, PackedRing, QueueError, Ring, SplitRing, Token};
use crate::transport::RingLayout;
use crate::transport::fake::DeviceRing;
use crate::virtio::Features;

/// A ring that a test makes.
pub(in crate::queue) trait Make<'d>: Ring + Sized {
    fn make(dma: &'d FakeDma, size: u16, indirect: u16, features: Features) -> Self;
}

impl<'d> Make<'d> for SplitRing<&'d FakeDma> {
    fn make(dma: &'d FakeDma, size: u16, indirect: u16, features: Features) -> Self {
        Self::new(size, RingLayout::Separate, indirect, features, dma).unwrap()
    }
}

impl<'d> Make<'d> for PackedRing<&'d FakeDma> {
    fn make(dma: &'d FakeDma, size: u16, indirect: u16, features: Features) -> Self {
        Self::new(size, indirect, features | Features::RING_PACKED, dma).unwrap()
    }
}

impl<'d> Make<'d> for AnyRing<&'d FakeDma> {
    fn make(dma: &'d FakeDma, size: u16, indirect: u16, features: Features) -> Self {
        Self::new(size, RingLayout::Separate, indirect, features, dma).unwrap()
    }
}

pub(in crate::queue) struct Rig<'d, R> {
    pub(in crate::queue) ring: R,
    pub(in crate::queue) device: DeviceRing<'d>,
    /// What the buffers point to.
    pub(in crate::queue) data: DmaRegion<&'d FakeDma>,
}

impl<'d, R: Make<'d>> Rig<'d, R> {
    /// Requests of up to `indirect` buffers may take a table.
    pub(in crate::queue) fn new(
        dma: &'d FakeDma,
        size: u16,
        indirect: u16,
        features: Features,
    ) -> Self {
        let ring = R::make(dma, size, indirect, features);
        let device = DeviceRing::new(dma, size, ring.addresses(), features);
        Self {
            ring,
            device,
            data: DmaRegion::new(dma, 4096, 1).unwrap(),
        }
    }

    /// `writable` says of each buffer which kind it is; each has 16 bytes.
    pub(in crate::queue) fn buffers(&self, writable: &[bool]) -> Vec<Buffer> {
        let address = |index| self.data.address() + 16 * index as u64;
        let buffer = |(index, &writable)| Buffer {
            address: address(index),
            len: 16,
            writable,
        };
        writable.iter().enumerate().map(buffer).collect()
    }

    pub(in crate::queue) fn add(&mut self, writable: &[bool]) -> Result<Token, QueueError> {
        let buffers = self.buffers(writable);
        // SAFETY: the data lives as long as the rig, and nobody reads it.
        unsafe { self.ring.add(&buffers) }
    }

    /// The device takes a request and gives it back.
    pub(in crate::queue) fn serve(&mut self, written: u32) {
        let chain = self.device.take().expect("a request was made available");
        self.device.finish(chain.head(), written);
    }

    /// A request goes all the way.
    pub(in crate::queue) fn round(&mut self, writable: &[bool], written: u32) {
        let token = self.add(writable).unwrap();
        self.serve(written);
        let used = self.ring.pop().unwrap().expect("it was given back");
        assert_eq!((used.token, used.written), (token, written));
    }

    /// What the device wrote makes `error`, and the ring has had enough.
    pub(in crate::queue) fn breaks(&mut self, error: QueueError) {
        let in_flight = self.ring.in_flight();
        assert_eq!(self.ring.pop(), Err(error));
        assert!(error.is_device_fault());
        assert_eq!(self.ring.pop(), Err(QueueError::Broken));
        assert_eq!(self.add(&[true]), Err(QueueError::Broken));
        assert_eq!(self.ring.next_token(), Err(QueueError::Broken));
        assert!(!self.ring.needs_notification());
        assert!(!self.ring.has_used());
        assert_eq!(self.ring.in_flight(), in_flight, "nothing came back");
    }

    pub(in crate::queue) fn no_violations(&mut self) {
        assert_eq!(self.device.violations(), [""; 0]);
    }
}

/// A sequence of numbers without a pattern that matters (Knuth's MMIX).
pub(in crate::queue) struct Random(pub(in crate::queue) u64);

impl Random {
    pub(in crate::queue) fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

/// Looks again and again, for some seconds at most.
pub(in crate::queue) fn wait_until(mut ready: impl FnMut() -> bool) -> bool {
    for look in 0..if cfg!(miri) { 20_000 } else { 100_000_000u32 } {
        if ready() {
            return true;
        }
        // More threads than processors may run here.
        if look % 1000 == 999 || cfg!(miri) {
            std::thread::yield_now();
        }
    }
    false
}
