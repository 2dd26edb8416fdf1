//! Discards, writes of zeroes, and whole blocks.

use super::super::disk::{DISCARD, WRITE_ZEROES};
use super::*;

const BOTH: Features = DISCARD.union(WRITE_ZEROES);

/// Sectors of 512 bytes, blocks of 4096.
fn blocks(options: &mut Options) {
    options.config[20..24].copy_from_slice(&4096u32.to_le_bytes());
}

#[test]
fn long_ones_go_in_pieces_that_the_device_takes() {
    for is_legacy in [false, true] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, MODERN | BOTH, |options| {
            if is_legacy {
                legacy(options);
                options.features.remove(Features::VERSION_1);
            }
        });
        let mut blk = rig.start().unwrap();
        blk.discard(3, 30, &mut rig.wait()).unwrap();
        blk.write_zeroes(33, 21, true, &mut rig.wait()).unwrap();
        blk.write_zeroes(63, 1, false, &mut rig.wait()).unwrap();
        let disk = rig.disk.borrow();
        assert_eq!(
            disk.segments,
            [
                (11, 3, 13, 0),
                (11, 16, 16, 0),
                (11, 32, 1, 0),
                (13, 33, 10, 1),
                (13, 43, 10, 1),
                (13, 53, 1, 1),
                (13, 63, 1, 0),
            ]
        );
        let sector = |n: usize| disk.data[n * SECTOR];
        let edges = [2, 3, 32, 33, 53, 54, 62, 63].map(sector);
        assert_eq!(edges, [2, 0xdd, 0xdd, 0, 0, 54, 62, 0]);
    }
}

#[test]
fn a_device_that_never_unmaps_is_not_told_that_it_may() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | BOTH, |options| options.config[56] = 0);
    let mut blk = rig.start().unwrap();
    assert!(!blk.info().write_zeroes.unwrap().may_unmap);
    blk.write_zeroes(8, 8, true, &mut rig.wait()).unwrap();
    assert_eq!(rig.disk.borrow().segments, [(13, 8, 8, 0)]);
}

#[test]
fn what_exceeds_a_limit_is_named() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | BOTH | SIZE_MAX, |_| ());
    let mut blk = rig.start().unwrap();
    let discard = |count| Request::Discard { sector: 0, count };
    let zeroes = |count| Request::WriteZeroes {
        sector: 0,
        count,
        unmap: false,
    };
    for (request, field, value, max) in [
        (discard(17), "max_discard_sectors", 17, 16),
        (zeroes(11), "max_write_zeroes_sectors", 11, 10),
    ] {
        let (error, _) = blk.submit(request).unwrap_err();
        assert_eq!(error, DeviceError::Limit { field, value, max });
    }
    let (error, _) = blk.submit(discard(0)).unwrap_err();
    let none = DeviceError::NotBlocks {
        sector: 0,
        count: 0,
        block_size: 512,
    };
    assert_eq!(error, none);
    assert_eq!(blk.discard(0, 0, &mut rig.wait()), Err(none));
    // Nothing is done of what goes too far.
    let far = |sector, count| {
        Err(DeviceError::OutOfRange {
            sector,
            count,
            capacity: 64,
        })
    };
    assert_eq!(blk.discard(60, 5, &mut rig.wait()), far(60, 5));
    let count = u64::MAX;
    assert_eq!(
        blk.write_zeroes(1, count, false, &mut rig.wait()),
        far(1, count)
    );
    // 8 of the 9 would fit, and go in a request of their own.
    let mut data = [0; 9 * SECTOR];
    assert_eq!(blk.write(56, &data, &mut rig.wait()), far(56, 9));
    assert_eq!(blk.read(56, &mut data, &mut rig.wait()), far(56, 9));
    assert!(rig.device.take(0).is_none());
    assert_eq!(rig.disk.borrow().served, 0);
}

