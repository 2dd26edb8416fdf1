//! The traditional memory balloon (virtio 1.2, 5.5): memory that the guest gives
//! up, and takes back.
//!
//! The device has a [target](Balloon::target), which it changes with a
//! configuration change. Whoever drives it compares that to what the balloon
//! [holds](Balloon::actual): is the target more, it allocates pages and inflates
//! the balloon by them; is it less, it deflates it. A target may be more than the
//! guest can give, and how much that is, is for the guest to say. With
//! VIRTIO_BALLOON_F_DEFLATE_ON_OOM negotiated it may also deflate the balloon below
//! the target when it runs out of memory (5.5.6.1).
//!
//! A page has 4096 bytes here, whatever the processor's have (5.5.6). It is named
//! to the device by a number of 32 bits, of device addresses: a balloon is of use
//! where these are the guest's physical addresses, not those of an IOMMU.
//!
//! Free page hints, page poisoning and free page reporting are not negotiated.
//! Neither is VIRTIO_F_RING_RESET: of a queue that was reset by itself nobody could
//! say which pages the device had taken.

use core::fmt;
use core::mem::ManuallyDrop;

use virtio_spec::balloon::F;

use super::driver::impl_driver;
use super::link::{Back, Link, Plan};
use super::slots::Slots;
use super::{DeviceError, Setup};
use crate::dma::{Dma, DmaRegion};
use crate::queue::Token;
use crate::transport::{self, Transport, TransportError};
use crate::virtio::{Features, Init, Wait};

mod blocking;
mod pages;
mod statistics;

pub use pages::{Ballooned, MAX_PAGES, PAGE};
pub use statistics::{Statistic, Tag};
use statistics::{StatisticsBuffer, Tags};

/// The device type (virtio 1.2, section 5).
pub const DEVICE_TYPE: u16 = 5;

/// The queue, of the driver and of the specification (5.5.2), for pages that go into
/// the balloon.
pub const INFLATEQ: usize = 0;
/// The queue for pages that come out of it.
pub const DEFLATEQ: usize = 1;
/// The queue for statistics, if there is one.
pub const STATSQ: usize = 2;

/// Offsets in `struct virtio_balloon_config` (5.5.4), which is little-endian for
/// legacy devices too.
mod offset {
    pub(super) const NUM_PAGES: u16 = 0;
    pub(super) const ACTUAL: u16 = 4;
}

/// A balloon device. Its queues are [`INFLATEQ`], [`DEFLATEQ`], and [`STATSQ`] if
/// there are statistics.
///
/// Pages that are in the balloon when the driver is dropped are lost to the guest:
/// deflate it before, or [close](super::Driver::close) the driver and
/// [reclaim](Self::reclaim) them.
pub struct Balloon<T: Transport, D: Dma + Clone> {
    link: Link<T, DmaRegion<D>, D>,
    /// By queue, inflateq and deflateq, and token: the numbers of a request's
    /// pages. Kept as long as the device may read them.
    arrays: ManuallyDrop<Slots<D>>,
    statistics: Option<StatisticsBuffer<D>>,
    /// Pages in the balloon, as the device was told last.
    actual: u32,
}

/// A request to inflate that the device has acknowledged, or lost.
#[derive(Debug)]
pub struct Inflated<D: Dma> {
    /// Which, of those to inflate.
    pub token: Token,
    /// The pages, which are in the balloon now; or [`DeviceError::Aborted`] and the
    /// pages, which are the guest's, with contents that nobody knows.
    pub result: Result<Ballooned<D>, (DeviceError, DmaRegion<D>)>,
}

/// A request to deflate that the device has acknowledged, or lost.
#[derive(Debug)]
pub struct Deflated<D: Dma> {
    /// Which, of those to deflate.
    pub token: Token,
    /// The pages, which are the guest's again, with contents that nobody knows.
    pub pages: DmaRegion<D>,
    /// [`DeviceError::Aborted`] if the device did not acknowledge, but was reset.
    pub result: Result<(), DeviceError>,
}

impl_driver!(Balloon);

impl<T: Transport, D: Dma + Clone> fmt::Debug for Balloon<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balloon")
            .field("actual", &self.actual())
            .finish_non_exhaustive()
    }
}

