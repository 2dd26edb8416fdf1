//! The network device (virtio 1.2, 5.1): frames out and in, without checksum or
//! segmentation offloads.
//!
//! A frame is what is on the wire between preamble and checksum: an Ethernet
//! header of 14 bytes and what it carries. Each pair of queues, numbered from 0,
//! has one for frames that come in and one for those that go out:
//! [`Net::receive_queue`] and [`Net::transmit_queue`] say which.

use core::fmt;
use core::ops::Range;

use virtio_spec::net::F;

use super::driver::impl_driver;
use super::link::{Back, Link, Plan};
use super::{DeviceError, Setup, one_len};
use crate::dma::{Dma, DmaRegion, Table};
use crate::queue::{Buffer, Token};
use crate::transport::Transport;
use crate::virtio::{Features, Init, Wait};

mod control;
mod copying;
mod frame;
mod info;

use frame::NUM_BUFFERS;
pub use frame::{ETHERNET_HEADER, Frame, HEADROOM};
pub use info::Info;

/// The device type (virtio 1.2, section 5).
pub const DEVICE_TYPE: u16 = 1;

/// The MTU of a network that does not say another: Ethernet's.
const ETHERNET_MTU: u16 = 1500;

/// About how many descriptors the control queue gets: it has one command at a time.
const CONTROL_SIZE: u16 = 8;

/// A network device.
pub struct Net<T: Transport, D: Dma + Clone> {
    /// What a request owns is a frame. Of a receive buffer and of a command only
    /// the region counts.
    link: Link<T, Frame<D>, D>,
    info: Info,
    framing: Framing,
    /// How many pairs of queues are set up.
    pairs: u16,
    /// How many of these are switched on.
    active: u16,
    /// By pair: how many buffers of a packet are still to be taken from the queue.
    following: Table<u16, D>,
    dma: D,
}

/// How the header lies before a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Framing {
    /// Its length in bytes.
    header: usize,
    /// Whether it has a descriptor of its own.
    split: bool,
}

/// A buffer that came back from a receive queue.
#[derive(Debug)]
pub struct Received<D: Dma> {
    /// Which.
    pub token: Token,
    /// The buffer that was given with it.
    pub buffer: DmaRegion<D>,
    /// Which of its bytes are a packet's; or [`DeviceError::Aborted`], or what the
    /// device was given up for.
    pub result: Result<Range<usize>, DeviceError>,
    /// How many buffers of this packet follow: the next calls return them. 0 for
    /// the last.
    pub following: u16,
}

/// A frame that came back from a transmit queue.
#[derive(Debug)]
pub struct Sent<D: Dma> {
    /// Which.
    pub token: Token,
    /// The frame.
    pub frame: Frame<D>,
    /// Whether the device took it; or [`DeviceError::Aborted`].
    pub result: Result<(), DeviceError>,
}

impl_driver!(Net);

impl<T: Transport, D: Dma + Clone> fmt::Debug for Net<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("info", &self.info)
            .field("pairs", &self.pairs)
            .finish_non_exhaustive()
    }
}

