//! Reads and writes of a disk.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use doorbell::device::blk::{Blk, Request, SECTOR};
use doorbell::device::{DeviceError, Driver as _, Setup};
use doorbell::dma::{DmaRegion, PAGE_SIZE};
use doorbell::queue::QueueError;
use doorbell::transport::{QueueSize, Transport};
use doorbell::virtio::Features;

use super::{Engine, Load, Ours, Parts, Turn, parts, pump};
use crate::drive::{self, Listener};
use crate::platform::dma::KernelDma;

/// The buffers of a request: header, data, status.
const BUFFERS: usize = 3;

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Whether it is written to.
    pub write: bool,
    /// Whether blocks are taken at random; one after the other if not.
    pub random: bool,
    /// Bytes in a request.
    pub block: usize,
    /// Requests in flight, in all queues.
    pub depth: usize,
    /// Queues that take turns.
    pub queues: u16,
}

/// Which blocks are taken.
#[derive(Clone, Debug)]
pub struct Blocks {
    random: bool,
    sectors: u64,
    count: u64,
    state: u64,
}

impl Blocks {
    /// Those of a disk of `capacity` sectors.
    ///
    /// # Errors
    ///
    /// When it has none of that size.
    pub fn new(workload: &Workload, capacity: u64) -> Result<Self, String> {
        let sectors = (workload.block / SECTOR) as u64;
        let count = capacity.checked_div(sectors).unwrap_or(0);
        if count == 0 || !workload.block.is_multiple_of(SECTOR) {
            return Err(format!(
                "a disk of {capacity} sectors of {SECTOR} bytes has no blocks of {} bytes",
                workload.block
            ));
        }
        Ok(Self {
            random: workload.random,
            sectors,
            count,
            state: 1,
        })
    }

    /// The first sector of the next block.
    #[inline]
    pub fn next_sector(&mut self) -> u64 {
        let block = if self.random {
            // Knuth's MMIX generator; its upper half is random enough to spread
            // blocks over a disk.
            self.state = self
                .state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // Scaled instead of divided: a fraction of the blocks, of 32 bits.
            let blocks = u128::from(self.state >> 32) * u128::from(self.count);
            (blocks >> 32) as u64
        } else {
            self.state = if self.state >= self.count {
                0
            } else {
                self.state
            };
            let block = self.state;
            self.state += 1;
            block
        };
        block * self.sectors
    }
}

impl Load for Ours<'_, Workload> {
    fn driver(&self) -> &'static str {
        "ours"
    }

    fn depth(&self) -> usize {
        self.workload.depth
    }

    fn turn(&mut self, requests: u64) -> Result<Turn, String> {
        let depth = self.workload.depth;
        self.with(|busy, listener| pump(busy, depth, requests, listener))
    }

    fn parts(&mut self) -> Result<Parts, String> {
        let depth = self.workload.depth;
        self.with(|busy, listener| parts(busy, depth, listener))
    }
}

impl Ours<'_, Workload> {
    /// Brings the disk up, and lets `work` use it.
    fn with<R>(
        &self,
        work: impl FnOnce(&mut Busy<&mut dyn Transport>, &Listener<'_>) -> Result<R, String>,
    ) -> Result<R, String> {
        let arena = self.arena;
        let mut opened = drive::open(arena.machine, &arena.unit, arena.way, arena.mode)?;
        let listener = &opened.listener;
        let depth = self.workload.depth;
        let size = opened.transport.queue_size(0);
        let size = match size.map_err(|error| error.to_string())? {
            QueueSize::Fixed(size) | QueueSize::UpTo(size) => usize::from(size),
        };
        let mut features = arena.features;
        if arena.only_if_needed && BUFFERS * depth <= size {
            features.remove(Features::INDIRECT_DESC);
        }
        // As many as are needed with all buffers in the queue itself.
        let setup = Setup {
            queue_size: (BUFFERS * depth).next_power_of_two().min(0x8000) as u16,
            queues: self.workload.queues,
            ..listener.setup(features)
        };
        let wait = &mut listener.bring_up();
        let transport: &mut dyn Transport = &mut *opened.transport;
        let blk = Blk::new(transport, &setup, KernelDma, wait);
        let mut blk = blk.map_err(|error| error.to_string())?;
        blk.set_interrupts(listener.interrupts());
        if blk.queues() < usize::from(self.workload.queues) {
            let (has, wanted) = (blk.queues(), self.workload.queues);
            return Err(format!("the disk has {has} request queues, not {wanted}"));
        }
        let blocks = Blocks::new(&self.workload, blk.info().capacity)?;
        // Where the layout is the driver's affair, the status goes behind the data.
        let and_status = !self.workload.write && blk.features().contains(Features::VERSION_1);
        let len = self.workload.block + usize::from(and_status);
        let buffer = |_| DmaRegion::new(KernelDma, len, PAGE_SIZE);
        let spare: Result<Vec<_>, _> = (0..depth).map(buffer).collect();
        let mut busy = Busy {
            blk,
            spare: spare.map_err(|error| error.to_string())?,
            blocks,
            write: self.workload.write,
            and_status,
            next: 0,
        };
        work(&mut busy, listener)
    }
}

