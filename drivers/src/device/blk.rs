//! The block device (virtio 1.2, 5.2).

use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use virtio_spec::blk::F;
use virtio_spec::{le32, le64};

use super::driver::impl_driver;
use super::link::{Back, Link, Plan};
use super::{DeviceError, Driver as _, Setup};
use crate::dma::{Dma, DmaRegion};
use crate::queue::{Buffer, Token};
use crate::transport::{self, Transport};
use crate::virtio::{Features, Init, Wait};

/// The device type (virtio 1.2, section 5).
pub const DEVICE_TYPE: u16 = 2;

/// Bytes in a sector, the unit of all block requests (5.2.6).
pub const SECTOR: usize = 512;

/// Bytes in a device ID (VIRTIO_BLK_T_GET_ID, 5.2.6).
pub const ID_LEN: usize = 20;

/// A request takes three buffers: header, data, status.
const BUFFERS: u16 = 3;

/// How many bytes a blocking call moves in one request.
const BLOCKING_CHUNK: usize = 64 * 1024;

/// Request types (5.2.6).
mod request_type {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
}

/// Offsets in `struct virtio_blk_config` (5.2.4).
mod config {
    pub(super) const CAPACITY: u16 = 0;
    pub(super) const SIZE_MAX: u16 = 8;
    pub(super) const BLK_SIZE: u16 = 20;
}

/// What a request carries beside its data (5.2.6): `struct virtio_blk_req`
/// without the data.
#[repr(C)]
struct Envelope {
    header: Header,
    status: u8,
}

/// The part of it that the device reads.
#[repr(C)]
struct Header {
    kind: le32,
    reserved: le32,
    sector: le64,
}

/// Distance of the envelopes in their region, in bytes.
const ENVELOPE: usize = size_of::<Envelope>().next_power_of_two();
/// Offset of the status in an envelope, in bytes.
const STATUS: usize = core::mem::offset_of!(Envelope, status);
/// A status byte that no device writes (5.2.6: 0 to 2).
const NO_STATUS: u8 = 0xff;

/// A block device.
pub struct Blk<T: Transport, D: Dma + Clone> {
    link: Link<T, Request<D>, D>,
    /// By token: what a request carries beside its data. Kept as long as the
    /// device may write into it.
    envelopes: ManuallyDrop<DmaRegion<D>>,
    info: Info,
    dma: D,
}

/// What a block device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Capacity in sectors of 512 bytes.
    pub capacity: u64,
    /// Block size in bytes: the unit that the device prefers (5.2.4).
    pub block_size: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The most bytes in one request's data.
    pub max_data: u32,
}

/// What a request asks for. It owns its buffer until the device is done.
#[derive(Debug)]
pub enum Request<D: Dma> {
    /// Fill the buffer, a multiple of 512 bytes, from `sector` on.
    Read {
        /// First sector.
        sector: u64,
        /// Where the data goes.
        buffer: DmaRegion<D>,
    },
    /// Write the buffer, a multiple of 512 bytes, from `sector` on.
    Write {
        /// First sector.
        sector: u64,
        /// What is written.
        buffer: DmaRegion<D>,
    },
    /// Make finished writes durable.
    Flush,
    /// Fill the buffer, of 20 bytes, with the device's ID: ASCII, padded with
    /// zeros.
    DeviceId {
        /// Where the ID goes.
        buffer: DmaRegion<D>,
    },
}

impl<D: Dma> Request<D> {
    /// The buffer that comes with the request, if one does.
    pub fn into_buffer(self) -> Option<DmaRegion<D>> {
        match self {
            Self::Read { buffer, .. } | Self::Write { buffer, .. } | Self::DeviceId { buffer } => {
                Some(buffer)
            }
            Self::Flush => None,
        }
    }
}

