//! Event suppression (2.8.10, 2.8.14), both ways.

use super::*;

/// All places of a ring, of both laps.
fn places(size: u16) -> impl Iterator<Item = Place> {
    [true, false]
        .into_iter()
        .flat_map(move |wrap| (0..size).map(move |index| Place { index, wrap }))
}

/// What is in an event suppression structure: the place, and the flags.
fn event(ring: &PackedRing<&FakeDma>, offset: usize) -> (u16, u16) {
    let value = u32::from_le(ring.event(offset).load(Ordering::Relaxed));
    (value as u16, (value >> 16) as u16)
}

#[test]
fn a_doorbell_is_due_when_the_batch_has_the_descriptor_that_was_asked_for() {
    // 2.8.10: its offset and its wrap counter; from each place in each lap, for each
    // length of a batch, and each descriptor up to a lap behind and before.
    let dma = FakeDma::default();
    let sizes = if cfg!(miri) {
        &[1, 3][..]
    } else {
        &[1, 2, 3, 5, 7, 8]
    };
    for &size in sizes {
        let mut rig = Rig::new(&dma, size, 0, EVENT_IDX);
        for first in places(size) {
            for count in 0..=size {
                for behind in 0..=size {
                    rig.advance(first);
                    let new = first.step(count, size);
                    // Not farther behind than the device can be, which has to be at
                    // the descriptor that it asks for.
                    let asked = places(size)
                        .find(|at| at.step(behind, size) == new)
                        .unwrap();
                    rig.device.ask_at(asked.event());
                    for _ in 0..count {
                        rig.add(&[true]).unwrap();
                    }
                    assert_eq!(
                        rig.ring.needs_notification(),
                        (1..=count).contains(&behind),
                        "size {size}, {count} from {first:?}, asked for {asked:?}"
                    );
                    assert!(!rig.ring.needs_notification(), "once is enough");
                    for _ in 0..count {
                        rig.serve(0);
                        rig.ring.pop().unwrap().unwrap();
                    }
                }
            }
        }
        rig.no_violations();
    }
}

#[test]
fn a_descriptor_amid_a_chain_counts() {
    // 2.8.10: "when this descriptor is made available".
    let dma = FakeDma::default();
    for behind in 0..=5 {
        let mut rig = Rig::new(&dma, 5, 0, EVENT_IDX);
        rig.advance(Place {
            index: 3,
            wrap: false,
        });
        let asked = places(5).find(|at| {
            let end = Place {
                index: 1,
                wrap: true,
            };
            at.step(behind, 5) == end
        });
        rig.device.ask_at(asked.unwrap().event());
        rig.add(&[true; 3]).unwrap();
        assert_eq!(rig.ring.needs_notification(), (1..=3).contains(&behind));
    }
}