struct Busy<T: Transport> {
    blk: Blk<T, KernelDma>,
    spare: Vec<DmaRegion<KernelDma>>,
    blocks: Blocks,
    write: bool,
    and_status: bool,
    /// The queue of the next request.
    next: usize,
}

impl<T: Transport> Busy<T> {
    #[inline(always)]
    fn reap_from(&mut self, queue: usize) -> Result<u32, String> {
        let mut finished = 0;
        while let Some(done) = self.blk.poll_on(queue).map_err(|error| error.to_string())? {
            done.result.map_err(|error| error.to_string())?;
            self.spare.extend(done.request.into_buffer());
            finished += 1;
        }
        Ok(finished)
    }
}

impl<T: Transport> Engine for Busy<T> {
    #[inline]
    fn submit(&mut self) -> Result<bool, String> {
        let Some(buffer) = self.spare.pop() else {
            return Ok(false);
        };
        let sector = self.blocks.next_sector();
        let request = if self.write {
            Request::Write { sector, buffer }
        } else if self.and_status {
            Request::ReadAndStatus { sector, buffer }
        } else {
            Request::Read { sector, buffer }
        };
        let queue = self.next;
        self.next = if queue + 1 < self.blk.queues() {
            queue + 1
        } else {
            0
        };
        match self.blk.submit_on(queue, request) {
            Ok(_) => Ok(true),
            Err((DeviceError::Queue(QueueError::Full { .. }), request)) => {
                self.spare.extend(request.into_buffer());
                Ok(false)
            }
            Err((error, _)) => Err(error.to_string()),
        }
    }

    #[inline]
    fn reap(&mut self) -> Result<u32, String> {
        // The first by itself: where it is the only one, its number is known here.
        let mut finished = self.reap_from(0)?;
        for queue in 1..self.blk.queues() {
            finished += self.reap_from(queue)?;
        }
        Ok(finished)
    }

    fn kick(&mut self) {
        for queue in 0..self.blk.queues() {
            self.blk.queue(queue).kick();
        }
    }

    fn doorbells(&mut self) -> u64 {
        drive::doorbells(&mut self.blk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(random: bool, block: usize, capacity: u64) -> Result<Blocks, String> {
        let workload = Workload {
            write: false,
            random,
            block,
            depth: 1,
            queues: 1,
        };
        Blocks::new(&workload, capacity)
    }

    #[test]
    fn in_order_they_go_round() {
        let mut blocks = blocks(false, 1024, 7).unwrap();
        let taken = [(); 5].map(|()| blocks.next_sector());
        assert_eq!(taken, [2, 4, 0, 2, 4]);
    }

    #[test]
    fn at_random_they_are_all_over_the_disk_and_not_behind_it() {
        let mut random = blocks(true, 4096, 8 * 100).unwrap();
        let mut seen = [0; 100];
        for _ in 0..10_000 {
            let sector = random.next_sector();
            assert_eq!(sector % 8, 0);
            seen[(sector / 8) as usize] += 1;
        }
        assert!(
            seen.iter().all(|&times| (50..200).contains(&times)),
            "{seen:?}"
        );
        let mut large = blocks(true, 512, u64::MAX).unwrap();
        assert!((0..100).any(|_| large.next_sector() > u64::MAX / 2));
    }

    #[test]
    fn a_disk_without_such_blocks_is_named() {
        for (block, capacity) in [(1024, 1), (0, 8), (100, 8), (512, 0)] {
            let error = blocks(false, block, capacity).unwrap_err();
            assert!(error.contains(&capacity.to_string()), "{error}");
        }
    }
}
