use std::sync::atomic::AtomicBool;
use std::vec::Vec;

use super::*;
use crate::dma::fake::FakeDma;
use crate::queue::tests::rig::{Random, wait_until};

mod events;
mod faults;
mod layout;
mod model;

const PACKED: Features = Features::VERSION_1.union(Features::RING_PACKED);
const EVENT_IDX: Features = PACKED.union(Features::EVENT_IDX);

type Rig<'d> = crate::queue::tests::rig::Rig<'d, PackedRing<&'d FakeDma>>;

/// Sizes that are no power of two among others, as 2.8.10.1 allows.
fn sizes() -> impl Iterator<Item = u16> {
    let small = [1, 2, 3, 5, 7, 8, 100, 256];
    small.into_iter().chain((!cfg!(miri)).then_some(0x8000))
}

impl Rig<'_> {
    /// The flags of descriptor `index`, as they are in memory.
    fn flags(&self, index: u16) -> u16 {
        u16::from_le(self.ring.flags(index).load(Ordering::Relaxed))
    }

    /// Moves both sides on, one descriptor at a time, until the driver is at `place`.
    fn advance(&mut self, place: Place) {
        let laps = 2 * u32::from(self.ring.size);
        for _ in 0..laps {
            if self.ring.avail == place {
                break;
            }
            self.round(&[true], 0);
        }
        assert_eq!(self.ring.avail, place);
        self.ring.needs_notification();
    }
}

#[test]
fn flags_follow_the_wrap_counters() {
    // 2.8.1: an available descriptor's AVAIL is the driver's counter and its USED the
    // inverse; a used one's are both the device's counter. The counters start at 1,
    // and change behind the last descriptor.
    let dma = FakeDma::default();
    for size in sizes() {
        let mut rig = Rig::new(&dma, size, 0, PACKED);
        for lap in 0..if size > 256 { 3 } else { 5 } {
            let counter = lap % 2 == 0;
            for index in 0..size {
                assert_eq!(
                    (rig.ring.avail.index, rig.ring.avail.wrap),
                    (index, counter)
                );
                let token = rig.add(&[true]).unwrap();
                let (avail, used) = (1 << 7, 1 << 15);
                let expected = if counter { avail } else { used };
                assert_eq!(rig.flags(index) & (avail | used), expected);
                assert_eq!(rig.ring.pop(), Ok(None), "size {size} lap {lap}");
                rig.serve(1);
                let expected = if counter { avail | used } else { 0 };
                assert_eq!(rig.flags(index) & (avail | used), expected);
                assert_eq!(rig.ring.pop(), Ok(Some(Used { token, written: 1 })));
            }
        }
        rig.no_violations();
    }
}

#[test]
fn what_a_lap_leaves_behind_is_not_taken_for_used() {
    // 2.8.1: that both flags are equal is not enough, nor is one of them.
    let dma = FakeDma::default();
    for size in sizes().filter(|&size| size < 0x8000) {
        let mut rig = Rig::new(&dma, size, 0, EVENT_IDX);
        let mut random = Random(u64::from(size));
        for _ in 0..if cfg!(miri) { 30 } else { 3000 } {
            assert!(!rig.ring.has_used());
            assert_eq!(rig.ring.pop(), Ok(None), "size {size}");
            let count = 1 + random.below(size.min(6).into());
            rig.add(&[false; 6][..count]).unwrap();
            assert!(!rig.ring.has_used());
            assert_eq!(rig.ring.pop(), Ok(None), "size {size}");
            rig.serve(0);
            assert!(rig.ring.has_used());
            assert!(rig.ring.pop().unwrap().is_some());
        }
        rig.no_violations();
    }
}

#[test]
fn a_chain_goes_round_the_end_of_the_ring() {
    // 2.8.6: the flags of each descriptor are by the counter of its own lap.
    let dma = FakeDma::default();
    for size in sizes().filter(|&size| size >= 3) {
        let mut rig = Rig::new(&dma, size, 0, PACKED);
        for end in [size - 1, size - 2] {
            for wrap in [true, false] {
                rig.advance(Place { index: end, wrap });
                let token = rig.add(&[false, true, true]).unwrap();
                let chain = rig.device.take().unwrap();
                assert_eq!(chain.buffers(), rig.buffers(&[false, true, true]));
                let places = (0..3).map(|n| (end + n) % size).collect::<Vec<_>>();
                for (n, &index) in places.iter().enumerate() {
                    let lap = wrap == (index >= end);
                    let next = u16::from(n < 2) * NEXT;
                    let write = u16::from(n > 0) * WRITE;
                    let owner = if lap { AVAIL } else { USED };
                    assert_eq!(
                        rig.flags(index),
                        owner | next | write,
                        "size {size} {index}"
                    );
                }
                rig.device.finish(chain.head(), 32);
                // One used descriptor for the whole list, where it began.
                let used = if wrap { AVAIL | USED } else { 0 };
                assert_eq!(rig.flags(end), used | WRITE);
                assert_eq!(rig.ring.pop(), Ok(Some(Used { token, written: 32 })));
                assert_eq!(rig.ring.used, rig.ring.avail);
            }
        }
        rig.no_violations();
    }
}

