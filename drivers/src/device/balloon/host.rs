//! What a balloon device does with its requests (virtio 1.2, 5.5.6), for tests.

use std::collections::BTreeSet;
use std::vec::Vec;

use super::{MAX_PAGES, PAGE};
use crate::dma::fake::FakeDma;
use crate::transport::fake::{Chain, Options};
use crate::virtio::Features;

pub(super) const MUST_TELL_HOST: Features = Features::from_bits_retain(1 << 0);
pub(super) const STATS_VQ: Features = Features::from_bits_retain(1 << 1);
pub(super) const DEFLATE_ON_OOM: Features = Features::from_bits_retain(1 << 2);

pub(super) struct Host<'d> {
    dma: &'d FakeDma,
    /// The numbers of the pages in the balloon.
    pub(super) ballooned: BTreeSet<u32>,
    /// The statistics that came last: tag and value.
    pub(super) statistics: Vec<(u16, u64)>,
    /// Whether it reports what it read as written, as legacy devices may
    /// (5.5.6.2.1).
    pub(super) reports_reads: bool,
}

impl<'d> Host<'d> {
    pub(super) fn new(dma: &'d FakeDma) -> Self {
        Self {
            dma,
            ballooned: BTreeSet::new(),
            statistics: Vec::new(),
            reports_reads: false,
        }
    }

    /// A device that wants `target` pages, with queues of 8.
    pub(super) fn options(features: Features, target: u32) -> Options {
        Options {
            device_type: 5,
            features,
            queues: [8, 8, 8].into(),
            config: [target.to_le_bytes(), [0; 4]].concat(),
            ..Options::default()
        }
    }

    /// Does what a request says; the answer is how many bytes it says it wrote.
    pub(super) fn serve(&mut self, queue: usize, chain: &Chain) -> u32 {
        assert_eq!(chain.buffers().len(), 1, "one array");
        assert_eq!(chain.writable(), 0, "the device writes nothing");
        let bytes = chain.readable();
        match queue {
            0 | 1 => self.pages(queue == 0, &bytes),
            2 => self.statistics = entries(&bytes),
            _ => panic!("there is no queue {queue}"),
        }
        if self.reports_reads {
            bytes.len() as u32
        } else {
            0
        }
    }

    fn pages(&mut self, inflate: bool, bytes: &[u8]) {
        let (numbers, rest) = bytes.as_chunks::<4>();
        assert!(rest.is_empty() && numbers.len() <= MAX_PAGES);
        for number in numbers.iter().copied().map(u32::from_le_bytes) {
            // What was freed in the balloon is found here.
            let page = self.dma.cpu_pointer(u64::from(number) * 4096, PAGE);
            if inflate {
                assert!(self.ballooned.insert(number), "page {number:#x} twice");
                // SAFETY: inside allocated memory that the driver gave up.
                unsafe { page.write_bytes(0xba, PAGE) };
            } else {
                let held = self.ballooned.remove(&number);
                assert!(held, "page {number:#x} is not in the balloon");
            }
        }
    }
}

fn entries(bytes: &[u8]) -> Vec<(u16, u64)> {
    let (entries, rest) = bytes.as_chunks::<10>();
    assert!(rest.is_empty());
    entries
        .iter()
        .map(|entry| {
            let (tag, value) = entry.split_at(2);
            (
                u16::from_le_bytes(tag.try_into().unwrap()),
                u64::from_le_bytes(value.try_into().unwrap()),
            )
        })
        .collect()
}
