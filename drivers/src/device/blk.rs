//! The block device (virtio 1.2, 5.2).
//!
//! A request's data is one buffer, which the device sees as one segment: so
//! `size_max` limits a request, and a `seg_max` of 1 is enough. A discard or a
//! write of zeroes has one segment as well: `max_discard_seg` and
//! `max_write_zeroes_seg` only have to allow that one.

use core::fmt;
use core::mem::ManuallyDrop;

use virtio_spec::blk::F;

use super::driver::impl_driver;
use super::link::{Back, Link, Plan};
use super::slots::Slots;
use super::{DeviceError, Driver as _, Setup};
use crate::dma::Dma;
use crate::queue::{Buffer, Token};
use crate::transport::Transport;
use crate::virtio::{Features, Init, Wait};

mod blocking;
mod info;
mod request;

pub use info::{DiscardLimits, Info, Topology, WriteZeroesLimits};
use request::{BUFFERS, ENVELOPE};
pub use request::{Completion, ID_LEN, Request};

/// The device type (virtio 1.2, section 5).
pub const DEVICE_TYPE: u16 = 2;

/// Bytes in a sector, the unit of all block requests (5.2.6).
pub const SECTOR: usize = 512;

/// A block device. Queue `n` of the driver is requestq `n + 1` of the
/// specification.
pub struct Blk<T: Transport, D: Dma + Clone> {
    link: Link<T, Request<D>, D>,
    /// By queue and token: what a request carries beside its data. Kept as long as
    /// the device may write into it.
    envelopes: ManuallyDrop<Slots<D>>,
    info: Info,
    dma: D,
}

impl_driver!(Blk);

