//! What a block device says of itself (virtio 1.2, 5.2.4), and what requests it
//! takes by that.

use virtio_spec::blk::F;

use super::SECTOR;
use crate::device::{DeviceError, check_len};
use crate::transport::{self, Transport, TransportError};
use crate::virtio::Features;

/// Offsets in `struct virtio_blk_config` (5.2.4).
mod offset {
    pub(super) const CAPACITY: u16 = 0;
    pub(super) const SIZE_MAX: u16 = 8;
    pub(super) const SEG_MAX: u16 = 12;
    pub(super) const BLK_SIZE: u16 = 20;
    pub(super) const PHYSICAL_BLOCK_EXP: u16 = 24;
    pub(super) const ALIGNMENT_OFFSET: u16 = 25;
    pub(super) const MIN_IO_SIZE: u16 = 26;
    pub(super) const OPT_IO_SIZE: u16 = 28;
    pub(super) const WRITEBACK: u16 = 32;
    pub(super) const NUM_QUEUES: u16 = 34;
    pub(super) const MAX_DISCARD_SECTORS: u16 = 36;
    pub(super) const MAX_DISCARD_SEG: u16 = 40;
    pub(super) const DISCARD_SECTOR_ALIGNMENT: u16 = 44;
    pub(super) const MAX_WRITE_ZEROES_SECTORS: u16 = 48;
    pub(super) const MAX_WRITE_ZEROES_SEG: u16 = 52;
    pub(super) const WRITE_ZEROES_MAY_UNMAP: u16 = 56;
}

/// What a block device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Capacity in sectors of 512 bytes.
    pub capacity: u64,
    /// Block size in bytes: requests are whole blocks. The specification has it as
    /// what the device prefers (5.2.5); devices fail less.
    pub block_size: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The most bytes in one request's data: whole blocks.
    pub max_data: u32,
    /// Whether the device knows [`Request::Flush`](super::Request::Flush).
    pub flush: bool,
    /// Whether finished writes may be lost until they are flushed (5.2.5.1).
    pub writeback: bool,
    /// How many request queues the device has: at least 1.
    pub queues: u16,
    /// What is under the blocks, if the device says so.
    pub topology: Option<Topology>,
    /// What it takes to discard, if the device does.
    pub discard: Option<DiscardLimits>,
    /// What it takes to write zeroes, if the device does.
    pub write_zeroes: Option<WriteZeroesLimits>,
}

/// What is under a device's blocks (VIRTIO_BLK_F_TOPOLOGY): hints on performance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Blocks in a physical block, as a power of two: at most 31.
    pub physical_block_exp: u8,
    /// Block at which the first physical block starts.
    pub alignment_offset: u8,
    /// Blocks that a request should at least have.
    pub min_io_size: u16,
    /// Blocks that a request should at most have; 0 for no such wish.
    pub opt_io_size: u32,
}

/// What it takes to discard (VIRTIO_BLK_F_DISCARD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardLimits {
    /// The most sectors in a request: whole blocks.
    pub max_sectors: u32,
    /// The most segments in a request, of which one is used.
    pub max_segments: u32,
    /// Multiple of sectors at which a longer discard is best split: whole blocks.
    pub alignment: u32,
}

/// What it takes to write zeroes (VIRTIO_BLK_F_WRITE_ZEROES).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteZeroesLimits {
    /// The most sectors in a request: whole blocks.
    pub max_sectors: u32,
    /// The most segments in a request, of which one is used.
    pub max_segments: u32,
    /// Whether the device may give the sectors' storage up, where it is allowed to.
    pub may_unmap: bool,
}

/// The fields as they were read; what was not negotiated as if it limited nothing.
#[derive(PartialEq)]
struct Raw {
    capacity: [u8; 8],
    size_max: u32,
    seg_max: u32,
    blk_size: u32,
    topology: Topology,
    writeback: u32,
    num_queues: u32,
    /// `max_discard_sectors`, `max_discard_seg`, `discard_sector_alignment`.
    discard: [u32; 3],
    /// `max_write_zeroes_sectors`, `max_write_zeroes_seg`,
    /// `write_zeroes_may_unmap`.
    write_zeroes: [u32; 3],
}