#[test]
fn chains_as_long_as_the_ring() {
    // 2.8.17: no longer than the queue; as long it may be, wherever it begins.
    let dma = FakeDma::default();
    for size in [1, 3, 5, 7, 8] {
        let mut rig = Rig::new(&dma, size, 0, EVENT_IDX);
        for _ in 0..3 * size {
            rig.round(&[true; 8][..size.into()], 16);
            rig.round(&[true], 1);
        }
        rig.no_violations();
    }
}

#[test]
fn a_table_is_one_descriptor_whose_other_flags_are_clear() {
    // 2.8.7, 2.8.19; what is in the table the device checks.
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 3, 3, PACKED | Features::INDIRECT_DESC);
    for lap in 0..6 {
        for index in 0..3 {
            let token = rig.add(&[false, true, true]).unwrap();
            let owner = if lap % 2 == 0 { AVAIL } else { USED };
            assert_eq!(rig.flags(index), owner | INDIRECT);
            let chain = rig.device.take().unwrap();
            assert_eq!(chain.buffers(), rig.buffers(&[false, true, true]));
            rig.device.finish(chain.head(), 32);
            assert_eq!(rig.ring.pop(), Ok(Some(Used { token, written: 32 })));
        }
    }
    rig.no_violations();
}

#[test]
fn tables_and_chains_may_be_mixed() {
    // 2.8.5
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 7, 2, PACKED | Features::INDIRECT_DESC);
    for _ in 0..20 {
        rig.round(&[false, true], 16);
        rig.round(&[false, true, true], 32);
    }
    rig.no_violations();
}

#[test]
fn a_used_descriptor_lies_where_the_device_is_not_where_the_request_was() {
    // 2.8, 2.8.6: the second chain is used first, over the first one's descriptor.
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 5, 0, PACKED);
    let first = rig.add(&[true; 2]).unwrap();
    let second = rig.add(&[true; 3]).unwrap();
    for _ in 0..2 {
        rig.device.take().unwrap();
    }
    let used = |token| Ok(Some(Used { token, written: 1 }));
    rig.device.finish(second.index() as u16, 1);
    assert_eq!(rig.ring.pop(), used(second));
    assert_eq!(rig.ring.used_idx(), 3 | 1 << 15);
    // The descriptors that are free now lie before those of the first request's.
    let third = rig.add(&[true; 3]).unwrap();
    assert_eq!((rig.ring.avail_idx(), third), (3, second));
    rig.device.finish(first.index() as u16, 1);
    assert_eq!(rig.ring.pop(), used(first));
    rig.serve(1);
    assert_eq!(rig.ring.pop(), used(third));
    rig.no_violations();
}

/// A device on a thread of its own that looks all the time: when it sees a chain's
/// first descriptor, the last one is there (2.8.6, 2.8.21.1.1); and when the driver
/// sees a used one, what is in it is (2.8.22).
#[test]
fn no_part_of_a_chain_is_seen() {
    const REQUESTS: u32 = if cfg!(miri) { 10 } else { 5000 };
    // A long chain takes long to write. Each begins where the ring does.
    const SIZE: u16 = if cfg!(miri) { 5 } else { 200 };
    let dma = FakeDma::default();
    let Rig {
        mut ring,
        mut device,
        data,
    } = Rig::new(&dma, SIZE, 0, PACKED);
    let flags = ring.addresses().descriptors + 16 * u64::from(SIZE) - 2;
    let flags = dma.cpu_pointer(flags, 2).cast::<u16>();
    // SAFETY: the last descriptor's flags, which both sides access atomically.
    let last = unsafe { AtomicU16::from_ptr(flags) };
    let buffer = |n| Buffer::writable(data.address() + 16 * u64::from(n), 16);
    let chain: Vec<Buffer> = (0..SIZE).map(buffer).collect();
    let stop = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut place = Place::START;
            loop {
                wait_until(|| device.is_waiting() || stop.load(Ordering::Relaxed));
                let flags = u16::from_le(last.load(Ordering::Relaxed));
                if stop.load(Ordering::Relaxed) {
                    assert_eq!(device.violations(), [""; 0]);
                    return;
                }
                if flags & (AVAIL | USED) != place.available() {
                    stop.store(true, Ordering::Relaxed);
                    panic!("only a part is there: the last one's flags are {flags:#x}");
                }
                place = place.step(SIZE, SIZE);
                if let Some(chain) = device.take() {
                    device.finish(chain.head(), chain.writable());
                }
            }
        });
        let mut done = 0;
        while done < REQUESTS {
            // SAFETY: the data outlives the threads, and nobody accesses it.
            unsafe { ring.add(&chain) }.unwrap();
            wait_until(|| ring.has_used() || stop.load(Ordering::Relaxed));
            let Some(used) = ring.pop().unwrap() else {
                break;
            };
            assert_eq!(used.written, 16 * u32::from(SIZE));
            done += 1;
        }
        stop.store(true, Ordering::Relaxed);
        done
    });
    assert_eq!(done, REQUESTS);
}
