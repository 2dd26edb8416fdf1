//! Block devices, over one path at a time. The host wrote a pattern to the disk
//! and knows where this writes another. A disk says by its ID what it is for, and
//! so what it is tested for.

use alloc::vec;
use alloc::vec::Vec;

use doorbell::device::blk::{Blk, ID_LEN, SECTOR};
use doorbell::device::{DeviceError, Setup};
use doorbell::transport::Transport;
use doorbell::transport::pci_modern::NotifyChoice;
use doorbell_kernel::drive::{Listener, Mode, Way};
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, Stop, ensure};

use self::flight::together;
use crate::pattern;
use crate::session::{SETS, Session};

mod bulk;
mod faults;
mod flight;
mod limits;
mod queues;
mod resize;
mod zeroes;

/// Seed of what the host wrote all over the disk.
pub(crate) const HOST_SEED: u64 = 0xD00D_BE11_D00D_BE11;

/// Seed of what this writes, so that no two runs of it write the same.
const GUEST_SEED: u64 = 0x0123_4567_89AB_CDEF;

/// The queue that is asked for, where there is a choice.
const QUEUE_SIZE: u16 = 64;

/// The most queues that are asked for, where a way rings several: what the disk has
/// that has more than one.
const QUEUES: u16 = 4;

/// Requests in flight at once, of a queue.
const DEPTH: usize = 16;

type Driver<'t> = Blk<&'t mut dyn Transport, KernelDma>;

/// Fills a buffer with what `seed` has from a sector on.
fn fill(sector: u64, seed: u64, into: &mut [u8]) {
    pattern::fill(sector * SECTOR as u64, seed, into);
}

/// Checks that `data`, read from `sector` on, is what `seed` has there.
fn check(sector: u64, seed: u64, data: &[u8]) -> Outcome {
    pattern::check(sector * SECTOR as u64, seed, data)
}

/// Each path writes to its own part of the disk, and each set of features to its
/// own part of that. Each mode has a seed of its own there.
struct Area {
    first: u64,
    seed: u64,
}

/// Sectors in an area.
const AREA: u64 = 64;

impl Area {
    fn of(session: &Session<'_>) -> Self {
        let number = way_number(session.way) * SETS.len() as u64 + session.set as u64;
        let modes = Mode::ALL.into_iter();
        let mode = modes.take_while(|mode| *mode != session.listener.mode());
        let run = number * Mode::ALL.len() as u64 + mode.count() as u64;
        Self {
            first: 1024 + number * AREA,
            seed: GUEST_SEED.wrapping_mul(2 * run + 1),
        }
    }
}

/// A number for each way, so that each gets its own place on the disk.
fn way_number(way: Way) -> u64 {
    match way {
        Way::Legacy => 0,
        Way::Modern(NotifyChoice::Preferred | NotifyChoice::Nth(_)) => 1,
        Way::Modern(NotifyChoice::Memory) => 2,
        Way::Modern(NotifyChoice::Io) => 3,
        Way::Modern(NotifyChoice::ConfigWindow) => 4,
        Way::Mmio => 5,
    }
}

pub(crate) fn test(runner: &mut Runner<'_>, session: &Session<'_>, transport: &mut dyn Transport) {
    let listener = session.listener;
    let setup = Setup {
        queues: match session.way {
            Way::Modern(NotifyChoice::ConfigWindow) => 1,
            _ => QUEUES,
        },
        ..session.setup(QUEUE_SIZE)
    };
    let started = session.start(runner, |wait| Blk::new(transport, &setup, KernelDma, wait));
    let Some(mut blk) = started else { return };
    let mut id = [0; ID_LEN];
    session.run(runner, "tells its ID", || {
        id = blk.device_id(&mut listener.patience())?;
        Ok(())
    });
    let id = id.split(|byte| *byte == 0).next().unwrap_or_default();
    session.run(runner, "reads what the host wrote", || {
        reads(&mut blk, listener, made(id))
    });
    let (blk, area) = (&mut blk, Area::of(session));
    match id {
        b"doorbell-readonly" => limits::read_only(runner, session, blk),
        b"doorbell-queues" => {
            queues::test(runner, session, blk, area.seed);
            resize::test(runner, session, blk, area.seed);
        }
        b"doorbell-4096" => {
            limits::large_blocks(runner, session, blk, &area);
            zeroes::test(runner, session, blk, area.seed);
        }
        b"doorbell-errors" => faults::bad_sectors(runner, session, blk, area.seed),
        b"doorbell-full" => faults::full(runner, session, blk, area.seed),
        _ if id.starts_with(b"doorbell-disk") => whole(runner, session, blk, &area),
        _ => session.run(runner, "is one of the host's", || {
            let id = id.escape_ascii();
            Err(Stop::failed(format_args!("its ID is \"{id}\"")))
        }),
    }
    session.show(blk);
}

