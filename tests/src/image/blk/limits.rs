//! Disks that do not take everything: one that is read-only, and one of large
//! blocks. What they refuse, their driver refuses.

use alloc::vec;

use doorbell::device::DeviceError;
use doorbell::device::blk::{Request, SECTOR, Topology};
use doorbell_tests::{Outcome, Runner, ensure};

use super::flight::{buffer, read, together, write};
use super::{AREA, Area, DEPTH, Driver, HOST_SEED, check, finds};
use crate::session::Session;

/// Bytes in a large block.
const BLOCK: u32 = 4096;

pub(super) fn read_only(runner: &mut Runner<'_>, session: &Session<'_>, blk: &mut Driver<'_>) {
    session.run(runner, "refuses whatever would change it", || {
        changes(session, blk)
    });
}

fn changes(session: &Session<'_>, blk: &mut Driver<'_>) -> Outcome {
    let listener = session.listener;
    let info = blk.info();
    ensure!(info.read_only, "it says that it can be written to");
    let data = [0; 8 * SECTOR];
    let wait = &mut listener.patience();
    for (what, result) in [
        ("a write", blk.write(0, &data, wait)),
        ("a discard", blk.discard(0, 8, wait)),
        ("zeroes", blk.write_zeroes(0, 8, false, wait)),
        ("zeroes and unmap", blk.write_zeroes(0, 8, true, wait)),
    ] {
        let refused = result == Err(DeviceError::ReadOnly);
        ensure!(refused, "{what}: {result:?}");
    }
    let refused = blk.submit(write(0, data.len(), 0)?).err();
    let given_back = matches!(
        refused,
        Some((DeviceError::ReadOnly, Request::Write { .. }))
    );
    ensure!(given_back, "a request for a write: {refused:?}");
    // And reads on.
    let mut data = [0; 8 * SECTOR];
    blk.read(8, &mut data, wait)?;
    check(8, HOST_SEED, &data)
}

pub(super) fn large_blocks(
    runner: &mut Runner<'_>,
    session: &Session<'_>,
    blk: &mut Driver<'_>,
    area: &Area,
) {
    session.run(runner, "says what is under its blocks", || topology(blk));
    session.run(runner, "refuses parts of blocks", || parts(session, blk));
    session.run(runner, "many blocks in flight", || {
        let outcome = blocks(session, blk, area);
        session
            .witness
            .wrote(session.unit, area.first, AREA, area.seed);
        outcome?;
        finds(session, area.first, AREA, area.seed)
    });
}

/// As QEMU was told.
fn topology(blk: &Driver<'_>) -> Outcome {
    let info = blk.info();
    ensure!(info.block_size == BLOCK, "blocks: {}", info.block_size);
    let expected = Topology {
        // Of 16384 bytes, 8192 and 65536.
        physical_block_exp: 2,
        alignment_offset: 0,
        min_io_size: 2,
        opt_io_size: 16,
    };
    let found = info.topology;
    ensure!(found == Some(expected), "it says {found:?}");
    Ok(())
}

fn parts(session: &Session<'_>, blk: &mut Driver<'_>) -> Outcome {
    let wait = &mut session.listener.patience();
    let block_size = BLOCK;
    let mut data = vec![0; 2 * BLOCK as usize];
    // From the middle of one, of one and a half, and of half a one.
    let error = blk.read(4, &mut data, wait);
    let (sector, count) = (4, 16);
    let expected = DeviceError::NotBlocks {
        sector,
        count,
        block_size,
    };
    ensure!(error == Err(expected), "from sector 4: {error:?}");
    for sectors in [1, 12] {
        let len = sectors * SECTOR;
        let error = blk.write(0, &data[..len], wait);
        let named = matches!(error, Err(DeviceError::BufferLength { len: own, multiple, .. })
            if own == len && multiple == BLOCK as usize);
        ensure!(named, "{sectors} sectors: {error:?}");
        let count = sectors as u64;
        let expected = Err(DeviceError::NotBlocks {
            sector: 0,
            count,
            block_size,
        });
        let discarded = blk.discard(0, count, wait);
        ensure!(discarded == expected, "discard: {discarded:?}");
        let zeroed = blk.write_zeroes(0, count, false, wait);
        ensure!(zeroed == expected, "zeroes: {zeroed:?}");
    }
    blk.read(8, &mut data, wait)?;
    check(8, HOST_SEED, &data)
}

/// Writes the area in as many requests as it has blocks, and reads it back in one.
fn blocks(session: &Session<'_>, blk: &mut Driver<'_>, area: &Area) -> Outcome {
    let listener = session.listener;
    let step = BLOCK as usize / SECTOR;
    let sectors = (area.first..area.first + AREA).step_by(step);
    let writes = sectors.map(|sector| write(sector, BLOCK as usize, area.seed));
    for done in together(blk, listener, writes)? {
        done.result?;
    }
    blk.flush(&mut listener.patience())?;
    // Others at the same time, which nobody wrote.
    let around = (0..DEPTH as u64 - 1).map(|n| read(2400 + n * 8, BLOCK as usize));
    let whole = [read(area.first, AREA as usize * SECTOR)];
    let mut results = together(blk, listener, whole.into_iter().chain(around))?.into_iter();
    if let Some(done) = results.next() {
        done.result?;
        check(area.first, area.seed, &buffer(done)?)?;
    }
    for (n, done) in (0..).zip(results) {
        done.result?;
        check(2400 + n * 8, HOST_SEED, &buffer(done)?)?;
    }
    Ok(())
}
