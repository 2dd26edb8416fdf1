//! A disk that grows while it is in use.

use alloc::vec;
use alloc::vec::Vec;

use doorbell::device::blk::SECTOR;
use doorbell::device::{DeviceError, Driver as _};
use doorbell::virtio::Wait;
use doorbell_kernel::drive::{Listener, Mode};
use doorbell_tests::{Outcome, Runner, ensure};

use super::flight::{Flight, buffer, read};
use super::{DEPTH, Driver, HOST_SEED, check, fill, finds};
use crate::session::Session;

/// Sectors that it grows by.
const MORE: u64 = 128;
/// Sectors that are written behind the old end.
const BEHIND: u64 = 64;

pub(super) fn test(
    runner: &mut Runner<'_>,
    session: &Session<'_>,
    blk: &mut Driver<'_>,
    seed: u64,
) {
    session.run(runner, "grows", || grows(session, blk, seed));
}

fn grows(session: &Session<'_>, blk: &mut Driver<'_>, seed: u64) -> Outcome {
    let listener = session.listener;
    let old = blk.info().capacity;
    let mut data = vec![0; BEHIND as usize * SECTOR];
    // Half of it is inside.
    let (sector, count) = (old - BEHIND / 2, BEHIND);
    let error = blk.read(sector, &mut data, &mut listener.patience());
    let beyond = Err(DeviceError::OutOfRange {
        sector,
        count,
        capacity: old,
    });
    ensure!(error == beyond, "before: {error:?}");

    // Some are with the device meanwhile, and others it does not know of.
    let mut flight = Flight::default();
    let sectors: Vec<u64> = (0..DEPTH as u64).map(|n| n * 40).collect();
    let (known, unknown) = sectors.split_at(DEPTH / 2);
    flight.submit(blk, 0, known.iter().map(|&sector| read(sector, SECTOR)))?;
    blk.queue(0).kick();
    flight.submit(blk, 0, unknown.iter().map(|&sector| read(sector, SECTOR)))?;
    let before = listener.config_interrupts();
    let bytes = (old + MORE) * SECTOR as u64;
    let place = &session.unit.place;
    session
        .witness
        .ask(place, "resize", [("bytes", bytes.into())])?;
    changed(listener, before)?;

    let stale = blk.info().capacity;
    ensure!(stale == old, "it has {stale} sectors before it was asked");
    let new = blk.refresh()?.capacity;
    ensure!(new == old + MORE, "it has {new} sectors, {old} before");
    blk.queue(0).kick();
    for (sector, done) in sectors.into_iter().zip(flight.land(blk, listener)?) {
        done.result?;
        check(sector, HOST_SEED, &buffer(done)?)?;
    }

    fill(old, seed, &mut data);
    let wait = &mut listener.patience();
    let written = blk.write(old, &data, wait);
    session.witness.wrote(session.unit, old, BEHIND, seed);
    written?;
    blk.flush(wait)?;
    finds(session, old, BEHIND, seed)?;
    // Across the old end.
    blk.read(sector, &mut data, wait)?;
    check(old, seed, &data[data.len() / 2..])?;
    // Its new last sector is nobody's.
    let last = &mut data[..SECTOR];
    blk.read(new - 1, last, wait)?;
    ensure!(last.iter().all(|byte| *byte == 0), "the last is not zeros");
    blk.health()?;
    Ok(())
}

/// Waits for the one interrupt that says that the configuration changed.
fn changed(listener: &Listener<'_>, before: u64) -> Outcome {
    let came = || listener.config_interrupts() - before;
    if listener.mode() == Mode::Polling {
        return Ok(());
    }
    let mut patience = listener.patience();
    while came() == 0 {
        ensure!(patience.again(), "no interrupt says that it grew");
    }
    let came = came();
    // A vector for everything does not say what it is for.
    let exact = listener.mode() != Mode::MsixShared;
    ensure!(!exact || came == 1, "{came} interrupts say that it grew");
    Ok(())
}