/// How many sectors the host made a disk with, by its ID. It may have grown since.
fn made(id: &[u8]) -> u64 {
    match id {
        b"doorbell-disk0" | b"doorbell-disk1" => 65_536,
        _ => 16_384,
    }
}

/// What is for disks that take whatever is written to them.
fn whole(runner: &mut Runner<'_>, session: &Session<'_>, blk: &mut Driver<'_>, area: &Area) {
    let listener = session.listener;
    session.run(runner, "writes and reads back", || {
        let outcome = writes(blk, area, listener);
        let witness = session.witness;
        witness.wrote(session.unit, area.first, AREA, area.seed);
        outcome
    });
    session.run(runner, "the host finds what was written", || {
        finds(session, area.first, AREA, area.seed)
    });
    session.run(runner, "many requests in flight", || {
        in_flight(blk, area, listener)
    });
    session.run(runner, "refuses what goes past its end", || {
        refuses(blk, listener)
    });
    zeroes::test(runner, session, blk, area.seed);
    bulk::test(runner, session, blk, area.seed);
}

/// Has the host look whether sectors hold what `seed` has there: after a flush.
fn finds(session: &Session<'_>, first: u64, count: u64, seed: u64) -> Outcome {
    let arguments = [
        ("sector", first.into()),
        ("count", count.into()),
        ("seed", seed.into()),
    ];
    let answer = session.witness.ask(&session.unit.place, "disk", arguments);
    answer.map(drop)
}

fn reads(blk: &mut Driver<'_>, listener: &Listener<'_>, made: u64) -> Outcome {
    let capacity = blk.info().capacity;
    ensure!(capacity >= made, "it has {capacity} sectors of {made}");
    // A device takes whole blocks only.
    let block = blk.info().block_size as usize / SECTOR;
    for (sector, count) in [(0, block), (block as u64, 8), (made - 200, 200)] {
        let mut data = vec![0; count * SECTOR];
        blk.read(sector, &mut data, &mut listener.patience())?;
        check(sector, HOST_SEED, &data)?;
    }
    Ok(())
}

fn writes(blk: &mut Driver<'_>, area: &Area, listener: &Listener<'_>) -> Outcome {
    let mut data = vec![0; AREA as usize * SECTOR];
    fill(area.first, area.seed, &mut data);
    blk.write(area.first, &data, &mut listener.patience())?;
    blk.flush(&mut listener.patience())?;
    data.fill(0);
    blk.read(area.first, &mut data, &mut listener.patience())?;
    check(area.first, area.seed, &data)
}

/// Many reads at once, of places all over the disk, with one doorbell.
fn in_flight(blk: &mut Driver<'_>, area: &Area, listener: &Listener<'_>) -> Outcome {
    for round in 0..4 {
        // Every other one is in what this path wrote.
        let places: Vec<_> = (0..DEPTH as u64)
            .map(|number| match number % 2 {
                0 => (area.first + (number + round) % AREA, area.seed),
                _ => (number * 31 % 1000 + round, HOST_SEED),
            })
            .collect();
        let reads = places.iter();
        let reads = reads.map(|&(sector, _)| flight::read(sector, SECTOR));
        let results = together(blk, listener, reads)?;
        for (&(sector, seed), done) in places.iter().zip(results) {
            done.result?;
            check(sector, seed, &flight::buffer(done)?)?;
        }
    }
    Ok(())
}

fn refuses(blk: &mut Driver<'_>, listener: &Listener<'_>) -> Outcome {
    let capacity = blk.info().capacity;
    let mut data = vec![0; 2 * SECTOR];
    let error = blk.read(capacity - 1, &mut data, &mut listener.patience());
    let expected = DeviceError::OutOfRange {
        sector: capacity - 1,
        count: 2,
        capacity,
    };
    ensure!(error == Err(expected), "it says {error:?}");
    let error = blk.read(0, &mut data[1..], &mut listener.patience());
    ensure!(
        matches!(error, Err(DeviceError::BufferLength { .. })),
        "it says {error:?}"
    );
    // And goes on.
    blk.read(0, &mut data, &mut listener.patience())?;
    check(0, HOST_SEED, &data)
}