impl<T: Transport, D: Dma + Clone> Balloon<T, D> {
    /// Brings the device up, with an empty balloon.
    ///
    /// `statistics` are the first ones that the device gets, and say which ones it
    /// gets later. Without any there is no statsq.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Statistic`] if one is there twice; otherwise [`DeviceError`]
    /// that says what failed: the device is then reset and marked FAILED.
    pub fn new(
        transport: T,
        setup: &Setup,
        statistics: &[Statistic],
        dma: D,
        wait: &mut dyn Wait,
    ) -> Result<Self, DeviceError> {
        super::check_type(&transport, DEVICE_TYPE)?;
        let tags = Tags::of(statistics)?;
        let own = Features::from(F::MUST_TELL_HOST | F::DEFLATE_ON_OOM);
        let own = match statistics {
            [] => own,
            _ => own | Features::from(F::STATS_VQ),
        };
        let wanted = setup.features.difference(Features::RING_RESET) | own;
        let init = Init::begin(transport, wanted, Features::empty(), wait)?;
        let reports = init.features().contains(F::STATS_VQ.into());
        let plan = |n| Plan {
            index: n as u16,
            // The device never has more than one buffer of statistics (5.5.6.3.1).
            size: if n == STATSQ { 1 } else { setup.queue_size },
            buffers: 1,
        };
        let queues = if reports { STATSQ + 1 } else { STATSQ };
        let (link, (arrays, statistics_buffer)) = Link::open(
            init,
            queues,
            plan,
            setup,
            dma.clone(),
            |transport, sizes| {
                empty(transport)?;
                let arrays = Slots::new(dma.clone(), &sizes[..STATSQ], pages::ARRAY)?;
                let statistics = match reports {
                    true => Some(StatisticsBuffer::new(dma.clone(), tags)?),
                    false => None,
                };
                Ok((arrays, statistics))
            },
        )?;
        let mut balloon = Self {
            link,
            arrays: ManuallyDrop::new(arrays),
            statistics: statistics_buffer,
            actual: 0,
        };
        if reports {
            balloon.submit_statistics(statistics)?;
        }
        Ok(balloon)
    }

    /// How many pages of 4096 bytes the device wants in the balloon (`num_pages`).
    ///
    /// # Errors
    ///
    /// [`DeviceError::Gone`] where nothing answers any more, and
    /// [`DeviceError::Queue`] once the device was given up.
    pub fn target(&mut self) -> Result<u32, DeviceError> {
        let target = transport::read_config_u32(self.link.live()?, offset::NUM_PAGES, 4)?;
        // So it reads where there is no device: ones, or zeros.
        if matches!(target, 0 | u32::MAX) {
            self.link.health()?;
        }
        Ok(target)
    }

    /// How many pages of 4096 bytes are in the balloon: those that the device
    /// acknowledged. None are once it was reset.
    pub fn actual(&self) -> u32 {
        if self.link.is_reset() { 0 } else { self.actual }
    }

    /// Whether pages may come out of the balloon though the device wants no fewer in
    /// it, when memory runs out (VIRTIO_BALLOON_F_DEFLATE_ON_OOM).
    pub fn may_deflate_on_oom(&self) -> bool {
        self.link.has(F::DEFLATE_ON_OOM)
    }

    /// Puts pages into the balloon: whole ones, from 1 to [`MAX_PAGES`], that the
    /// guest can do without. The doorbell is for the caller to ring, once for a
    /// batch: `queue(INFLATEQ).kick()`.
    ///
    /// # Errors
    ///
    /// The pages come back with [`DeviceError::BufferLength`], with
    /// [`DeviceError::PageAddress`] where the device cannot be told of them, with
    /// [`DeviceError::Queue`] if the queue is full, or if the device was given up.
    pub fn submit_inflate(
        &mut self,
        pages: DmaRegion<D>,
    ) -> Result<Token, (DeviceError, DmaRegion<D>)> {
        match pages::check(&pages) {
            Ok(()) => self.submit(INFLATEQ, pages),
            Err(error) => Err((error, pages)),
        }
    }

    /// Takes back pages that the device has acknowledged, if there are any, and
    /// tells it how many are in the balloon now (5.5.6).
    ///
    /// # Errors
    ///
    /// [`DeviceError::Queue`] after a device's fault.
    pub fn poll_inflate(&mut self) -> Result<Option<Inflated<D>>, DeviceError> {
        let back = self.link.pop(INFLATEQ)?;
        Ok(back.map(|back| self.inflated(back)))
    }

    /// Takes pages out of the balloon. They are the guest's once the device has
    /// acknowledged that, whether or not it says that it must be told
    /// (VIRTIO_BALLOON_F_MUST_TELL_HOST). The doorbell is for the caller to ring:
    /// `queue(DEFLATEQ).kick()`.
    ///
    /// # Errors
    ///
    /// The pages come back with [`DeviceError::ForeignPages`] if they are in
    /// another device's balloon, with [`DeviceError::Queue`] if the queue is full,
    /// or if the device was given up.
    pub fn submit_deflate(
        &mut self,
        ballooned: Ballooned<D>,
    ) -> Result<Token, (DeviceError, Ballooned<D>)> {
        let balloon = self.arrays.id();
        let address = ballooned.address();
        let pages = match ballooned.out_of(balloon) {
            Ok(pages) => pages,
            Err(ballooned) => return Err((DeviceError::ForeignPages { address }, ballooned)),
        };
        self.submit(DEFLATEQ, pages)
            .map_err(|(error, pages)| (error, Ballooned::new(pages, balloon)))
    }