/// A request that the device has finished.
#[derive(Debug)]
pub struct Completion<D: Dma> {
    /// Which.
    pub token: Token,
    /// The request, with its buffer.
    pub request: Request<D>,
    /// Whether it succeeded. Data of a failed read may not be trusted.
    pub result: Result<(), DeviceError>,
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
    /// Brings the device up.
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
        let own = Features::from(F::RO | F::FLUSH | F::BLK_SIZE | F::SIZE_MAX);
        let init = Init::begin(transport, setup.features | own, Features::empty(), wait)?;
        let accepted = init.features();
        let plan = |_| Plan {
            index: 0,
            size: setup.queue_size,
            buffers: BUFFERS,
        };
        let (link, (envelopes, info)) =
            Link::open(init, 1, plan, setup, dma.clone(), |transport, sizes| {
                let info = Info::read(transport, accepted)?;
                let len = usize::from(sizes[0]) * ENVELOPE;
                Ok((DmaRegion::new(dma.clone(), len, ENVELOPE)?, info))
            })?;
        Ok(Self {
            link,
            envelopes: ManuallyDrop::new(envelopes),
            info,
            dma,
        })
    }

    /// What the device says of itself.
    pub fn info(&self) -> Info {
        self.info
    }

    /// Makes a request available. The doorbell is for the caller to ring, once
    /// for a batch: `queue(0).kick()`.
    ///
    /// # Errors
    ///
    /// The request comes back with what is wrong with it, with
    /// [`DeviceError::Queue`] if the queue is full, or if the device was given
    /// up.
    pub fn submit(&mut self, request: Request<D>) -> Result<Token, (DeviceError, Request<D>)> {
        let (kind, sector, data) = match self.check(&request) {
            Ok(checked) => checked,
            Err(error) => return Err((error, request)),
        };
        let next = match self.link.queue(0).next_token() {
            Ok(token) => token,
            Err(error) => return Err((error.into(), request)),
        };
        let header = Header {
            kind: kind.into(),
            reserved: 0.into(),
            sector: sector.into(),
        };
        let at = self.envelope(next).cast::<Envelope>();
        // SAFETY: inside the region, aligned, and no request's in flight.
        unsafe {
            at.write_volatile(Envelope {
                header,
                status: NO_STATUS,
            })
        };
        let address = self.envelopes.address() + (next.index() * ENVELOPE) as u64;
        let header = Buffer::readable(address, size_of::<Header>() as u32);
        let status = Buffer::writable(address + STATUS as u64, 1);
        let chain = [header, data.unwrap_or(status), status];
        let used = if data.is_some() { 3 } else { 2 };
        // SAFETY: the data is the request's own; the envelope belongs to the
        // token, and its memory goes only after the device was reset (`drop`).
        unsafe { self.link.submit(0, &chain[..used], request) }
            .map_err(|(error, request)| (error.into(), request))
    }

    /// The envelope that goes with a token. The device may be writing into its
    /// neighbours, so it is accessed by pointer only.
    fn envelope(&self, token: Token) -> NonNull<u8> {
        // SAFETY: the region has an envelope for each token of the queue.
        unsafe { self.envelopes.pointer().add(token.index() * ENVELOPE) }
    }

    /// The request's type, sector and data, if the device can take it.
    fn check(&self, request: &Request<D>) -> Result<(u32, u64, Option<Buffer>), DeviceError> {
        let Info {
            capacity,
            read_only,
            max_data,
            ..
        } = self.info;
        let sectors = |sector: u64, buffer: &DmaRegion<D>| {
            check_len(buffer.len(), SECTOR, max_data as usize)?;
            let count = (buffer.len() / SECTOR) as u64;
            match sector.checked_add(count) {
                Some(end) if end <= capacity => Ok(buffer.len() as u32),
                _ => Err(DeviceError::OutOfRange {
                    sector,
                    count,
                    capacity,
                }),
            }
        };
        Ok(match request {
            Request::Read { sector, buffer } => {
                let len = sectors(*sector, buffer)?;
                (
                    request_type::IN,
                    *sector,
                    Some(Buffer::writable(buffer.address(), len)),
                )
            }
            Request::Write { .. } if read_only => return Err(DeviceError::ReadOnly),
            Request::Write { sector, buffer } => {
                let len = sectors(*sector, buffer)?;
                (
                    request_type::OUT,
                    *sector,
                    Some(Buffer::readable(buffer.address(), len)),
                )
            }
            // A flush is for a device that said it has something to flush
            // (5.2.6.1).
            Request::Flush if !self.features().contains(F::FLUSH.into()) => {
                return Err(DeviceError::Unsupported);
            }
            Request::Flush => (request_type::FLUSH, 0, None),
            Request::DeviceId { buffer } => {
                check_len(buffer.len(), ID_LEN, ID_LEN)?;
                (
                    request_type::GET_ID,
                    0,
                    Some(Buffer::writable(buffer.address(), ID_LEN as u32)),
                )
            }
        })
    }

    /// Takes back a request that the device has finished, if there is one.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Queue`] after a device's fault; a request's own failure is
    /// in its [`Completion`]. After [`DeviceError::BadAnswer`] there the device is
    /// given up.
    pub fn poll(&mut self) -> Result<Option<Completion<D>>, DeviceError> {
        Ok(self.link.pop(0)?.map(|back| self.complete(back)))
    }

    /// Reads the device's answer to a request.
    fn complete(&mut self, back: Back<Request<D>>) -> Completion<D> {
        let Back {
            token,
            request,
            written,
        } = back;
        let result = match written {
            None => Err(DeviceError::Aborted),
            Some(written) => self.answer(token, &request, written),
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

    /// What the device says of a request that it has finished.
    fn answer(&self, token: Token, request: &Request<D>, written: u32) -> Result<(), DeviceError> {
        // SAFETY: inside the region; the device wrote it before the used index
        // that `pop` acquired, and does not write it any more.
        let status = unsafe { self.envelope(token).add(STATUS).read_volatile() };
        match status {
            // 5.2.6.3: the length that a legacy device reports says nothing.
            0 if !self.features().contains(Features::VERSION_1) => Ok(()),
            0 => check_written(request, written),
            1 => Err(DeviceError::Io),
            2 => Err(DeviceError::Unsupported),
            status => Err(DeviceError::BadAnswer { status, written }),
        }
    }

    /// Submits one request and waits for it; no other may be in flight.
    fn perform(
        &mut self,
        request: Request<D>,
        wait: &mut dyn Wait,
    ) -> Result<Option<DmaRegion<D>>, DeviceError> {
        super::check_idle(&self.link.queue(0))?;
        self.submit(request).map_err(|(error, _)| error)?;
        self.link.queue(0).kick();
        let back = self.link.wait(0, wait)?;
        let done = self.complete(back);
        done.result.map(|()| done.request.into_buffer())
    }

    /// The most that a blocking call moves in one request.
    fn chunk(&self) -> usize {
        BLOCKING_CHUNK.min(self.info.max_data as usize)
    }

    /// Reads `into`, a multiple of 512 bytes, from `sector` on, and waits for it.
    /// No other request may be in flight. The data is copied;
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
        check_len(into.len(), SECTOR, usize::MAX)?;
        for chunk in into.chunks_mut(self.chunk()) {
            let buffer = DmaRegion::new(self.dma.clone(), chunk.len(), SECTOR)?;
            if let Some(buffer) = self.perform(Request::Read { sector, buffer }, wait)? {
                chunk.copy_from_slice(&buffer);
            }
            sector = sector.saturating_add((chunk.len() / SECTOR) as u64);
        }
        Ok(())
    }

    /// Writes `from`, a multiple of 512 bytes, from `sector` on, and waits for
    /// it. No other request may be in flight. The data is copied.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn write(
        &mut self,
        mut sector: u64,
        from: &[u8],
        wait: &mut dyn Wait,
    ) -> Result<(), DeviceError> {
        check_len(from.len(), SECTOR, usize::MAX)?;
        for chunk in from.chunks(self.chunk()) {
            let mut buffer = DmaRegion::new(self.dma.clone(), chunk.len(), SECTOR)?;
            buffer.copy_from_slice(chunk);
            self.perform(Request::Write { sector, buffer }, wait)?;
            sector = sector.saturating_add((chunk.len() / SECTOR) as u64);
        }
        Ok(())
    }

    /// Makes finished writes durable, and waits for it. No other request may be
    /// in flight.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Unsupported`] if the device does not offer
    /// VIRTIO_BLK_F_FLUSH; otherwise as [`read`](Self::read).
    pub fn flush(&mut self, wait: &mut dyn Wait) -> Result<(), DeviceError> {
        self.perform(Request::Flush, wait).map(drop)
    }

    /// Reads the device's ID: up to 20 bytes, padded with zeros. No other
    /// request may be in flight.
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