impl Raw {
    fn read<T: Transport>(transport: &T, features: Features) -> Result<Self, TransportError> {
        let field = |feature: F, offset, width, without: u32| {
            if features.contains(feature.into()) {
                transport::read_config_u32(transport, offset, width)
            } else {
                Ok(without)
            }
        };
        let mut capacity = [0; 8];
        transport.read_config(offset::CAPACITY, 4, &mut capacity)?;
        Ok(Self {
            capacity,
            size_max: field(F::SIZE_MAX, offset::SIZE_MAX, 4, u32::MAX)?,
            seg_max: field(F::SEG_MAX, offset::SEG_MAX, 4, 1)?,
            blk_size: field(F::BLK_SIZE, offset::BLK_SIZE, 4, SECTOR as u32)?,
            // As wide as the fields are.
            topology: Topology {
                physical_block_exp: field(F::TOPOLOGY, offset::PHYSICAL_BLOCK_EXP, 1, 0)? as u8,
                alignment_offset: field(F::TOPOLOGY, offset::ALIGNMENT_OFFSET, 1, 0)? as u8,
                min_io_size: field(F::TOPOLOGY, offset::MIN_IO_SIZE, 2, 0)? as u16,
                opt_io_size: field(F::TOPOLOGY, offset::OPT_IO_SIZE, 4, 0)?,
            },
            // 5.2.5.1: a device that has something to flush has a cache.
            writeback: field(
                F::CONFIG_WCE,
                offset::WRITEBACK,
                1,
                features.contains(F::FLUSH.into()).into(),
            )?,
            num_queues: field(F::MQ, offset::NUM_QUEUES, 2, 1)?,
            discard: [
                field(F::DISCARD, offset::MAX_DISCARD_SECTORS, 4, 0)?,
                field(F::DISCARD, offset::MAX_DISCARD_SEG, 4, 0)?,
                field(F::DISCARD, offset::DISCARD_SECTOR_ALIGNMENT, 4, 0)?,
            ],
            write_zeroes: [
                field(F::WRITE_ZEROES, offset::MAX_WRITE_ZEROES_SECTORS, 4, 0)?,
                field(F::WRITE_ZEROES, offset::MAX_WRITE_ZEROES_SEG, 4, 0)?,
                field(F::WRITE_ZEROES, offset::WRITE_ZEROES_MAY_UNMAP, 1, 0)?,
            ],
        })
    }
}

/// A configuration field that makes no sense.
fn wrong(field: &'static str, value: u32) -> DeviceError {
    DeviceError::Config {
        field,
        value: value.into(),
    }
}

/// `value` as a whole number of `unit`s, of which it has to hold one at least.
fn whole(field: &'static str, value: u32, unit: u32) -> Result<u32, DeviceError> {
    match value - value % unit {
        0 => Err(wrong(field, value)),
        whole => Ok(whole),
    }
}

impl Info {
    /// Reads the configuration, untorn.
    pub(super) fn read<T: Transport>(
        transport: &T,
        features: Features,
    ) -> Result<Self, DeviceError> {
        let read = |transport: &T| Raw::read(transport, features);
        let raw = transport::read_config_untorn(transport, offset::CAPACITY, read)?;
        Self::check(&raw, features)
    }