    /// Takes back pages that the device has let go of, if there are any, and tells
    /// it how many are in the balloon now (5.5.6).
    ///
    /// # Errors
    ///
    /// [`DeviceError::Queue`] after a device's fault.
    pub fn poll_deflate(&mut self) -> Result<Option<Deflated<D>>, DeviceError> {
        let back = self.link.pop(DEFLATEQ)?;
        Ok(back.map(|back| self.deflated(back)))
    }

    /// Takes pages out of the balloon of a device that was reset, closed or
    /// unplugged: it has none any more. Nobody knows their contents.
    ///
    /// # Errors
    ///
    /// The pages come back as they are while the device may have them, and if they
    /// are in another device's balloon.
    pub fn reclaim(&self, ballooned: Ballooned<D>) -> Result<DmaRegion<D>, Ballooned<D>> {
        if self.link.is_reset() {
            ballooned.out_of(self.arrays.id())
        } else {
            Err(ballooned)
        }
    }

    /// Makes the numbers of pages available.
    fn submit(
        &mut self,
        queue: usize,
        pages: DmaRegion<D>,
    ) -> Result<Token, (DeviceError, DmaRegion<D>)> {
        let token = match self.link.queue(queue).next_token() {
            Ok(token) => token,
            Err(error) => return Err((error.into(), pages)),
        };
        let is_legacy = !self.link.has(Features::VERSION_1);
        // SAFETY: the token's slot, of `ARRAY` bytes, and no request's in flight;
        // the pages were checked when they came to the balloon.
        let array = unsafe { pages::write(self.arrays.of(queue, token), &pages, is_legacy) };
        // SAFETY: the array belongs to the token, and its memory goes only after
        // the device was reset (`drop`); the request keeps the pages themselves.
        unsafe { self.link.submit(queue, &[array], pages) }
            .map_err(|(error, pages)| (error.into(), pages))
    }

    fn inflated(&mut self, back: Back<DmaRegion<D>>) -> Inflated<D> {
        let (token, pages) = (back.token, back.request);
        let result = match back.written {
            // A device that was reset has taken none.
            None => Err((DeviceError::Aborted, pages)),
            // Nothing was to be written; what a legacy device says it wrote is
            // ignored (5.5.6.2.1).
            Some(_) => {
                self.set_actual(self.actual.saturating_add(pages::count(&pages)));
                Ok(Ballooned::new(pages, self.arrays.id()))
            }
        };
        Inflated { token, result }
    }

    fn deflated(&mut self, back: Back<DmaRegion<D>>) -> Deflated<D> {
        let pages = back.request;
        let result = match back.written {
            None => Err(DeviceError::Aborted),
            Some(_) => {
                self.set_actual(self.actual.saturating_sub(pages::count(&pages)));
                Ok(())
            }
        };
        Deflated {
            token: back.token,
            pages,
            result,
        }
    }

    /// Tells the device how many pages are in the balloon. A device to which that
    /// cannot be said any more is given up.
    fn set_actual(&mut self, actual: u32) {
        self.actual = actual;
        let written = match self.link.live() {
            Ok(transport) => write_actual(transport, actual),
            Err(_) => return,
        };
        if written.is_err() {
            self.link.fail();
        }
    }
}

/// Writes `actual`: all four bytes at once (5.5.6.2.1).
fn write_actual<T: Transport>(transport: &mut T, actual: u32) -> Result<(), TransportError> {
    transport.write_config(offset::ACTUAL, 4, &actual.to_le_bytes())
}

/// Sees to it that a device's balloon is empty whose earlier driver is gone, and
/// that its configuration can be read.
fn empty<T: Transport>(transport: &mut T) -> Result<(), TransportError> {
    transport::read_config_u32(transport, offset::NUM_PAGES, 4)?;
    match transport::read_config_u32(transport, offset::ACTUAL, 4)? {
        0 => Ok(()),
        _ => write_actual(transport, 0),
    }
}

impl<T: Transport, D: Dma + Clone> Drop for Balloon<T, D> {
    fn drop(&mut self) {
        if self.link.close() {
            // SAFETY: dropped once; a device that was reset accesses nothing
            // (2.4.1).
            unsafe { ManuallyDrop::drop(&mut self.arrays) }
        }
    }
}

#[cfg(test)]
mod host;
#[cfg(test)]
mod tests;