impl<T: Transport, D: Dma + Clone> Net<T, D> {
    /// Brings the device up, with up to `setup.queues` pairs of queues, all
    /// switched on.
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
        let wanted = |offered| setup.features | info::wanted(offered);
        let mut init = Init::negotiate(transport, wanted, Features::empty(), wait)?;
        let features = init.features();
        let info = Info::read(init.transport(), features)?;
        let framing = Framing::of(features);
        let pairs = info.max_pairs.min(setup.queues).max(1);
        let frames = 2 * usize::from(pairs);
        let count = frames + usize::from(features.contains(F::CTRL_VQ.into()));
        let plan = |n: usize| {
            if n < frames {
                Plan {
                    index: n as u16,
                    size: setup.queue_size,
                    buffers: if framing.split { 2 } else { 1 },
                }
            } else {
                // 5.1.2: behind all pairs that the device has, used or not.
                Plan {
                    index: 2 * info.max_pairs,
                    size: CONTROL_SIZE,
                    buffers: control::BUFFERS,
                }
            }
        };
        let (link, following) = Link::open(init, count, plan, setup, dma.clone(), |_, _| {
            Ok(Table::new(dma.clone(), pairs.into(), |_| 0)?)
        })?;
        let mut net = Self {
            link,
            info,
            framing,
            pairs,
            active: 1,
            following,
            dma,
        };
        if pairs > 1
            && let Err(error) = net.set_pairs(pairs, wait)
        {
            net.link.fail();
            return Err(error);
        }
        Ok(net)
    }

    /// What the device says of itself.
    pub fn info(&self) -> Info {
        self.info
    }

    /// How many pairs of queues are set up.
    pub fn pairs(&self) -> u16 {
        self.pairs
    }

    /// How many pairs of queues are switched on: the first ones.
    pub fn active_pairs(&self) -> u16 {
        self.active
    }

    /// The number of a pair's receive queue, for [`Driver::queue`](super::Driver::queue).
    pub fn receive_queue(&self, pair: u16) -> usize {
        2 * usize::from(pair)
    }

    /// The number of a pair's transmit queue, for [`Driver::queue`](super::Driver::queue).
    pub fn transmit_queue(&self, pair: u16) -> usize {
        2 * usize::from(pair) + 1
    }

    /// The number of the control queue, for [`Driver::queue`](super::Driver::queue), if there is
    /// one.
    pub fn control_queue(&self) -> Option<usize> {
        let control = 2 * usize::from(self.pairs);
        (control < self.link.queues()).then_some(control)
    }

    /// How long a receive buffer is at least, in bytes (5.1.6.3.1): with
    /// VIRTIO_NET_F_MRG_RXBUF ([`Info::mergeable`]) more than the header, and one
    /// that a frame of the MTU fits in otherwise. Mergeable buffers have to be so
    /// many that such a frame fits in all of them.
    pub fn receive_len(&self) -> usize {
        if self.info.mergeable {
            return self.framing.header + 1;
        }
        let mtu = self.info.mtu.unwrap_or(ETHERNET_MTU);
        HEADROOM + ETHERNET_HEADER + usize::from(mtu)
    }

    /// Gives `buffer` to a pair's receive queue. The doorbell is for the caller to
    /// ring, once for a batch: `queue(receive_queue(pair)).kick()`.
    ///
    /// # Errors
    ///
    /// The buffer comes back with [`DeviceError::BufferTooShort`] if it is shorter
    /// than [`receive_len`](Self::receive_len), with [`DeviceError::NoPair`], or
    /// with [`DeviceError::Queue`] if the queue is full or the device was given up.
    pub fn submit_receive(
        &mut self,
        pair: u16,
        buffer: DmaRegion<D>,
    ) -> Result<Token, (DeviceError, DmaRegion<D>)> {
        let (address, bytes, needed) = (buffer.address(), buffer.len(), self.receive_len());
        let checked = self.check_pair(pair).and_then(|()| {
            if bytes < needed {
                return Err(DeviceError::BufferTooShort { len: bytes, needed });
            }
            one_len(bytes, usize::MAX)
        });
        let len = match checked {
            Ok(len) => len,
            Err(error) => return Err((error, buffer)),
        };
        let queue = self.receive_queue(pair);
        let (chain, count) = self.framing.chain(address, len, Buffer::writable);
        // SAFETY: the memory is the request's own.
        unsafe {
            self.link
                .submit(queue, &chain[..count], Frame::empty(buffer))
        }
        .map_err(|(error, owned)| (error.into(), owned.into_region()))
    }

    /// Takes back a buffer that the device has filled, if there is one. The
    /// buffers of a packet come one after the other, and all of them at once: after
    /// one with others [`following`](Received::following), these are there.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoPair`]; and what the device is given up for:
    /// [`DeviceError::Queue`], [`DeviceError::IncompletePacket`], or what is in
    /// [`Received::result`].
    pub fn poll_receive(&mut self, pair: u16) -> Result<Option<Received<D>>, DeviceError> {
        self.check_pair(pair)?;
        let queue = self.receive_queue(pair);
        let following = self.following[usize::from(pair)];
        let Some(back) = self.link.pop(queue)? else {
            if following == 0 {
                return Ok(None);
            }
            // 5.1.6.4.1: all buffers of a packet are used together.
            self.link.fail();
            return Err(DeviceError::IncompletePacket { missing: following });
        };
        let result = self.received(queue, &back, following);
        if matches!(&result, Err(error) if *error != DeviceError::Aborted) {
            self.link.fail();
        }
        let following = result.as_ref().map_or(0, |&(_, following)| following);
        self.following[usize::from(pair)] = following;
        Ok(Some(Received {
            token: back.token,
            buffer: back.request.into_region(),
            result: result.map(|(range, _)| range),
            following,
        }))
    }

    /// Which bytes of a buffer are a packet's, and how many buffers of it follow.
    fn received(
        &mut self,
        queue: usize,
        back: &Back<Frame<D>>,
        following: u16,
    ) -> Result<(Range<usize>, u16), DeviceError> {
        // The queue checked that it is no more than the buffer's length.
        let written = back.written.ok_or(DeviceError::Aborted)? as usize;
        if following > 0 {
            // Only a packet's first buffer begins with a header (5.1.6.4).
            return Ok((0..written, following - 1));
        }
        let header = self.framing.header;
        if written < header {
            return Err(DeviceError::ShortPacket { written, header });
        }
        let following = if self.info.mergeable {
            let num_buffers = back.request.num_buffers();
            let posted = self.link.queue(queue).in_flight().saturating_add(1);
            if num_buffers == 0 || num_buffers > posted {
                return Err(DeviceError::BufferCount {
                    num_buffers,
                    posted,
                });
            }
            num_buffers - 1
        } else {
            // The field says 1, where it is there; devices leave it as it was.
            0
        };
        Ok((header..written, following))
    }

    /// Gives `frame` to a pair's transmit queue. The doorbell is for the caller to
    /// ring, once for a batch: `queue(transmit_queue(pair)).kick()`.
    ///
    /// # Errors
    ///
    /// The frame comes back with [`DeviceError::FrameLength`] if it is longer than
    /// the MTU allows, or no Ethernet frame; with [`DeviceError::NoPair`] if the
    /// pair is not switched on; or with [`DeviceError::Queue`] if the queue is full
    /// or the device was given up.
    #[inline(always)]
    pub fn submit_transmit(
        &mut self,
        pair: u16,
        mut frame: Frame<D>,
    ) -> Result<Token, (DeviceError, Frame<D>)> {
        let checked = check_pair(pair, self.active).and(self.check_frame(frame.len()));
        if let Err(error) = checked {
            return Err((error, frame));
        }
        let queue = self.transmit_queue(pair);
        let (address, len) = frame.with_header(self.framing.header);
        let (chain, count) = self.framing.chain(address, len, Buffer::readable);
        // SAFETY: the memory is the request's own.
        unsafe { self.link.submit(queue, &chain[..count], frame) }
            .map_err(|(error, frame)| (error.into(), frame))
    }

    /// Takes back a frame that the device has sent, if there is one.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoPair`], and [`DeviceError::Queue`] after a device's fault.
    #[inline(always)]
    pub fn poll_transmit(&mut self, pair: u16) -> Result<Option<Sent<D>>, DeviceError> {
        self.check_pair(pair)?;
        let queue = self.transmit_queue(pair);
        Ok(self.link.pop(queue)?.map(Sent::from))
    }

    fn check_pair(&self, pair: u16) -> Result<(), DeviceError> {
        check_pair(pair, self.pairs)
    }

    fn check_frame(&self, len: usize) -> Result<(), DeviceError> {
        let mtu = self.info.largest_mtu();
        let max = ETHERNET_HEADER + usize::from(mtu);
        if (ETHERNET_HEADER..=max).contains(&len) {
            Ok(())
        } else {
            Err(DeviceError::FrameLength { len, mtu })
        }
    }
}

