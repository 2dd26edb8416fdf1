//! Upstream's block driver: the host wrote a pattern to the disk, and looks at what is
//! written here.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use doorbell::device::blk::SECTOR;
use doorbell::virtio::Wait as _;
use doorbell_tests::{Outcome, Runner, ensure};
use virtio_drivers::device::blk::{BlkReq, BlkResp, RespStatus, VirtIOBlk};
use virtio_drivers::transport::InterruptStatus;

use super::{Bench, Hal, Upstream};
use crate::blk::HOST_SEED;
use crate::pattern;

type Driver<'t> = VirtIOBlk<Hal, Upstream<'t>>;

/// Where the first bench writes, and how many sectors each does.
const FIRST: u64 = 1024;
const AREA: u64 = 64;

pub(super) fn open(transport: Upstream<'_>) -> virtio_drivers::Result<Driver<'_>> {
    VirtIOBlk::new(transport)
}

pub(super) fn test<'t>(runner: &mut Runner<'_>, bench: &Bench<'t>, transport: Upstream<'t>) {
    let Some(mut disk) = bench.start(runner, transport, open) else {
        return;
    };
    bench.run(runner, "reads what the host wrote", || reads(&mut disk));
    bench.run(runner, "the host finds what was written", || {
        writes(&mut disk, bench)
    });
    bench.run(runner, "many requests in flight", || {
        flight(&mut disk, bench)
    });
    bench.run(runner, "acknowledges an interrupt", || interrupt(&mut disk));
    bench.show();
}

fn reads(disk: &mut Driver<'_>) -> Outcome {
    let capacity = disk.capacity();
    for (sector, count) in [(0, 1), (1, 8), (capacity - 200, 200)] {
        let mut data = vec![0; count * SECTOR];
        disk.read_blocks(sector as usize, &mut data)?;
        pattern::check(sector * SECTOR as u64, HOST_SEED, &data)?;
    }
    let mut id = [0; 20];
    let len = disk.device_id(&mut id)?;
    let id = &id[..len];
    ensure!(
        id.starts_with(b"doorbell-disk"),
        "its ID is \"{}\"",
        id.escape_ascii()
    );
    Ok(())
}

fn writes(disk: &mut Driver<'_>, bench: &Bench<'_>) -> Outcome {
    let (first, seed) = (FIRST + bench.number * AREA, bench.seed());
    let mut data = vec![0; AREA as usize * SECTOR];
    pattern::fill(first * SECTOR as u64, seed, &mut data);
    bench.witness.wrote(bench.unit, first, AREA, seed);
    disk.write_blocks(first as usize, &data)?;
    disk.flush()?;
    data.fill(0);
    disk.read_blocks(first as usize, &mut data)?;
    pattern::check(first * SECTOR as u64, seed, &data)?;
    let arguments = [
        ("sector", first.into()),
        ("count", AREA.into()),
        ("seed", seed.into()),
    ];
    bench.ask("disk", arguments).map(drop)
}

/// A read that the device has.
struct Read {
    token: u16,
    sector: u64,
    request: BlkReq,
    data: [u8; SECTOR],
    response: BlkResp,
}

/// More rounds than the queue has descriptors, each with as many reads as it takes.
fn flight(disk: &mut Driver<'_>, bench: &Bench<'_>) -> Outcome {
    /// Each takes three descriptors of 16 at most.
    const DEPTH: u64 = 5;
    for round in 0..8 {
        let mut reads = Vec::new();
        for n in 0..DEPTH {
            let mut read = Box::new(Read {
                token: 0,
                sector: (n * 131 + round) % FIRST,
                request: BlkReq::default(),
                data: [0; SECTOR],
                response: BlkResp::default(),
            });
            let Read {
                sector,
                request,
                data,
                response,
                ..
            } = &mut *read;
            // SAFETY: the box stays where it is until the request is complete; where
            // this fails before, it is the device's until the driver is dropped, and
            // is leaked.
            read.token = unsafe { disk.read_blocks_nb(*sector as usize, request, data, response) }?;
            reads.push(Box::leak(read) as *mut Read);
        }
        let mut patience = bench.clock.patience();
        while !reads.is_empty() {
            let Some(token) = disk.peek_used() else {
                ensure!(patience.again(), "{} reads did not come back", reads.len());
                continue;
            };
            // SAFETY: leaked above, and nobody else has them.
            let place = reads
                .iter()
                .position(|read| unsafe { (**read).token } == token);
            ensure!(place.is_some(), "request {token} came back, which is none");
            let read = reads.swap_remove(place.unwrap_or_default());
            // SAFETY: as above; the device is done with it.
            let mut read = unsafe { Box::from_raw(read) };
            let Read {
                request,
                data,
                response,
                ..
            } = &mut *read;
            // SAFETY: these are what `read_blocks_nb` got for this token.
            unsafe { disk.complete_read_blocks(token, request, data, response) }?;
            ensure!(
                read.response.status() == RespStatus::OK,
                "sector {}: {:?}",
                read.sector,
                read.response.status()
            );
            pattern::check(read.sector * SECTOR as u64, HOST_SEED, &read.data)?;
        }
    }
    Ok(())
}

/// The device says once that it used a buffer.
fn interrupt(disk: &mut Driver<'_>) -> Outcome {
    disk.ack_interrupt();
    disk.read_blocks(0, &mut [0; SECTOR])?;
    let (first, second) = (disk.ack_interrupt(), disk.ack_interrupt());
    ensure!(
        first.contains(InterruptStatus::QUEUE_INTERRUPT) && second.is_empty(),
        "its status is {:#x}, and then {:#x}",
        first.bits(),
        second.bits()
    );
    Ok(())
}