#[test]
fn a_sleeping_device_is_always_rung() {
    let dma = FakeDma::default();
    for size in sizes().filter(|&size| size < 0x8000) {
        for features in [PACKED, EVENT_IDX] {
            let mut rig = Rig::new(&dma, size, 0, features);
            let mut random = Random(3);
            for lot in 0..if cfg!(miri) { 20 } else { 2000 } {
                assert!(!rig.ring.needs_notification(), "nothing new");
                assert!(rig.device.sleep());
                let mut free = usize::from(size);
                while free > 0 {
                    let count = 1 + random.below(free.min(4));
                    rig.add(&[true; 4][..count]).unwrap();
                    free -= count;
                    if random.below(3) == 0 {
                        break;
                    }
                }
                assert!(rig.ring.needs_notification(), "size {size} lot {lot}");
                while rig.device.is_waiting() {
                    rig.serve(1);
                }
                while rig.ring.pop().unwrap().is_some() {}
            }
            rig.no_violations();
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many steps")]
fn a_batch_that_went_round_many_times_rings_once() {
    // The largest ring, in which the last place behind is 65535 descriptors away.
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 0x8000, 0, EVENT_IDX);
    let ask = rig.ring.avail.step(1, 0x8000).event();
    rig.device.ask_at(ask);
    for _ in 0..0x2_0000 {
        rig.round(&[true], 0);
    }
    assert_eq!(rig.ring.avail, Place::START);
    assert!(rig.ring.needs_notification());
    assert!(!rig.ring.needs_notification());
    // What comes next was not passed, however long the batch was.
    rig.device.ask_at(rig.ring.avail.event());
    for _ in 0..0x2_0000 {
        rig.round(&[true], 0);
    }
    assert!(!rig.ring.needs_notification());
}

#[test]
fn by_an_event_that_makes_no_sense_no_doorbell_is_lost() {
    // 2.8.10: 3 is reserved, RING_EVENT_FLAGS_DESC is for VIRTIO_F_EVENT_IDX only,
    // and an offset is within the ring.
    let dma = FakeDma::default();
    for (features, place, flags) in [
        (PACKED, 0x8000, 2u32),
        (PACKED, 0x8003, 3),
        (EVENT_IDX, 0x8003, 3),
        (EVENT_IDX, 0x8007, 2),
        (EVENT_IDX, 0x7fff, 2),
        // Bits behind the flags are reserved too.
        (EVENT_IDX, 0, 0xfffc),
    ] {
        let mut rig = Rig::new(&dma, 7, 0, features);
        rig.advance(Place {
            index: 2,
            wrap: true,
        });
        let offset = rig.ring.layout.device;
        let value = place | flags << 16;
        rig.ring
            .event(offset)
            .store(u32::to_le(value), Ordering::Relaxed);
        assert!(!rig.ring.needs_notification(), "nothing new");
        rig.add(&[true]).unwrap();
        assert!(rig.ring.needs_notification(), "{place:#x} {flags}");
    }
}

#[test]
fn the_device_is_told_of_the_next_used_descriptor() {
    // 2.8.10, 2.8.14: with EVENT_IDX, at each place in both laps.
    let dma = FakeDma::default();
    for size in [1, 3, 7] {
        let mut rig = Rig::new(&dma, size, 0, EVENT_IDX);
        let driver = rig.ring.layout.driver;
        rig.ring.set_interrupts(true);
        for round in 0..4 * size {
            let lap = round / size;
            let place = (round % size) | (u16::from(lap % 2 == 0) << 15);
            assert_eq!(event(&rig.ring, driver), (place, 2));
            rig.round(&[true], 1);
            assert_eq!(rig.device.interrupts(), u64::from(round) + 1);
        }
        rig.ring.set_interrupts(false);
        assert_eq!(event(&rig.ring, driver).1, 1, "RING_EVENT_FLAGS_DISABLE");
        rig.round(&[true], 1);
        assert_eq!(event(&rig.ring, driver).1, 1);
        rig.no_violations();

        let mut rig = Rig::new(&dma, size, 0, PACKED);
        rig.ring.set_interrupts(true);
        assert_eq!(event(&rig.ring, driver).1, 0, "RING_EVENT_FLAGS_ENABLE");
        rig.ring.set_interrupts(false);
        assert_eq!(event(&rig.ring, driver).1, 1);
        rig.no_violations();
    }
}

#[test]
fn a_ring_that_is_given_up_asks_for_nothing() {
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 7, 0, EVENT_IDX);
    rig.ring.set_interrupts(false);
    let before = event(&rig.ring, rig.ring.layout.driver);
    rig.ring.abandon();
    rig.ring.set_interrupts(true);
    assert_eq!(event(&rig.ring, rig.ring.layout.driver), before);
}

#[test]
fn an_interrupt_that_is_asked_for_again_is_for_what_comes_next() {
    // 2.8.10: while they are not wanted, the device goes on.
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 5, 0, EVENT_IDX);
    for round in 0..30 {
        rig.ring.set_interrupts(false);
        for _ in 0..round % 7 {
            rig.round(&[true; 2], 1);
        }
        assert_eq!(rig.device.interrupts(), round);
        rig.ring.set_interrupts(true);
        rig.round(&[true; 3], 1);
        assert_eq!(rig.device.interrupts(), round + 1);
    }
    rig.no_violations();
}
