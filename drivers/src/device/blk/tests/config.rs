//! What the device says of itself, at the start and later.

use std::boxed::Box;

use super::super::disk::{CONFIG_WCE, DISCARD, MQ, SEG_MAX, TOPOLOGY, WRITE_ZEROES};
use super::*;
use crate::transport::fake::Event;

const PLAIN: Info = Info {
    capacity: 64,
    block_size: 512,
    read_only: false,
    max_data: 0xffff_fe00,
    flush: true,
    writeback: true,
    queues: 1,
    topology: None,
    discard: None,
    write_zeroes: None,
};

/// Sets a field of the configuration.
fn set<const N: usize>(offset: usize, bytes: [u8; N]) -> impl FnOnce(&mut Options) {
    move |options: &mut Options| options.config[offset..offset + N].copy_from_slice(&bytes)
}

#[test]
fn a_field_counts_if_its_feature_was_negotiated() {
    // 5.2.4, 5.2.5
    for (features, info) in [
        (MODERN, PLAIN),
        (
            Features::VERSION_1,
            Info {
                flush: false,
                writeback: false,
                ..PLAIN
            },
        ),
        (
            MODERN | BLK_SIZE,
            Info {
                block_size: 1024,
                max_data: 0xffff_fc00,
                ..PLAIN
            },
        ),
        (
            MODERN | SIZE_MAX | SEG_MAX | RO,
            Info {
                max_data: 4096,
                read_only: true,
                ..PLAIN
            },
        ),
        (MODERN | MQ, Info { queues: 2, ..PLAIN }),
        (
            MODERN | TOPOLOGY,
            Info {
                topology: Some(Topology {
                    physical_block_exp: 3,
                    alignment_offset: 1,
                    min_io_size: 8,
                    opt_io_size: 256,
                }),
                ..PLAIN
            },
        ),
        (
            MODERN | DISCARD,
            Info {
                discard: Some(DiscardLimits {
                    max_sectors: 16,
                    max_segments: 4,
                    alignment: 4,
                }),
                ..PLAIN
            },
        ),
        (
            MODERN | WRITE_ZEROES,
            Info {
                write_zeroes: Some(WriteZeroesLimits {
                    max_sectors: 10,
                    max_segments: 1,
                    may_unmap: true,
                }),
                ..PLAIN
            },
        ),
    ] {
        for is_legacy in [false, true] {
            let dma = FakeDma::default();
            let rig = Rig::new(&dma, features, |options| {
                if is_legacy {
                    legacy(options);
                    options.features.remove(Features::VERSION_1);
                }
            });
            assert_eq!(rig.start().unwrap().info(), info);
        }
    }
}

#[test]
fn limits_are_whole_blocks() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | SIZE_MAX, set(8, [1]));
    let max_data = rig.start().unwrap().info().max_data;
    assert_eq!(max_data, 4096, "4097 bytes are 8 sectors");

    // Blocks of 4096 bytes: 10 sectors are one block, 16 are two.
    let features = MODERN | BLK_SIZE | DISCARD | WRITE_ZEROES;
    let rig = Rig::new(&dma, features, set(20, 4096u32.to_le_bytes()));
    let info = rig.start().unwrap().info();
    let discard = info.discard.unwrap();
    assert_eq!((discard.max_sectors, discard.alignment), (16, 8));
    assert_eq!(info.write_zeroes.unwrap().max_sectors, 8);
    // An alignment that the device has none of.
    let rig = Rig::new(&dma, MODERN | DISCARD, set(44, [0]));
    assert_eq!(rig.start().unwrap().info().discard.unwrap().alignment, 1);
}