fn check_pair(pair: u16, pairs: u16) -> Result<(), DeviceError> {
    if pair < pairs {
        Ok(())
    } else {
        Err(DeviceError::NoPair { pair, pairs })
    }
}

impl Framing {
    fn of(features: Features) -> Self {
        let modern = features.contains(Features::VERSION_1);
        let whole = modern || features.contains(F::MRG_RXBUF.into());
        Self {
            // 5.1.6.1
            header: if whole { HEADROOM } else { NUM_BUFFERS },
            // 5.1.6.6
            split: !modern && !features.contains(Features::ANY_LAYOUT),
        }
    }

    /// The descriptors of `len` bytes at `address` that begin with a header, and how
    /// many they are.
    fn chain(self, address: u64, len: u32, buffer: fn(u64, u32) -> Buffer) -> ([Buffer; 2], usize) {
        if !self.split {
            return ([buffer(address, len); 2], 1);
        }
        let header = self.header as u32;
        let rest = buffer(address + u64::from(header), len - header);
        ([buffer(address, header), rest], 2)
    }
}

impl<D: Dma> From<Back<Frame<D>>> for Sent<D> {
    fn from(back: Back<Frame<D>>) -> Self {
        // 5.1.6.1: the length that a legacy device reports here says nothing, and
        // the queue checked that another's is 0.
        Self {
            token: back.token,
            frame: back.request,
            result: back.written.map(drop).ok_or(DeviceError::Aborted),
        }
    }
}

#[cfg(test)]
mod nic;
#[cfg(test)]
mod tests;
