//! Block requests (virtio 1.2, 5.2.6): what the caller asks for, what the device
//! gets of it, and what it answers.

use virtio_spec::blk::{DiscardWriteZeroes, DiscardWriteZeroesFlags, S, T};
use virtio_spec::{le32, le64};

use super::Info;
use crate::device::slots::Slot;
use crate::device::{DeviceError, check_len};
use crate::dma::{Dma, DmaRegion};
use crate::queue::{Buffer, Token};

/// Bytes in a device ID (VIRTIO_BLK_T_GET_ID, 5.2.6).
pub const ID_LEN: usize = 20;

/// A request takes three buffers: header, data, status.
pub(super) const BUFFERS: u16 = 3;

/// What a request asks for. It owns its buffer until the device is done. Sectors
/// have 512 bytes; a request takes whole blocks of the device.
#[derive(Debug)]
pub enum Request<D: Dma> {
    /// Fill the buffer from `sector` on.
    Read {
        /// First sector.
        sector: u64,
        /// Where the data goes.
        buffer: DmaRegion<D>,
    },
    /// As [`Read`](Self::Read), into a buffer that is one byte longer than what is read:
    /// its last byte takes the device's status, so that the device has a buffer less to
    /// look at. That needs a device that leaves the layout of a request to the driver
    /// (2.7.4): of version 1, or with `VIRTIO_F_ANY_LAYOUT`.
    ReadAndStatus {
        /// First sector.
        sector: u64,
        /// Where the data goes, and a byte more.
        buffer: DmaRegion<D>,
    },
    /// Write the buffer from `sector` on.
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
    /// Say that what the sectors hold is not needed: nobody knows what they read
    /// as afterwards.
    Discard {
        /// First sector.
        sector: u64,
        /// How many.
        count: u32,
    },
    /// Fill the sectors with zeroes.
    WriteZeroes {
        /// First sector.
        sector: u64,
        /// How many.
        count: u32,
        /// Whether the device may give up their storage: it does not if it did not
        /// say that it may ([`WriteZeroesLimits::may_unmap`](super::WriteZeroesLimits)).
        unmap: bool,
    },
}

/// A request that the device has finished.
#[derive(Debug)]
pub struct Completion<D: Dma> {
    /// Which, of those of its queue.
    pub token: Token,
    /// The request, with its buffer.
    pub request: Request<D>,
    /// Whether it succeeded. Data of a failed read may not be trusted.
    pub result: Result<(), DeviceError>,
}

/// What a request carries beside its data (5.2.6): `struct virtio_blk_req`
/// without the data, or with the one segment of a discard or a write of zeroes.
#[repr(C)]
struct Envelope {
    header: Header,
    segment: DiscardWriteZeroes,
    status: u8,
}

/// The part of it that the device reads.
#[repr(C)]
struct Header {
    kind: le32,
    reserved: le32,
    sector: le64,
}

/// Bytes that an envelope gets.
pub(super) const ENVELOPE: usize = size_of::<Envelope>().next_power_of_two();
/// Offset of the segment in an envelope, in bytes.
const SEGMENT: usize = core::mem::offset_of!(Envelope, segment);
/// Offset of the status in an envelope, in bytes.
const STATUS: usize = core::mem::offset_of!(Envelope, status);
/// A status byte that no device writes.
const NO_STATUS: u8 = 0xff;

/// A request that the device can take.
pub(super) struct Order {
    kind: T,
    sector: u64,
    data: Data,
}

/// Where its data is.
enum Data {
    None,
    Buffer(Buffer),
    /// With the status behind it.
    AndStatus(Buffer),
    /// In its envelope.
    Segment(DiscardWriteZeroes),
}

impl<D: Dma> Request<D> {
    /// The buffer that comes with the request, if one does.
    pub fn into_buffer(self) -> Option<DmaRegion<D>> {
        match self {
            Self::Read { buffer, .. }
            | Self::ReadAndStatus { buffer, .. }
            | Self::Write { buffer, .. }
            | Self::DeviceId { buffer } => Some(buffer),
            Self::Flush | Self::Discard { .. } | Self::WriteZeroes { .. } => None,
        }
    }