    fn check(raw: &Raw, features: Features) -> Result<Self, DeviceError> {
        let has = |feature: F| features.contains(feature.into());
        let block_size = raw.blk_size;
        if block_size < SECTOR as u32 || !block_size.is_power_of_two() {
            return Err(wrong("blk_size", block_size));
        }
        // More would not fit 64 bits.
        if raw.topology.physical_block_exp > 31 {
            let value = raw.topology.physical_block_exp.into();
            return Err(wrong("physical_block_exp", value));
        }
        if raw.writeback > 1 {
            return Err(wrong("writeback", raw.writeback));
        }
        whole("seg_max", raw.seg_max, 1)?;
        let block = block_size / SECTOR as u32;
        let [max_sectors, max_segments, alignment] = raw.discard;
        let discard = DiscardLimits {
            max_sectors,
            max_segments,
            // One that would split blocks is of no use.
            alignment: match alignment {
                0 => block,
                alignment if alignment.is_multiple_of(block) => alignment,
                _ => block,
            },
        };
        let [max_sectors, max_segments, may_unmap] = raw.write_zeroes;
        let write_zeroes = WriteZeroesLimits {
            max_sectors,
            max_segments,
            may_unmap: may_unmap != 0,
        };
        Ok(Self {
            capacity: u64::from_le_bytes(raw.capacity),
            block_size,
            read_only: has(F::RO),
            max_data: whole("size_max", raw.size_max, block_size)?,
            flush: has(F::FLUSH),
            writeback: raw.writeback == 1,
            queues: whole("num_queues", raw.num_queues, 1)? as u16,
            topology: has(F::TOPOLOGY).then_some(raw.topology),
            discard: match has(F::DISCARD) {
                true => Some(discard.checked(block)?),
                false => None,
            },
            write_zeroes: match has(F::WRITE_ZEROES) {
                true => Some(write_zeroes.checked(block)?),
                false => None,
            },
        })
    }

    /// Sectors in a block.
    fn block_sectors(&self) -> u64 {
        u64::from(self.block_size) / SECTOR as u64
    }

    /// Checks that `count` sectors from `sector` on are whole blocks of this
    /// device.
    pub(super) fn check_sectors(&self, sector: u64, count: u64) -> Result<(), DeviceError> {
        let block = self.block_sectors();
        if count == 0 || !sector.is_multiple_of(block) || !count.is_multiple_of(block) {
            return Err(DeviceError::NotBlocks {
                sector,
                count,
                block_size: self.block_size,
            });
        }
        match sector.checked_add(count) {
            Some(end) if end <= self.capacity => Ok(()),
            _ => Err(DeviceError::OutOfRange {
                sector,
                count,
                capacity: self.capacity,
            }),
        }
    }

    /// As [`check_sectors`](Self::check_sectors), for a buffer of `len` bytes, of
    /// which there may be `max`.
    pub(super) fn check_data(
        &self,
        sector: u64,
        len: usize,
        max: usize,
    ) -> Result<(), DeviceError> {
        check_len(len, self.block_size as usize, max)?;
        self.check_sectors(sector, (len / SECTOR) as u64)
    }

    /// Checks that the device can be written to.
    pub(super) fn check_writable(&self) -> Result<(), DeviceError> {
        if self.read_only {
            Err(DeviceError::ReadOnly)
        } else {
            Ok(())
        }
    }

    /// What it takes to discard, if the device does.
    pub(super) fn discards(&self) -> Result<DiscardLimits, DeviceError> {
        self.check_writable()?;
        self.discard.ok_or(DeviceError::Unsupported)
    }

    /// What it takes to write zeroes, if the device does.
    pub(super) fn writes_zeroes(&self) -> Result<WriteZeroesLimits, DeviceError> {
        self.check_writable()?;
        self.write_zeroes.ok_or(DeviceError::Unsupported)
    }
}

impl DiscardLimits {
    fn checked(self, block: u32) -> Result<Self, DeviceError> {
        whole("max_discard_seg", self.max_segments, 1)?;
        let max_sectors = whole("max_discard_sectors", self.max_sectors, block)?;
        Ok(Self {
            max_sectors,
            ..self
        })
    }
}

impl WriteZeroesLimits {
    fn checked(self, block: u32) -> Result<Self, DeviceError> {
        whole("max_write_zeroes_seg", self.max_segments, 1)?;
        let max_sectors = whole("max_write_zeroes_sectors", self.max_sectors, block)?;
        Ok(Self {
            max_sectors,
            ..self
        })
    }
}

/// Writes the field `writeback` (5.2.5).
pub(super) fn write_writeback<T: Transport>(
    transport: &mut T,
    writeback: bool,
) -> Result<(), TransportError> {
    transport.write_config(offset::WRITEBACK, 1, &[writeback.into()])
}
