//! Block devices, over one path at a time. The host wrote a pattern to the disk
//! and knows where this writes another.

use alloc::vec;
use alloc::vec::Vec;

use doorbell::device::blk::{Blk, ID_LEN, Request, SECTOR};
use doorbell::device::{DeviceError, Driver as _};
use doorbell::dma::DmaRegion;
use doorbell::transport::Transport;
use doorbell::transport::pci_modern::NotifyChoice;
use doorbell::virtio::Wait;
use doorbell_kernel::drive::{Listener, Way};
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, Stop, Text, ensure};

use crate::session::{SETS, Session};

/// Seed of what the host wrote all over the disk.
const HOST_SEED: u64 = 0xD00D_BE11_D00D_BE11;

/// Seed of what this writes, so that no two runs of it write the same.
const GUEST_SEED: u64 = 0x0123_4567_89AB_CDEF;

/// The queue that is asked for, where there is a choice.
const QUEUE_SIZE: u16 = 64;

/// Requests in flight at once.
const DEPTH: usize = 16;

type Driver<'t> = Blk<&'t mut dyn Transport, KernelDma>;

/// Word `i` of sector `n` of a pattern.
fn fill(sector: u64, seed: u64, into: &mut [u8]) {
    for (index, word) in into.chunks_exact_mut(8).enumerate() {
        let number = sector.wrapping_mul(64).wrapping_add(index as u64);
        let value = number
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(seed);
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// Where the data is not the pattern, if it is not.
fn check(sector: u64, seed: u64, data: &[u8]) -> Outcome {
    let mut expected = vec![0; data.len()];
    fill(sector, seed, &mut expected);
    match data
        .iter()
        .zip(&expected)
        .position(|(found, wanted)| found != wanted)
    {
        None => Ok(()),
        Some(at) => Err(Stop::Failed(Text::new(format_args!(
            "byte {at} from sector {sector} is {:#04x}, not {:#04x}",
            data[at], expected[at]
        )))),
    }
}

/// Each path writes to its own part of the disk, and each set of features to its
/// own part of that.
struct Area {
    first: u64,
    seed: u64,
}

/// Sectors in an area.
const AREA: u64 = 64;

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
    let number = way_number(session.way) * SETS.len() as u64 + session.set as u64;
    let area = Area {
        first: 1024 + number * AREA,
        seed: GUEST_SEED.wrapping_mul(2 * number + 1),
    };
    let setup = session.setup(QUEUE_SIZE);
    let started = session.start(runner, |wait| Blk::new(transport, &setup, KernelDma, wait));
    let Some(mut blk) = started else { return };
    session.run(runner, "reads what the host wrote", || {
        reads(&mut blk, listener)
    });
    let mut id = [0; ID_LEN];
    session.run(runner, "tells its ID", || {
        id = blk.device_id(&mut listener.patience())?;
        ensure!(
            id.starts_with(b"doorbell-"),
            "its ID is \"{}\"",
            id.escape_ascii()
        );
        Ok(())
    });
    // Others refuse writes, or fail some.
    if id.starts_with(b"doorbell-disk") {
        whole(runner, session, &mut blk, &area);
    }
    session.show(&mut blk);
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
        let (place, witness) = (&session.unit.place, session.witness);
        let arguments = [
            ("sector", area.first.into()),
            ("count", AREA.into()),
            ("seed", area.seed.into()),
        ];
        witness.ask(place, "disk", arguments).map(drop)
    });
    session.run(runner, "many requests in flight", || {
        in_flight(blk, area, listener)
    });
    session.run(runner, "refuses what goes past its end", || {
        refuses(blk, listener)
    });
}

fn reads(blk: &mut Driver<'_>, listener: &Listener<'_>) -> Outcome {
    let capacity = blk.info().capacity;
    // A device takes whole blocks only.
    let block = blk.info().block_size as usize / SECTOR;
    for (sector, count) in [(0, block), (block as u64, 8), (capacity - 200, 200)] {
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
        let mut expected = Vec::new();
        for number in 0..DEPTH as u64 {
            // Every other one is in what this path wrote.
            let (sector, seed) = if number % 2 == 0 {
                (area.first + (number + round) % AREA, area.seed)
            } else {
                (number * 31 % 1000 + round, HOST_SEED)
            };
            let buffer = DmaRegion::new(KernelDma, SECTOR, SECTOR)?;
            let token = blk
                .submit(Request::Read { sector, buffer })
                .map_err(|(error, _)| error)?;
            expected.push((token, sector, seed));
        }
        blk.queue(0).kick();
        let mut patience = listener.patience();
        while !expected.is_empty() {
            let Some(done) = blk.poll()? else {
                ensure!(
                    patience.again(),
                    "{} requests did not come back",
                    expected.len()
                );
                continue;
            };
            done.result?;
            let place = expected
                .iter()
                .position(|(token, _, _)| *token == done.token);
            let Some(place) = place else {
                return Err(Stop::failed("a request came back that was not in flight"));
            };
            let (_, sector, seed) = expected.swap_remove(place);
            if let Request::Read { buffer, .. } = &done.request {
                check(sector, seed, buffer)?;
            }
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
