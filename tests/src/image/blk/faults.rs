//! Disks that fail: one at two sectors, and one that has no space for any write.
//! What fails says so, and all else in flight with it succeeds.

use alloc::string::ToString;
use alloc::vec::Vec;

use doorbell::device::blk::{Completion, SECTOR};
use doorbell::device::{DeviceError, Driver as _};
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, ensure};

use super::flight::{buffer, read, together, write};
use super::{DEPTH, Driver, HOST_SEED, check, finds};
use crate::session::Session;

/// The sector that cannot be read, and the one that cannot be written.
const BAD_READ: u64 = 10_000;
const BAD_WRITE: u64 = 12_000;
/// Sectors in a request.
const COUNT: u64 = 8;
const BYTES: usize = COUNT as usize * SECTOR;
/// Sectors from one request to the next: apart, since QEMU makes one of what adjoins.
const STEP: u64 = 5 * COUNT;
/// The request that touches the bad sector.
const BAD: usize = DEPTH / 2;

/// First sectors of requests, of which one, with index [`BAD`], has `bad` inside.
fn around(bad: u64) -> impl Iterator<Item = u64> {
    let first = bad - COUNT / 2 - BAD as u64 * STEP;
    (first..).step_by(STEP as usize).take(DEPTH)
}

pub(super) fn bad_sectors(
    runner: &mut Runner<'_>,
    session: &Session<'_>,
    blk: &mut Driver<'_>,
    seed: u64,
) {
    session.run(runner, "a read that fails among others", || {
        for _ in 0..2 {
            failed_read(session, blk)?;
        }
        Ok(())
    });
    session.run(runner, "a write that fails among others", || {
        let outcome = failed_write(session, blk, seed);
        for (n, sector) in around(BAD_WRITE).enumerate() {
            if n != BAD {
                session.witness.wrote(session.unit, sector, COUNT, seed);
            }
        }
        outcome?;
        // All of them are looked at after the run.
        for n in [BAD - 1, BAD, BAD + 1] {
            let seed = if n == BAD { HOST_SEED } else { seed };
            let sector = around(BAD_WRITE).nth(n).unwrap_or(0);
            finds(session, sector, COUNT, seed)?;
        }
        Ok(())
    });
}

/// Checks that one failed, and all others did not.
fn one_failed(results: &[Completion<KernelDma>]) -> Outcome {
    for (n, done) in results.iter().enumerate() {
        let expected = if n == BAD {
            Err(DeviceError::Io)
        } else {
            Ok(())
        };
        ensure!(done.result == expected, "request {n}: {:?}", done.result);
    }
    Ok(())
}

fn failed_read(session: &Session<'_>, blk: &mut Driver<'_>) -> Outcome {
    let reads = around(BAD_READ).map(|sector| read(sector, BYTES));
    let results = together(blk, session.listener, reads)?;
    one_failed(&results)?;
    for (n, (sector, done)) in around(BAD_READ).zip(results).enumerate() {
        if n != BAD {
            check(sector, HOST_SEED, &buffer(done)?)?;
        }
    }
    blk.health()?;
    Ok(())
}

fn failed_write(session: &Session<'_>, blk: &mut Driver<'_>, seed: u64) -> Outcome {
    let listener = session.listener;
    let writes = around(BAD_WRITE).map(|sector| write(sector, BYTES, seed));
    one_failed(&together(blk, listener, writes)?)?;
    blk.flush(&mut listener.patience())?;
    let reads = around(BAD_WRITE).map(|sector| read(sector, BYTES));
    let results = together(blk, listener, reads)?;
    for (n, (sector, done)) in around(BAD_WRITE).zip(results).enumerate() {
        done.result?;
        // What failed was not written.
        let seed = if n == BAD { HOST_SEED } else { seed };
        check(sector, seed, &buffer(done)?)?;
    }
    blk.health()?;
    Ok(())
}

pub(super) fn full(
    runner: &mut Runner<'_>,
    session: &Session<'_>,
    blk: &mut Driver<'_>,
    seed: u64,
) {
    session.run(runner, "fails writes and reads on", || {
        for _ in 0..2 {
            no_space(session, blk, seed)?;
        }
        finds(session, 0, STEP * DEPTH as u64, HOST_SEED)
    });
}

/// Every other one is a write.
fn no_space(session: &Session<'_>, blk: &mut Driver<'_>, seed: u64) -> Outcome {
    let sectors = || (0..).step_by(STEP as usize).take(DEPTH);
    let requests = sectors().enumerate().map(|(n, sector)| match n % 2 {
        0 => write(sector, BYTES, seed),
        _ => read(sector, BYTES),
    });
    let results = together(blk, session.listener, requests.collect::<Vec<_>>())?;
    for (n, (sector, done)) in sectors().zip(results).enumerate() {
        if n % 2 == 0 {
            // The device does not say why.
            let said = done.result.map_err(|error| error.to_string());
            let expected = Err("the device reports an IO error".to_string());
            ensure!(said == expected, "write {n}: {said:?}");
        } else {
            done.result?;
            check(sector, HOST_SEED, &buffer(done)?)?;
        }
    }
    blk.health()?;
    Ok(())
}