#[test]
fn a_configuration_that_cannot_be() {
    let dma = FakeDma::default();
    for (features, offset, value, field) in [
        (BLK_SIZE, 20, 0, "blk_size"),
        (BLK_SIZE, 20, 256, "blk_size"),
        (BLK_SIZE, 20, 1000, "blk_size"),
        (SIZE_MAX, 8, 0, "size_max"),
        (SIZE_MAX, 8, 511, "size_max"),
        (SIZE_MAX | BLK_SIZE, 8, 1023, "size_max"),
        (SEG_MAX, 12, 0, "seg_max"),
        (DISCARD, 36, 0, "max_discard_sectors"),
        (DISCARD | BLK_SIZE, 36, 1, "max_discard_sectors"),
        (DISCARD, 40, 0, "max_discard_seg"),
        (WRITE_ZEROES, 48, 0, "max_write_zeroes_sectors"),
        (WRITE_ZEROES | BLK_SIZE, 48, 1, "max_write_zeroes_sectors"),
        (WRITE_ZEROES, 52, 0, "max_write_zeroes_seg"),
    ] {
        let rig = Rig::new(
            &dma,
            MODERN | features,
            set(offset, u32::to_le_bytes(value)),
        );
        let error = DeviceError::Config {
            field,
            value: value.into(),
        };
        assert_eq!(rig.start().unwrap_err(), error);
        assert_eq!(rig.device.status(), DeviceStatus::FAILED);
        let rig = Rig::new(&dma, MODERN, set(offset, u32::to_le_bytes(value)));
        assert_eq!(rig.start().unwrap().info(), PLAIN, "not negotiated");
    }
    for (features, offset, bytes, field) in [
        (MQ, 34, [0, 0], "num_queues"),
        (TOPOLOGY, 24, [32, 0], "physical_block_exp"),
        (CONFIG_WCE, 32, [2, 0], "writeback"),
    ] {
        let rig = Rig::new(&dma, MODERN | features, set(offset, bytes));
        let value = bytes[0].into();
        assert_eq!(
            rig.start().unwrap_err(),
            DeviceError::Config { field, value }
        );
    }
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_configuration_that_is_too_short() {
    let dma = FakeDma::default();
    for (features, len, offset, wanted) in [
        (MODERN, 7, 0, 8),
        (MODERN | MQ, 35, 34, 2),
        (MODERN | WRITE_ZEROES, 56, 56, 1),
    ] {
        let rig = Rig::new(&dma, features, |options| options.config.truncate(len));
        let error = TransportError::ConfigRange {
            offset,
            len: wanted,
            available: len,
        };
        assert_eq!(rig.start().unwrap_err(), DeviceError::Transport(error));
    }
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_capacity_that_changes_is_read_untorn() {
    // 2.5.4
    let dma = FakeDma::default();
    let mut reads = 0;
    let rig = Rig::new(&dma, FLUSH, |options| {
        legacy(options);
        options.config_hook = Some(Box::new(move |config, _| {
            reads += 1;
            config[..8].copy_from_slice(&[u8::from(reads > 1); 8]);
        }));
    });
    assert_eq!(rig.start().unwrap().info().capacity, 0x0101_0101_0101_0101);
}

#[test]
fn fields_of_two_configurations_are_not_mixed() {
    // 2.5.1: the block size changes once the capacity was read.
    let dma = FakeDma::default();
    let mut reads = 0;
    let rig = Rig::new(&dma, MODERN | BLK_SIZE, |options| {
        options.config_hook = Some(Box::new(move |config, generation| {
            reads += 1;
            if reads == 3 {
                config[0] = 32;
                config[20..24].copy_from_slice(&2048u32.to_le_bytes());
                *generation += 1;
            }
        }));
    });
    let info = rig.start().unwrap().info();
    assert_eq!((info.capacity, info.block_size), (32, 2048));
}

#[test]
fn a_device_that_grows_and_shrinks() {
    // 5.2.6.1
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut blk = rig.start().unwrap();
    let last = |blk: &mut FakeBlk<'_>| blk.read(127, &mut [0; SECTOR], &mut rig.wait());
    let beyond = |capacity| {
        Err(DeviceError::OutOfRange {
            sector: 127,
            count: 1,
            capacity,
        })
    };
    assert_eq!(last(&mut blk), beyond(64));
    rig.disk.borrow_mut().data.resize(128 * SECTOR, 0x99);
    rig.device.change(set(0, [128]));
    assert_eq!(last(&mut blk), beyond(64), "nobody looked");
    assert_eq!(blk.refresh().unwrap().capacity, 128);
    assert_eq!(last(&mut blk), Ok(()));

    // One in flight when it shrinks is the device's to judge.
    let token = blk.submit(rig.read(127)).unwrap();
    rig.device.change(set(0, [100]));
    assert_eq!(blk.refresh().unwrap(), blk.info());
    assert_eq!(blk.info().capacity, 100);
    let (error, _) = blk.submit(rig.read(127)).unwrap_err();
    assert_eq!(Err(error), beyond(100));
    blk.queue(0).kick();
    rig.run();
    let done = blk.poll().unwrap().unwrap();
    assert_eq!((done.token, done.result), (token, Ok(())));
    assert_eq!(*done.request.into_buffer().unwrap(), [0x99; SECTOR]);
    drop(blk);
    assert_eq!(dma.live(), 0);
}

#[test]
fn what_cannot_be_read_again_leaves_things_as_they_were() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN | BLK_SIZE, |_| ());
    let mut blk = rig.start().unwrap();
    let before = blk.info();
    rig.device.change(set(20, [0; 4]));
    let error = DeviceError::Config {
        field: "blk_size",
        value: 0,
    };
    assert_eq!(blk.refresh(), Err(error));
    assert_eq!(blk.info(), before);
    rig.device.change(|options| {
        options.config.fill(0xff);
        options.gone = true;
    });
    assert_eq!(blk.refresh(), Err(DeviceError::Gone));
    assert_eq!(blk.info(), before);
    rig.device.change(|options| options.gone = false);
    blk.close();
    let broken = DeviceError::Queue(QueueError::Broken);
    assert_eq!(blk.refresh(), Err(broken));
}

#[test]
fn the_cache_is_switched() {
    // 5.2.5
    for is_legacy in [false, true] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, MODERN | CONFIG_WCE, |options| {
            if is_legacy {
                legacy(options);
                options.features.remove(Features::VERSION_1);
            }
        });
        let mut blk = rig.start().unwrap();
        assert!(blk.info().writeback);
        for writeback in [false, true] {
            blk.set_writeback(writeback).unwrap();
            assert_eq!(blk.info().writeback, writeback);
            rig.device.change(|options| {
                assert_eq!(options.config[32], writeback.into());
            });
        }
        assert!(rig.device.events().contains(&Event::WriteConfig(32)));
    }
}

#[test]
fn a_cache_that_is_not_switched() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN, |_| ());
    let mut blk = rig.start().unwrap();
    assert_eq!(blk.set_writeback(false), Err(DeviceError::Unsupported));
    assert!(!rig.device.events().contains(&Event::WriteConfig(32)));

    let rig = Rig::new(&dma, MODERN | CONFIG_WCE, |options| {
        options.config_hook = Some(Box::new(|config, _| config[32] = 1));
    });
    let mut blk = rig.start().unwrap();
    let error = DeviceError::Config {
        field: "writeback",
        value: 1,
    };
    assert_eq!(blk.set_writeback(false), Err(error));
    assert!(blk.info().writeback);
}