#[test]
fn a_device_that_does_neither() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut blk = rig.start().unwrap();
    let wait = &mut rig.wait();
    assert_eq!(blk.discard(0, 8, wait), Err(DeviceError::Unsupported));
    assert_eq!(
        blk.write_zeroes(0, 8, false, wait),
        Err(DeviceError::Unsupported)
    );
    // A read-only one, whatever it offers.
    let rig = Rig::new(&dma, MODERN | BOTH | RO, |_| ());
    let mut blk = rig.start().unwrap();
    let wait = &mut rig.wait();
    assert_eq!(blk.discard(0, 8, wait), Err(DeviceError::ReadOnly));
    assert_eq!(
        blk.write_zeroes(0, 8, false, wait),
        Err(DeviceError::ReadOnly)
    );
    assert_eq!(blk.write(0, &[0; SECTOR], wait), Err(DeviceError::ReadOnly));
    for request in [
        Request::Discard {
            sector: 0,
            count: 8,
        },
        Request::WriteZeroes {
            sector: 0,
            count: 8,
            unmap: true,
        },
        Request::Write {
            sector: 0,
            buffer: rig.sectors(1),
        },
    ] {
        let (error, _) = blk.submit(request).unwrap_err();
        assert_eq!(error, DeviceError::ReadOnly);
    }
    assert!(rig.device.take(0).is_none());
}

#[test]
fn a_piece_that_fails_ends_the_call() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | BOTH, |_| ());
    rig.disk.borrow_mut().bad = [20].into();
    let mut blk = rig.start().unwrap();
    let result = blk.write_zeroes(0, 40, false, &mut rig.wait());
    assert_eq!(result, Err(DeviceError::Io));
    let pieces = [(13, 0, 10, 0), (13, 10, 10, 0)];
    assert_eq!(rig.disk.borrow().segments, pieces);
    assert_eq!(rig.disk.borrow().served, 3, "and nothing after it");
}

#[test]
fn requests_are_whole_blocks() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | BOTH | BLK_SIZE, blocks);
    let mut blk = rig.start().unwrap();
    let error = |sector, count| DeviceError::NotBlocks {
        sector,
        count,
        block_size: 4096,
    };
    let buffer = refuse(
        &mut blk,
        Request::Read {
            sector: 4,
            buffer: rig.sectors(8),
        },
        error(4, 8),
    );
    refuse(&mut blk, Request::Write { sector: 7, buffer }, error(7, 8));
    for count in [1, 4, 7, 9] {
        let len = DeviceError::BufferLength {
            len: count * SECTOR,
            multiple: 4096,
            max: blk.info().max_data as usize,
        };
        let buffer = rig.sectors(count);
        refuse(&mut blk, Request::Read { sector: 8, buffer }, len);
    }
    for (sector, count) in [(0, 4), (4, 8)] {
        let (refused, _) = blk.submit(Request::Discard { sector, count }).unwrap_err();
        assert_eq!(refused, error(sector, count.into()));
        let result = blk.write_zeroes(sector, count.into(), false, &mut rig.wait());
        assert_eq!(result, Err(error(sector, count.into())));
    }
    assert_eq!(rig.disk.borrow().served, 0);
    let mut block = [0; 4096];
    blk.read(16, &mut block, &mut rig.wait()).unwrap();
    assert_eq!(block[..], rig.disk.borrow().data[16 * SECTOR..24 * SECTOR]);
    // 10 sectors at once, of which blocks take 8.
    blk.write_zeroes(16, 16, false, &mut rig.wait()).unwrap();
    let pieces = [(13, 16, 8, 0), (13, 24, 8, 0)];
    assert_eq!(rig.disk.borrow().segments, pieces);
}

#[test]
fn a_blocking_call_moves_a_block_though_it_is_large() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | BLK_SIZE, |options| {
        options.config[0..8].copy_from_slice(&512u64.to_le_bytes());
        options.config[20..24].copy_from_slice(&(128 * 1024u32).to_le_bytes());
    });
    rig.disk.borrow_mut().data.resize(512 * SECTOR, 0x44);
    let mut blk = rig.start().unwrap();
    let mut block = vec![0; 128 * 1024];
    blk.read(256, &mut block, &mut rig.wait()).unwrap();
    assert_eq!(block, vec![0x44; 128 * 1024]);
    assert_eq!(rig.disk.borrow().largest, 128 * 1024);
}