impl<T: Transport, D: Dma + Clone> fmt::Debug for Blk<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blk")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl<T: Transport, D: Dma + Clone> Blk<T, D> {
    /// Brings the device up, with as many queues as it has, and `setup` allows.
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
        let limits = F::RO | F::BLK_SIZE | F::SIZE_MAX | F::SEG_MAX | F::TOPOLOGY | F::MQ;
        let requests = F::FLUSH | F::CONFIG_WCE | F::DISCARD | F::WRITE_ZEROES;
        let wanted = setup.features | Features::from(limits | requests);
        let mut init = Init::begin(transport, wanted, Features::empty(), wait)?;
        let features = init.features();
        let info = Info::read(init.transport(), features)?;
        let queues = setup.queues.clamp(1, info.queues);
        let plan = |n| Plan {
            index: n as u16,
            size: setup.queue_size,
            buffers: BUFFERS,
        };
        let (link, envelopes) =
            Link::open(init, queues.into(), plan, setup, dma.clone(), |_, sizes| {
                Ok(Slots::new(dma.clone(), sizes, ENVELOPE)?)
            })?;
        Ok(Self {
            link,
            envelopes: ManuallyDrop::new(envelopes),
            info,
            dma,
        })
    }

    /// What the device said of itself at the start, or at the last
    /// [`refresh`](Self::refresh).
    pub fn info(&self) -> Info {
        self.info
    }

    /// Reads again what the device says of itself, as is due after a configuration
    /// change: its capacity may be another (5.2.6.1). New requests are checked
    /// against that; those in flight stay as they are.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] if it cannot be read or cannot be: what was known before
    /// holds then.
    pub fn refresh(&mut self) -> Result<Info, DeviceError> {
        let features = self.link.features();
        let read = Info::read(self.link.live()?, features);
        // Where nothing answers, all bits read as ones.
        self.link.health()?;
        self.info = read?;
        Ok(self.info)
    }

    /// Makes the device's cache write back, so that a [flush](Request::Flush) is
    /// what makes writes durable, or through (5.2.5). Writes that are in flight
    /// meanwhile may be either.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] without VIRTIO_BLK_F_CONFIG_WCE;
    /// [`DeviceError::Config`] with the value that the device has instead.
    pub fn set_writeback(&mut self, writeback: bool) -> Result<(), DeviceError> {
        if !self.link.has(F::CONFIG_WCE) {
            return Err(DeviceError::Unsupported);
        }
        info::write_writeback(self.link.live()?, writeback)?;
        match self.refresh()?.writeback {
            now if now == writeback => Ok(()),
            now => Err(DeviceError::Config {
                field: "writeback",
                value: now.into(),
            }),
        }
    }

    /// Makes a request available on queue 0; see [`submit_on`](Self::submit_on).
    ///
    /// # Errors
    ///
    /// As [`submit_on`](Self::submit_on).
    #[inline(always)]
    pub fn submit(&mut self, request: Request<D>) -> Result<Token, (DeviceError, Request<D>)> {
        self.submit_on(0, request)
    }

    /// Makes a request available on a queue. The doorbell is for the caller to
    /// ring, once for a batch: `queue(n).kick()`.
    ///
    /// # Errors
    ///
    /// The request comes back with what is wrong with it, with
    /// [`DeviceError::NoQueue`], with [`DeviceError::Queue`] if the queue is full,
    /// or if the device was given up.
    #[inline(always)]
    pub fn submit_on(
        &mut self,
        queue: usize,
        request: Request<D>,
    ) -> Result<Token, (DeviceError, Request<D>)> {
        let (chain, used) = match self.prepare(queue, &request) {
            Ok(prepared) => prepared,
            Err(error) => return Err((error, request)),
        };
        // SAFETY: the data is the request's own; the envelope belongs to the
        // token, and its memory goes only after the device was reset (`drop`).
        unsafe { self.link.submit(queue, &chain[..used], request) }
            .map_err(|(error, request)| (error.into(), request))
    }

    /// Writes the envelope of the next request, if the device can take that. The
    /// answer is the request's buffers, and how many of them there are.
    #[inline(always)]
    fn prepare(
        &mut self,
        queue: usize,
        request: &Request<D>,
    ) -> Result<([Buffer; BUFFERS as usize], usize), DeviceError> {
        self.link.check_queue(queue)?;
        let features = self.link.features();
        let any_layout = features.intersects(Features::VERSION_1 | Features::ANY_LAYOUT);
        let order = request.order(&self.info, any_layout)?;
        let token = self.link.queue(queue).next_token()?;
        // SAFETY: the token's slot, which is an envelope, and no request's in
        // flight.
        Ok(unsafe { order.write(self.envelopes.of(queue, token)) })
    }

    /// Takes back a request of queue 0; see [`poll_on`](Self::poll_on).
    ///
    /// # Errors
    ///
    /// As [`poll_on`](Self::poll_on).
    #[inline(always)]
    pub fn poll(&mut self) -> Result<Option<Completion<D>>, DeviceError> {
        self.poll_on(0)
    }

    /// Takes back a request that the device has finished on a queue, if there is
    /// one.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoQueue`], or [`DeviceError::Queue`] after a device's fault;
    /// a request's own failure is in its [`Completion`]. After
    /// [`DeviceError::BadAnswer`] there the device is given up.
    #[inline(always)]
    pub fn poll_on(&mut self, queue: usize) -> Result<Option<Completion<D>>, DeviceError> {
        self.link.check_queue(queue)?;
        let back = self.link.pop(queue)?;
        Ok(back.map(|back| self.complete(queue, back)))
    }

    /// Reads the device's answer to a request.
    #[inline(always)]
    fn complete(&mut self, queue: usize, back: Back<Request<D>>) -> Completion<D> {
        let Back {
            token,
            request,
            written,
        } = back;
        let result = match written {
            None => Err(DeviceError::Aborted),
            Some(written) => {
                // SAFETY: the token's slot; the device wrote it before the used
                // index that `pop` acquired, and does not write it any more.
                let status = unsafe { request.status(self.envelopes.of(queue, token)) };
                let is_legacy = !self.features().contains(Features::VERSION_1);
                request.answer(status, written, is_legacy)
            }
        };
        if matches!(result, Err(DeviceError::BadAnswer { .. })) {
            self.link.fail();
        }
        Completion {
            token,
            request,
            result,
        }
    }
}

impl<T: Transport, D: Dma + Clone> Drop for Blk<T, D> {
    fn drop(&mut self) {
        if self.link.close() {
            // SAFETY: dropped once; a device that was reset accesses nothing
            // (2.4.1).
            unsafe { ManuallyDrop::drop(&mut self.envelopes) }
        }
    }
}

#[cfg(test)]
pub(crate) mod disk;
#[cfg(test)]
mod tests;
