//! Megabytes to a disk and back: the whole area is one path's, until the next
//! overwrites it with a seed of its own.

use alloc::format;
use alloc::vec::Vec;

use doorbell::device::blk::{Request, SECTOR};
use doorbell::dma::DmaRegion;
use doorbell_kernel::drive::Listener;
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, Stop};

use super::flight::{buffer, room, together};
use super::{Driver, check, fill, finds};
use crate::session::Session;

/// How many bytes, on a disk of at least twice as many.
const BYTES: u64 = 16 << 20;
/// How many where each instruction is emulated.
const FEW_BYTES: u64 = 64 << 10;
/// Requests in flight at once, with one doorbell.
const DEPTH: usize = 32;
/// The most bytes in a request.
const PIECE: u64 = 64 << 10;

/// The sectors, and the bytes of each of the requests that they are moved in.
struct Area {
    first: u64,
    count: u64,
    piece: usize,
}

impl Area {
    fn new(capacity: u64, bytes: u64) -> Self {
        // In the middle half of a disk there is nothing else.
        let count = (bytes / SECTOR as u64).min(capacity / 2);
        let piece = (count / DEPTH as u64).min(PIECE / SECTOR as u64);
        Self {
            first: capacity / 4,
            count: count - count % (piece * DEPTH as u64),
            piece: piece as usize * SECTOR,
        }
    }

    /// First sectors of the requests, as many as go together.
    fn batches(&self) -> impl Iterator<Item = Vec<u64>> {
        let step = self.piece / SECTOR;
        let all = (self.first..self.first + self.count).step_by(step * DEPTH);
        all.map(move |first| (first..).step_by(step).take(DEPTH).collect())
    }
}

pub(super) fn test(
    runner: &mut Runner<'_>,
    session: &Session<'_>,
    blk: &mut Driver<'_>,
    seed: u64,
) {
    if session.set != 0 {
        return;
    }
    let bytes = if session.emulated { FEW_BYTES } else { BYTES };
    let area = Area::new(blk.info().capacity, bytes);
    let name = format!("{} KiB there and back", area.count / 2);
    session.run(runner, &name, || {
        let outcome = write(blk, session.listener, &area, seed);
        session
            .witness
            .wrote(session.unit, area.first, area.count, seed);
        outcome?;
        finds(session, area.first, area.count, seed)?;
        read(blk, session.listener, &area, seed)
    });
}

fn write(blk: &mut Driver<'_>, listener: &Listener<'_>, area: &Area, seed: u64) -> Outcome {
    let mut buffers = buffers(area)?;
    for batch in area.batches() {
        let mut requests = Vec::new();
        for (sector, mut buffer) in batch.into_iter().zip(buffers.drain(..)) {
            fill(sector, seed, &mut buffer);
            requests.push(Ok(Request::Write { sector, buffer }));
        }
        for done in together(blk, listener, requests)? {
            done.result?;
            buffers.push(buffer(done)?);
        }
    }
    blk.flush(&mut listener.patience())?;
    Ok(())
}

fn read(blk: &mut Driver<'_>, listener: &Listener<'_>, area: &Area, seed: u64) -> Outcome {
    let mut buffers = buffers(area)?;
    for batch in area.batches() {
        let mut requests = Vec::new();
        for (&sector, mut buffer) in batch.iter().zip(buffers.drain(..)) {
            buffer.fill(0);
            requests.push(Ok(Request::Read { sector, buffer }));
        }
        let results = together(blk, listener, requests)?;
        for (sector, done) in batch.into_iter().zip(results) {
            done.result?;
            let buffer = buffer(done)?;
            check(sector, seed, &buffer)?;
            buffers.push(buffer);
        }
    }
    Ok(())
}

fn buffers(area: &Area) -> Result<Vec<DmaRegion<KernelDma>>, Stop> {
    (0..DEPTH).map(|_| room(area.piece)).collect()
}
