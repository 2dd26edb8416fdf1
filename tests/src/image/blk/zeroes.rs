//! Discards and zeroes.

use alloc::vec;

use doorbell::device::blk::{Request, SECTOR};
use doorbell::device::{DeviceError, Driver as _};
use doorbell_kernel::drive;
use doorbell_tests::{Outcome, Runner, Stop, ensure};

use super::{Driver, check, fill, finds};
use crate::session::Session;

/// Where this writes before it makes zeros of parts.
const FIRST: u64 = 4096;
/// Sectors that it writes.
const ALL: u64 = 512;
/// The parts: their first sector, and how many there are.
const KEPT: (u64, u64) = (FIRST + 8, 136);
const UNMAPPED: (u64, u64) = (FIRST + 152, 136);
const DISCARDED: (u64, u64) = (FIRST + 296, 200);
/// What stays between them and around.
const UNTOUCHED: [(u64, u64); 4] = [
    (FIRST, 8),
    (FIRST + 144, 8),
    (FIRST + 288, 8),
    (FIRST + 496, 16),
];

pub(super) fn test(
    runner: &mut Runner<'_>,
    session: &Session<'_>,
    blk: &mut Driver<'_>,
    seed: u64,
) {
    session.run(runner, "discards and writes zeroes", || {
        let outcome = make(session, blk, seed);
        let witness = session.witness;
        witness.wrote(session.unit, FIRST, ALL, seed);
        let parts = [KEPT, UNMAPPED, DISCARDED];
        for (sector, count) in parts {
            witness.zeroed(session.unit, sector, count);
        }
        outcome?;
        for (sector, count) in parts {
            let arguments = [("sector", sector.into()), ("count", count.into())];
            witness.ask(&session.unit.place, "zeroes", arguments)?;
        }
        for (sector, count) in UNTOUCHED {
            finds(session, sector, count, seed)?;
        }
        reads(session, blk, seed)
    });
    let info = blk.info();
    let limits = info.discard.zip(info.write_zeroes);
    let small = limits.filter(|(discard, zeroes)| {
        let most = discard.max_sectors.max(zeroes.max_sectors);
        u64::from(most) < DISCARDED.1
    });
    if small.is_some() {
        session.run(runner, "keeps to the limits of both", || {
            keeps_to_limits(session, blk)
        });
    }
}

fn make(session: &Session<'_>, blk: &mut Driver<'_>, seed: u64) -> Outcome {
    let wait = &mut session.listener.patience();
    let mut data = vec![0; ALL as usize * SECTOR];
    fill(FIRST, seed, &mut data);
    blk.write(FIRST, &data, wait)?;
    blk.write_zeroes(KEPT.0, KEPT.1, false, wait)?;
    let may_unmap = blk.info().write_zeroes.is_some_and(|own| own.may_unmap);
    ensure!(may_unmap, "it never unmaps");
    blk.write_zeroes(UNMAPPED.0, UNMAPPED.1, true, wait)?;
    blk.discard(DISCARDED.0, DISCARDED.1, wait)?;
    blk.flush(wait)?;
    Ok(())
}

fn reads(session: &Session<'_>, blk: &mut Driver<'_>, seed: u64) -> Outcome {
    let wait = &mut session.listener.patience();
    for (sector, count) in [KEPT, UNMAPPED, DISCARDED] {
        let mut data = vec![0xff; count as usize * SECTOR];
        blk.read(sector, &mut data, wait)?;
        let wrong = data.iter().position(|byte| *byte != 0);
        ensure!(wrong.is_none(), "byte {wrong:?} from sector {sector}");
    }
    for (sector, count) in UNTOUCHED {
        let mut data = vec![0; count as usize * SECTOR];
        blk.read(sector, &mut data, wait)?;
        check(sector, seed, &data)?;
    }
    Ok(())
}

/// More than a request may have is refused, and split by calls that wait. What they
/// do here was done before.
fn keeps_to_limits(session: &Session<'_>, blk: &mut Driver<'_>) -> Outcome {
    let info = blk.info();
    let (Some(discard), Some(zeroes)) = (info.discard, info.write_zeroes) else {
        return Err(Stop::failed("it has no limits"));
    };
    // 100 and 60 as QEMU was told, in whole blocks.
    let limits = (discard.max_sectors, zeroes.max_sectors);
    ensure!(limits == (96, 56), "the limits are {limits:?}");
    let (sector, count) = (DISCARDED.0, DISCARDED.1 as u32);
    let unmap = false;
    let discards = Request::Discard { sector, count };
    let writes = Request::WriteZeroes {
        sector,
        count,
        unmap,
    };
    for (request, field, max) in [
        (discards, "max_discard_sectors", discard.max_sectors),
        (writes, "max_write_zeroes_sectors", zeroes.max_sectors),
    ] {
        let error = blk.submit(request).err().map(|(error, _)| error);
        let (value, max) = (count.into(), max.into());
        let expected = DeviceError::Limit { field, value, max };
        ensure!(error == Some(expected), "it says {error:?}");
    }
    // One request after the other, each with a doorbell.
    let wait = &mut session.listener.patience();
    let before = drive::doorbells(blk);
    blk.discard(sector, count.into(), wait)?;
    let discards = drive::doorbells(blk) - before;
    blk.write_zeroes(sector, count.into(), unmap, wait)?;
    let writes = drive::doorbells(blk) - before - discards;
    ensure!(
        discards >= 3 && writes >= 4,
        "{discards} discards and {writes} writes of zeroes"
    );
    blk.health()?;
    Ok(())
}