    /// What the device gets, if it can take it. With `any_layout` it takes a request's
    /// parts in any buffers.
    #[inline(always)]
    pub(super) fn order(&self, info: &Info, any_layout: bool) -> Result<Order, DeviceError> {
        let max = info.max_data as usize;
        let (kind, sector, data) = match *self {
            Self::Read { sector, ref buffer } => {
                info.check_data(sector, buffer.len(), max)?;
                let data = Buffer::writable(buffer.address(), buffer.len() as u32);
                (T::In, sector, Data::Buffer(data))
            }
            Self::ReadAndStatus { sector, ref buffer } => {
                if !any_layout {
                    return Err(DeviceError::Unsupported);
                }
                // One segment is no longer than before (5.2.4, `size_max`).
                let len = buffer.len().saturating_sub(1);
                info.check_data(sector, len, max.saturating_sub(1))?;
                // SAFETY: the buffer's last byte; the request owns it.
                unsafe { buffer.pointer().add(len).write_volatile(NO_STATUS) };
                let data = Buffer::writable(buffer.address(), buffer.len() as u32);
                (T::In, sector, Data::AndStatus(data))
            }
            Self::Write { sector, ref buffer } => {
                info.check_writable()?;
                info.check_data(sector, buffer.len(), max)?;
                let data = Buffer::readable(buffer.address(), buffer.len() as u32);
                (T::Out, sector, Data::Buffer(data))
            }
            // A flush is for a device that said it has something to flush
            // (5.2.6.1).
            Self::Flush if !info.flush => return Err(DeviceError::Unsupported),
            Self::Flush => (T::Flush, 0, Data::None),
            Self::DeviceId { ref buffer } => {
                check_len(buffer.len(), ID_LEN, ID_LEN)?;
                let data = Buffer::writable(buffer.address(), ID_LEN as u32);
                (T::GetId, 0, Data::Buffer(data))
            }
            Self::Discard { sector, count } => {
                let limit = info.discards()?.max_sectors;
                let segment = segment(info, sector, count, ("max_discard_sectors", limit), false);
                (T::Discard, 0, Data::Segment(segment?))
            }
            Self::WriteZeroes {
                sector,
                count,
                unmap,
            } => {
                let limits = info.writes_zeroes()?;
                let limit = ("max_write_zeroes_sectors", limits.max_sectors);
                // It only permits: so it says nothing to a device that never does.
                let unmap = unmap && limits.may_unmap;
                let segment = segment(info, sector, count, limit, unmap);
                (T::WriteZeroes, 0, Data::Segment(segment?))
            }
        };
        Ok(Order { kind, sector, data })
    }

    /// The status that the device wrote.
    ///
    /// # Safety
    ///
    /// The slot is this request's envelope; the device has finished with both.
    #[inline(always)]
    pub(super) unsafe fn status(&self, slot: Slot) -> u8 {
        match self {
            // It was submitted with at least that byte.
            Self::ReadAndStatus { buffer, .. } => buffer.last().copied().unwrap_or(NO_STATUS),
            // SAFETY: the caller's promise.
            _ => unsafe { slot.pointer.add(STATUS).read_volatile() },
        }
    }

    /// What the device says of a request that it has finished.
    #[inline(always)]
    pub(super) fn answer(
        &self,
        status: u8,
        written: u32,
        is_legacy: bool,
    ) -> Result<(), DeviceError> {
        match S::try_from(status) {
            // 5.2.6.3: the length that a legacy device reports says nothing.
            Ok(S::Ok) if is_legacy || written as usize >= self.owed() => Ok(()),
            Ok(S::Ioerr) => Err(DeviceError::Io),
            Ok(S::Unsupp) => Err(DeviceError::Unsupported),
            _ => Err(DeviceError::BadAnswer { status, written }),
        }
    }

    /// How many bytes a device writes that succeeds: the data, if it is a read,
    /// and the status.
    fn owed(&self) -> usize {
        match self {
            Self::Read { buffer, .. } => buffer.len() + 1,
            Self::ReadAndStatus { buffer, .. } => buffer.len(),
            // The ID may be shorter than its buffer.
            Self::DeviceId { .. }
            | Self::Write { .. }
            | Self::Flush
            | Self::Discard { .. }
            | Self::WriteZeroes { .. } => 1,
        }
    }
}

/// The segment of a discard or a write of zeroes.
fn segment(
    info: &Info,
    sector: u64,
    count: u32,
    (field, max): (&'static str, u32),
    unmap: bool,
) -> Result<DiscardWriteZeroes, DeviceError> {
    info.check_sectors(sector, count.into())?;
    if count > max {
        return Err(DeviceError::Limit {
            field,
            value: count.into(),
            max: max.into(),
        });
    }
    Ok(DiscardWriteZeroes {
        sector: sector.into(),
        num_sectors: count.into(),
        flags: DiscardWriteZeroesFlags::new().with_unmap(unmap).into(),
    })
}

impl Order {
    /// Writes the envelope. The answer is the request's buffers, and how many of
    /// them there are.
    ///
    /// # Safety
    ///
    /// The slot is an envelope, and the device is not accessing it.
    #[inline(always)]
    pub(super) unsafe fn write(self, slot: Slot) -> ([Buffer; BUFFERS as usize], usize) {
        let header = Buffer::readable(slot.address, size_of::<Header>() as u32);
        let status = Buffer::writable(slot.address + STATUS as u64, 1);
        let envelope = slot.pointer.cast::<Envelope>().as_ptr();
        // SAFETY: the caller's promise; slots of that size are aligned.
        unsafe {
            let to = &raw mut (*envelope).header;
            (&raw mut (*to).kind).write_volatile(u32::from(self.kind).into());
            (&raw mut (*to).reserved).write_volatile(0.into());
            (&raw mut (*to).sector).write_volatile(self.sector.into());
            (&raw mut (*envelope).status).write_volatile(NO_STATUS);
        }
        match self.data {
            Data::None => ([header, status, status], 2),
            Data::Buffer(data) => ([header, data, status], 3),
            Data::AndStatus(data) => ([header, data, data], 2),
            Data::Segment(segment) => {
                // SAFETY: as above.
                unsafe { (&raw mut (*envelope).segment).write_volatile(segment) };
                let address = slot.address + SEGMENT as u64;
                let len = size_of::<DiscardWriteZeroes>() as u32;
                ([header, Buffer::readable(address, len), status], 3)
            }
        }
    }
}