impl Info {
    fn read<T: Transport>(transport: &T, features: Features) -> Result<Self, DeviceError> {
        let capacity = transport::read_config_u64(transport, config::CAPACITY)?;
        let block_size = if features.contains(F::BLK_SIZE.into()) {
            transport::read_config_u32(transport, config::BLK_SIZE, 4)?
        } else {
            SECTOR as u32
        };
        if block_size < SECTOR as u32 || !block_size.is_power_of_two() {
            return Err(DeviceError::Config {
                field: "blk_size",
                value: block_size.into(),
            });
        }
        let size_max = if features.contains(F::SIZE_MAX.into()) {
            transport::read_config_u32(transport, config::SIZE_MAX, 4)?
        } else {
            u32::MAX
        };
        let max_data = size_max - size_max % SECTOR as u32;
        if max_data == 0 {
            return Err(DeviceError::Config {
                field: "size_max",
                value: size_max.into(),
            });
        }
        let read_only = features.contains(F::RO.into());
        Ok(Self {
            capacity,
            block_size,
            read_only,
            max_data,
        })
    }
}

fn check_len(len: usize, multiple: usize, max: usize) -> Result<(), DeviceError> {
    if len > 0 && len <= max && len.is_multiple_of(multiple) {
        Ok(())
    } else {
        Err(DeviceError::BufferLength { len, multiple, max })
    }
}

/// Checks that a successful request wrote all that it owed: its data, if it is a
/// read, and the status.
fn check_written<D: Dma>(request: &Request<D>, written: u32) -> Result<(), DeviceError> {
    let owed = match request {
        Request::Read { buffer, .. } => buffer.len() + 1,
        // The ID may be shorter than its buffer.
        Request::DeviceId { .. } | Request::Write { .. } | Request::Flush => 1,
    };
    if written as usize >= owed {
        Ok(())
    } else {
        Err(DeviceError::BadAnswer { status: 0, written })
    }
}

#[cfg(test)]
pub(crate) mod disk;
#[cfg(test)]
mod tests;
