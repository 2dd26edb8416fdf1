//! Who hears from whom, and when, in both kinds of ring.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// Both kinds of ring, without and with events for single steps.
const ALL: [Features; 4] = [
    KINDS[0],
    KINDS[0].union(Features::EVENT_IDX),
    KINDS[1],
    KINDS[1].union(Features::EVENT_IDX),
];

#[test]
fn a_device_that_polls_is_not_rung() {
    // 2.7.10.1, 2.8.10
    let dma = FakeDma::default();
    for features in ALL {
        let mut rig = Rig::new(&dma, 8, 0, features);
        for round in 0..100 {
            rig.device.poll();
            rig.add(&[true]).unwrap();
            assert!(!rig.ring.needs_notification(), "round {round}");
            rig.serve(0);
            rig.ring.pop().unwrap().unwrap();
        }
        assert!(rig.device.sleep());
        rig.add(&[true]).unwrap();
        assert!(rig.ring.needs_notification());
    }
}

#[test]
fn interrupts_come_when_they_are_wanted() {
    // 2.7.7.1, 2.7.7.2, 2.8.10
    let dma = FakeDma::default();
    for features in ALL {
        let mut rig = Rig::new(&dma, 8, 0, features);
        rig.ring.set_interrupts(true);
        for round in 1..=100 {
            rig.add(&[true]).unwrap();
            rig.serve(0);
            assert_eq!(rig.device.interrupts(), round);
            rig.ring.pop().unwrap().unwrap();
        }
        rig.no_violations();
    }
}

#[test]
fn with_event_idx_one_interrupt_covers_what_was_not_looked_at() {
    // 2.7.7.2, 2.8.10
    let dma = FakeDma::default();
    for kind in KINDS {
        let mut rig = Rig::new(&dma, 8, 0, kind | Features::EVENT_IDX);
        rig.ring.set_interrupts(true);
        for round in 1..=10 {
            for _ in 0..8 {
                rig.add(&[true]).unwrap();
                rig.serve(0);
            }
            assert_eq!(rig.device.interrupts(), round);
            while rig.ring.pop().unwrap().is_some() {}
        }
        rig.no_violations();
    }
}

#[test]
fn interrupts_are_spared_when_they_are_not_wanted() {
    // 2.7.7.1: with EVENT_IDX a split ring's flags stay 0, which the device checks.
    // 2.8.10: a packed ring's say so.
    let dma = FakeDma::default();
    for features in ALL {
        let mut rig = Rig::new(&dma, 8, 0, features);
        rig.ring.set_interrupts(false);
        for _ in 0..if cfg!(miri) { 10 } else { 10_000 } {
            for _ in 0..8 {
                rig.add(&[true]).unwrap();
                rig.serve(0);
            }
            while rig.ring.pop().unwrap().is_some() {}
        }
        assert_eq!(rig.device.interrupts(), 0);
        rig.ring.set_interrupts(true);
        rig.add(&[true]).unwrap();
        rig.serve(0);
        assert_eq!(rig.device.interrupts(), 1);
        rig.no_violations();
    }
}

/// Both sides at once: a device on a thread of its own sleeps whenever it finds
/// nothing, and only a doorbell wakes it. Without the full barrier between
/// publishing and asking (2.7.13.4.1, 2.8.21.3.1) a doorbell is lost: under Miri at once, on a
/// processor sooner or later.
#[test]
fn no_doorbell_is_lost_between_two_processors() {
    const REQUESTS: u32 = if cfg!(miri) { 20 } else { 10_000 };
    let dma = FakeDma::default();
    for features in ALL {
        let Rig {
            mut ring,
            mut device,
            data,
        } = Rig::new(&dma, 8, 0, features);
        let (bell, stop) = (AtomicBool::new(true), AtomicBool::new(false));
        let rung = AtomicU64::new(0);
        let finished = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    if !bell.swap(false, Ordering::SeqCst) {
                        std::hint::spin_loop();
                        continue;
                    }
                    loop {
                        while let Some(chain) = device.take() {
                            device.finish(chain.head(), 1);
                        }
                        if device.sleep() {
                            break;
                        }
                    }
                }
            });
            let (mut done, mut random) = (0, Random(5));
            while done < REQUESTS {
                // Now before, now after the device falls asleep.
                for _ in 0..random.below(500) {
                    std::hint::spin_loop();
                }
                // SAFETY: the data outlives the threads, and nobody accesses it.
                unsafe { ring.add(&[Buffer::writable(data.address(), 1)]) }.unwrap();
                if ring.needs_notification() {
                    rung.fetch_add(1, Ordering::Relaxed);
                    bell.store(true, Ordering::SeqCst);
                }
                if !wait_until(|| ring.pop().unwrap().is_some()) {
                    break;
                }
                done += 1;
            }
            stop.store(true, Ordering::SeqCst);
            done
        });
        assert_eq!(
            finished,
            REQUESTS,
            "a doorbell was lost: {} were rung",
            rung.into_inner()
        );
        assert_eq!(device.violations(), [""; 0]);
    }
}

/// The other way round: the driver sleeps whenever it finds nothing, and only an
/// interrupt wakes it. Without the full barrier between asking for it and looking
/// once more an interrupt is lost.
#[test]
fn no_interrupt_is_lost_between_two_processors() {
    const REQUESTS: u32 = if cfg!(miri) { 20 } else { 4000 };
    let dma = FakeDma::default();
    for features in ALL {
        let Rig {
            mut ring,
            mut device,
            data,
        } = Rig::new(&dma, 8, 0, features);
        ring.set_interrupts(true);
        let (raised, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let finished = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random(9);
                while !stop.load(Ordering::SeqCst) {
                    while let Some(chain) = device.take() {
                        // Now before, now after the driver falls asleep.
                        for _ in 0..random.below(200) {
                            std::hint::spin_loop();
                        }
                        device.finish(chain.head(), 1);
                        raised.store(device.interrupts(), Ordering::SeqCst);
                    }
                    std::thread::yield_now();
                }
            });
            let (mut done, mut heard) = (0, 0);
            while done < REQUESTS {
                for _ in 0..2 {
                    // SAFETY: the data outlives the threads, and nobody accesses it.
                    unsafe { ring.add(&[Buffer::writable(data.address(), 1)]) }.unwrap();
                }
                let mut left = 2;
                while left > 0 {
                    while ring.pop().unwrap().is_some() {
                        (done, left) = (done + 1, left - 1);
                    }
                    let news = || raised.load(Ordering::SeqCst) != heard;
                    if left > 0 && !wait_until(news) {
                        stop.store(true, Ordering::SeqCst);
                        return done;
                    }
                    heard = raised.load(Ordering::SeqCst);
                }
            }
            stop.store(true, Ordering::SeqCst);
            done
        });
        assert_eq!(finished, REQUESTS, "an interrupt was lost");
        assert_eq!(device.violations(), [""; 0]);
    }
}
