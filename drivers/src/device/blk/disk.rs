//! What a block device does with its requests (virtio 1.2, 5.2.6), for tests.

use std::vec::Vec;

use super::{ID_LEN, SECTOR};
use crate::transport::fake::{Chain, Options};
use crate::virtio::Features;

pub(crate) const SIZE_MAX: Features = Features::from_bits_retain(1 << 1);
pub(crate) const RO: Features = Features::from_bits_retain(1 << 5);
pub(crate) const BLK_SIZE: Features = Features::from_bits_retain(1 << 6);
pub(crate) const FLUSH: Features = Features::from_bits_retain(1 << 9);

pub(crate) struct Disk {
    pub(crate) data: Vec<u8>,
    pub(crate) flushes: usize,
    /// The status of all requests from now on.
    pub(crate) status: u8,
    /// How much less it says to have written.
    pub(crate) short: u32,
    /// The most data that came in a request.
    pub(crate) largest: usize,
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
            status: 0,
            short: 0,
            largest: 0,
        }
    }

    /// A device with this disk behind it, that has a queue of `queue_size` and
    /// offers `features`.
    pub(crate) fn options(&self, features: Features, queue_size: u16) -> Options {
        let mut config = Vec::from([0; 60]);
        config[..8].copy_from_slice(&((self.data.len() / SECTOR) as u64).to_le_bytes());
        config[8..12].copy_from_slice(&4096u32.to_le_bytes());
        config[20..24].copy_from_slice(&1024u32.to_le_bytes());
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
        assert_eq!((last.len, last.writable), (1, true), "and so is the status");
        let readable = chain.readable();
        let (header, data) = readable.split_at(16);
        let kind = u32::from_le_bytes(header[..4].try_into().unwrap());
        assert_eq!(header[4..8], [0; 4], "reserved");
        let sector = u64::from_le_bytes(header[8..].try_into().unwrap()) as usize;
        let room = chain.writable() as usize - 1;
        self.largest = self.largest.max(room).max(data.len());
        let at = sector * SECTOR;
        if self.status == 0 {
            match kind {
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
                _ => chain.write(room, &[2]),
            }
        }
        chain.write(room, &[self.status]);
        room as u32 + 1 - self.short
    }
}
