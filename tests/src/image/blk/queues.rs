//! A disk of four queues.

use alloc::vec::Vec;

use doorbell::device::Driver as _;
use doorbell::device::blk::{Completion, Request, SECTOR};
use doorbell::transport::pci_modern::NotifyChoice;
use doorbell_kernel::drive::{Listener, Mode, Way};
use doorbell_kernel::platform::dma::KernelDma;
use doorbell_tests::{Outcome, Runner, Stop, ensure, skip};

use super::flight::{Flight, buffer, read, write};
use super::{DEPTH, Driver, QUEUES, check, finds};
use crate::session::Session;

/// Where the queues write.
const FIRST: u64 = 4096;
/// Sectors in a request.
const COUNT: u64 = 4;
/// Sectors that they write: requests of the queues take turns.
const ALL: u64 = COUNT * DEPTH as u64 * QUEUES as u64;

/// First sector of request `n` of a queue.
fn sector(queue: usize, n: usize) -> u64 {
    FIRST + (n as u64 * u64::from(QUEUES) + queue as u64) * COUNT
}

pub(super) fn test(
    runner: &mut Runner<'_>,
    session: &Session<'_>,
    blk: &mut Driver<'_>,
    seed: u64,
) {
    let listener = session.listener;
    session.run(runner, "all queues at once", || {
        if session.way == Way::Modern(NotifyChoice::ConfigWindow) {
            skip!("the configuration window rings one queue");
        }
        let (offered, own) = (blk.info().queues, blk.queues());
        ensure!(offered == QUEUES, "it has {offered} queues");
        ensure!(own == usize::from(QUEUES), "{own} are set up");
        let outcome = writes(listener, blk, seed);
        session.witness.wrote(session.unit, FIRST, ALL, seed);
        outcome?;
        finds(session, FIRST, ALL, seed)?;
        reads(listener, blk, seed)
    });
    if listener.mode() == Mode::MsixPerQueue && blk.queues() > 1 {
        session.run(runner, "each queue has its own vector", || {
            vectors(listener, blk)
        });
    }
}

/// Requests on all queues, of which `request` makes those of one; then all doorbells.
fn all_at_once(
    listener: &Listener<'_>,
    blk: &mut Driver<'_>,
    request: impl Fn(usize, usize) -> Result<Request<KernelDma>, Stop>,
) -> Result<Vec<Completion<KernelDma>>, Stop> {
    let mut flight = Flight::default();
    for queue in 0..blk.queues() {
        flight.submit(blk, queue, (0..DEPTH).map(|n| request(queue, n)))?;
    }
    for queue in 0..blk.queues() {
        blk.queue(queue).kick();
    }
    flight.land(blk, listener)
}

fn writes(listener: &Listener<'_>, blk: &mut Driver<'_>, seed: u64) -> Outcome {
    let bytes = COUNT as usize * SECTOR;
    let request = |queue, n| write(sector(queue, n), bytes, seed);
    for done in all_at_once(listener, blk, request)? {
        done.result?;
    }
    blk.flush(&mut listener.patience())?;
    Ok(())
}

/// Each queue reads what its neighbour wrote.
fn reads(listener: &Listener<'_>, blk: &mut Driver<'_>, seed: u64) -> Outcome {
    let bytes = COUNT as usize * SECTOR;
    let place = |queue, n| sector((queue + 1) % usize::from(QUEUES), n);
    let results = all_at_once(listener, blk, |queue, n| read(place(queue, n), bytes))?;
    for (index, done) in results.into_iter().enumerate() {
        done.result?;
        let sector = place(index / DEPTH, index % DEPTH);
        check(sector, seed, &buffer(done)?)?;
    }
    Ok(())
}

/// How many interrupts came by each queue's vector, once all that the device sent
/// did.
fn counts(listener: &Listener<'_>, blk: &Driver<'_>) -> Result<Vec<u64>, Stop> {
    // QEMU answers after what it was at.
    blk.health()?;
    listener.let_in(core::hint::spin_loop);
    let counts = (0..QUEUES).map(|queue| listener.interrupts_of_queue(queue));
    let counts: Option<Vec<_>> = counts.collect();
    counts.ok_or_else(|| Stop::failed("not every queue has a vector"))
}

fn vectors(listener: &Listener<'_>, blk: &mut Driver<'_>) -> Outcome {
    let config = listener.config_interrupts();
    for queue in 0..blk.queues() {
        let before = counts(listener, blk)?;
        let mut flight = Flight::default();
        flight.submit(blk, queue, (0..DEPTH).map(|n| read(n as u64, SECTOR)))?;
        blk.queue(queue).kick();
        for done in flight.land(blk, listener)? {
            done.result?;
        }
        let after = counts(listener, blk)?;
        for (other, (before, after)) in before.into_iter().zip(after).enumerate() {
            let came = after - before;
            ensure!(
                (came > 0) == (other == queue),
                "queue {queue} worked, and {came} interrupts came for queue {other}"
            );
        }
    }
    let config = listener.config_interrupts() - config;
    ensure!(config == 0, "{config} interrupts for the configuration");
    Ok(())
}
