//! What a block device does with its requests (virtio 1.2, 5.2.6), for tests.

use std::vec::Vec;

use super::{ID_LEN, SECTOR};
use crate::transport::fake::{Chain, Options};
use crate::virtio::Features;

pub(crate) const SIZE_MAX: Features = Features::from_bits_retain(1 << 1);
pub(crate) const SEG_MAX: Features = Features::from_bits_retain(1 << 2);
pub(crate) const RO: Features = Features::from_bits_retain(1 << 5);
pub(crate) const BLK_SIZE: Features = Features::from_bits_retain(1 << 6);
pub(crate) const FLUSH: Features = Features::from_bits_retain(1 << 9);
pub(crate) const TOPOLOGY: Features = Features::from_bits_retain(1 << 10);
pub(crate) const CONFIG_WCE: Features = Features::from_bits_retain(1 << 11);
pub(crate) const MQ: Features = Features::from_bits_retain(1 << 12);
pub(crate) const DISCARD: Features = Features::from_bits_retain(1 << 13);
pub(crate) const WRITE_ZEROES: Features = Features::from_bits_retain(1 << 14);

pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;

pub(crate) struct Disk {
    pub(crate) data: Vec<u8>,
    pub(crate) flushes: usize,
    /// The discards and writes of zeroes that came: kind, first sector, count,
    /// flags.
    pub(crate) segments: Vec<(u32, u64, u32, u32)>,
    /// The status of all requests from now on, if it is not [`OK`].
    pub(crate) status: u8,
    /// The sectors from which on nothing can be read, and nothing written.
    pub(crate) bad: Vec<u64>,
    /// How much less it says to have written.
    pub(crate) short: u32,
    /// The most data that came in a request.
    pub(crate) largest: usize,
    /// How many requests came.
    pub(crate) served: usize,
    /// Whether it knows requests whose status is behind their data.
    pub(crate) any_layout: bool,
}

impl Disk {
    /// Sector `n` is filled with `n`.
    pub(crate) fn new(sectors: usize) -> Self {
        let data = (0..sectors)
            .flat_map(|sector| [sector as u8; SECTOR])
            .collect();
        Self {
            data,
            flushes: 0,
            segments: Vec::new(),
            status: OK,
            bad: Vec::new(),
            short: 0,
            largest: 0,
            served: 0,
            any_layout: false,
        }
    }

    /// A device with this disk behind it, that has a queue of `queue_size` and
    /// offers `features`.
    pub(crate) fn options(&self, features: Features, queue_size: u16) -> Options {
        let mut config = Vec::new();
        config.extend(((self.data.len() / SECTOR) as u64).to_le_bytes());
        for size_max_seg_max in [4096u32, 126] {
            config.extend(size_max_seg_max.to_le_bytes());
        }
        config.extend([0; 4]);
        config.extend(1024u32.to_le_bytes());
        // Topology: exponent, offset, minimum, optimum.
        config.extend([3, 1, 8, 0, 0, 1, 0, 0]);
        // Writeback, nothing, 2 queues.
        config.extend([1, 0, 2, 0]);
        for discard in [16u32, 4, 4] {
            config.extend(discard.to_le_bytes());
        }
        for write_zeroes in [10u32, 1, 1] {
            config.extend(write_zeroes.to_le_bytes());
        }
        Options {
            device_type: 2,
            features,
            queues: [queue_size].into(),
            config,
            ..Options::default()
        }
    }

    /// Does what a request says; the answer is how many bytes were written.
    pub(crate) fn serve(&mut self, chain: &Chain) -> u32 {
        let (first, last) = (chain.buffers()[0], *chain.buffers().last().unwrap());
        // 5.2.6.4: so it has to be for devices that know nothing else.
        assert_eq!(
            (first.len, first.writable),
            (16, false),
            "the header is a buffer by itself"
        );
        assert!(last.writable);
        assert!(last.len == 1 || self.any_layout, "and so is the status");
        let readable = chain.readable();
        let (header, data) = readable.split_at(16);
        let kind = u32::from_le_bytes(header[..4].try_into().unwrap());
        assert_eq!(header[4..8], [0; 4], "reserved");
        let sector = u64::from_le_bytes(header[8..].try_into().unwrap());
        let room = chain.writable() as usize - 1;
        self.largest = self.largest.max(room).max(data.len());
        self.served += 1;
        let status = match self.status {
            OK => self.perform(kind, sector, data, room, chain),
            status => status,
        };
        chain.write(room, &[status]);
        room as u32 + 1 - self.short
    }

    fn perform(&mut self, kind: u32, sector: u64, data: &[u8], room: usize, chain: &Chain) -> u8 {
        let at = sector as usize * SECTOR;
        match kind {
            0 | 1 if self.bad.contains(&sector) => return IOERR,
            0 => chain.write(0, &self.data[at..at + room]),
            1 => self.data[at..at + data.len()].copy_from_slice(data),
            4 => {
                assert_eq!(sector, 0, "a flush has no sector (5.2.6.1)");
                self.flushes += 1;
            }
            8 => {
                assert_eq!(room, ID_LEN);
                chain.write(0, b"disk zero");
            }
            11 | 13 => {
                assert_eq!((sector, room), (0, 0), "neither has a sector (5.2.6)");
                return self.segment(kind, data.try_into().expect("one segment"));
            }
            _ => return UNSUPP,
        }
        OK
    }

    /// Discards by filling with 0xdd.
    fn segment(&mut self, kind: u32, segment: &[u8; 16]) -> u8 {
        let part = |from| u32::from_le_bytes(segment[from..from + 4].try_into().unwrap());
        let sector = u64::from_le_bytes(segment[..8].try_into().unwrap());
        let (count, flags) = (part(8), part(12));
        let allowed = u32::from(kind == 13);
        if flags & !allowed != 0 {
            return UNSUPP;
        }
        if self.bad.contains(&sector) {
            return IOERR;
        }
        let (from, len) = (sector as usize * SECTOR, count as usize * SECTOR);
        let filling = if kind == 13 { 0 } else { 0xdd };
        self.data[from..from + len].fill(filling);
        self.segments.push((kind, sector, count, flags));
        OK
    }
}
