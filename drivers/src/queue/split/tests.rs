use std::vec::Vec;

use super::*;
use crate::dma::fake::FakeDma;
use crate::transport::fake::DeviceRing;

mod faults;
mod layout;
mod notification;

const LEGACY: RingLayout = RingLayout::Contiguous { align: 4096 };
const DIRECT: Features = Features::VERSION_1;
const INDIRECT: Features = Features::VERSION_1.union(Features::INDIRECT_DESC);
const EVENT_IDX: Features = Features::VERSION_1.union(Features::EVENT_IDX);

/// A ring with both of its sides.
struct Rig<'d> {
    ring: SplitRing<&'d FakeDma>,
    device: DeviceRing<'d>,
    /// What the buffers point to.
    data: DmaRegion<&'d FakeDma>,
}

impl<'d> Rig<'d> {
    /// Requests of up to `indirect` buffers may take a table.
    fn new(dma: &'d FakeDma, size: u16, indirect: u16, features: Features) -> Self {
        let layout = RingLayout::Separate;
        let ring = SplitRing::new(size, layout, indirect, features, dma).unwrap();
        let device = DeviceRing::new(dma, size, ring.addresses(), features);
        Self {
            ring,
            device,
            data: DmaRegion::new(dma, 4096, 1).unwrap(),
        }
    }

    /// `writable` says of each buffer which kind it is; each has 16 bytes.
    fn buffers(&self, writable: &[bool]) -> Vec<Buffer> {
        let address = |index| self.data.address() + 16 * index as u64;
        let buffer = |(index, &writable)| Buffer {
            address: address(index),
            len: 16,
            writable,
        };
        writable.iter().enumerate().map(buffer).collect()
    }

    fn add(&mut self, writable: &[bool]) -> Result<Token, QueueError> {
        let buffers = self.buffers(writable);
        // SAFETY: the data lives as long as the rig, and nobody reads it.
        unsafe { self.ring.add(&buffers) }
    }

    /// The device takes a request and gives it back.
    fn serve(&mut self, written: u32) {
        let chain = self.device.take().expect("a request was made available");
        self.device.finish(chain.head(), written);
    }

    fn no_violations(&self) {
        assert_eq!(self.device.violations, [""; 0]);
    }
}

/// A sequence of numbers without a pattern that matters (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn a_request_arrives_as_it_was_made() {
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 8, 0, DIRECT);
    let token = rig.add(&[false, false, true, true]).unwrap();
    let buffers = rig.buffers(&[false, false, true, true]);
    let chain = rig.device.take().unwrap();
    assert_eq!(usize::from(chain.head()), token.index());
    assert_eq!(chain.buffers(), buffers, "in order, with flags (2.7.13.1)");
    assert_eq!(chain.descriptors(), 4);
    assert!(rig.device.take().is_none());
    rig.no_violations();

    assert_eq!(rig.ring.pop(), Ok(None));
    assert_eq!(rig.ring.in_flight(), 1);
    rig.device.finish(chain.head(), 20);
    assert_eq!(rig.ring.pop(), Ok(Some(Used { token, written: 20 })));
    assert_eq!(rig.ring.in_flight(), 0);
    assert_eq!(rig.ring.pop(), Ok(None));
}

#[test]
fn a_table_takes_one_descriptor_of_the_ring() {
    // 2.7.5.3
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 4, 3, INDIRECT);
    for _ in 0..4 {
        rig.add(&[false, true, true]).unwrap();
    }
    let error = QueueError::Full { needed: 1, free: 0 };
    assert_eq!(
        rig.add(&[false, true]),
        Err(error),
        "four descriptors, four requests"
    );
    let buffers = rig.buffers(&[false, true, true]);
    for _ in 0..4 {
        let chain = rig.device.take().unwrap();
        assert_eq!((chain.descriptors(), chain.buffers()), (1, &buffers[..]));
    }
    rig.no_violations();
}

#[test]
fn a_table_is_used_only_where_it_helps_and_may_be() {
    let dma = FakeDma::default();
    // One buffer; more than a table holds; without the feature (2.7.5.3.1).
    for (indirect, features, count) in [(3, INDIRECT, 1), (3, INDIRECT, 4), (4, DIRECT, 4)] {
        let mut rig = Rig::new(&dma, 8, indirect, features);
        rig.add(&[true; 4][..count]).unwrap();
        let chain = rig.device.take().unwrap();
        assert_eq!((chain.is_indirect(), chain.descriptors()), (false, count));
        rig.no_violations();
    }
    let before = dma.live();
    drop(SplitRing::new(8, RingLayout::Separate, 1, INDIRECT, &dma));
    // What is left is the ring itself; no tables.
    assert_eq!(dma.live(), before + 1);
}

#[test]
fn a_request_that_no_queue_takes_is_refused() {
    let dma = FakeDma::default();
    for features in [DIRECT, INDIRECT] {
        let mut rig = Rig::new(&dma, 4, 8, features);
        let refused = |buffers| Err(QueueError::Chain { buffers });
        assert_eq!(rig.add(&[]), refused(0), "empty (2.7.13.1)");
        assert_eq!(
            rig.add(&[true; 5]),
            refused(5),
            "longer than the queue (2.7.5.3.1)"
        );
        assert_eq!(
            rig.add(&[true, false]),
            refused(2),
            "writable ones go last (2.7.4.2)"
        );
        let mut buffers = rig.buffers(&[false, true]);
        buffers[1].len = 0;
        // SAFETY: no buffer is taken.
        let empty = unsafe { rig.ring.add(&buffers) };
        assert_eq!(empty, refused(2), "a buffer without bytes");
        (buffers[0].len, buffers[1].len) = (u32::MAX, 1);
        // SAFETY: no buffer is taken.
        let huge = unsafe { rig.ring.add(&buffers) };
        assert_eq!(huge, refused(2), "4 GiB (2.7.5.2)");
        assert_eq!(rig.ring.in_flight(), 0);
        assert_eq!(rig.device.waiting(), 0);
        rig.add(&[true; 4]).unwrap();
        assert!(rig.device.take().is_some());
        rig.no_violations();
    }
}

#[test]
fn a_full_queue_says_so_and_takes_more_later() {
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 8, 0, DIRECT);
    rig.add(&[true; 3]).unwrap();
    rig.add(&[true; 3]).unwrap();
    assert_eq!(
        rig.add(&[true; 3]),
        Err(QueueError::Full { needed: 3, free: 2 })
    );
    rig.add(&[true; 2]).unwrap();
    let full = QueueError::Full { needed: 1, free: 0 };
    assert_eq!(rig.add(&[true]), Err(full));
    assert_eq!(rig.ring.next_token(), Err(full));
    assert!(!full.is_device_fault());
    rig.serve(0);
    assert_eq!(rig.add(&[true]), Err(full), "not before it is taken back");
    rig.ring.pop().unwrap().unwrap();
    let next = rig.ring.next_token().unwrap();
    assert_eq!(rig.add(&[true; 3]), Ok(next));
    rig.no_violations();
}

#[test]
fn requests_may_finish_in_any_order() {
    let dma = FakeDma::default();
    for (indirect, features) in [(0, DIRECT), (3, INDIRECT), (2, INDIRECT | EVENT_IDX)] {
        let mut rig = Rig::new(&dma, 16, indirect, features);
        let mut random = Random(1);
        let (mut taken, mut tokens) = (Vec::new(), Vec::new());
        for _ in 0..if cfg!(miri) { 300 } else { 20_000 } {
            match random.below(4) {
                0 | 1 => match rig.add(&[true; 4][..1 + random.below(4)]) {
                    Ok(token) => tokens.push(token),
                    Err(error) => assert!(matches!(error, QueueError::Full { .. }), "{error}"),
                },
                2 => taken.extend(rig.device.take()),
                _ if taken.is_empty() => {}
                _ => {
                    let chain = taken.swap_remove(random.below(taken.len()));
                    let written = random.below(16) as u32;
                    rig.device.finish(chain.head(), written);
                    let used = rig.ring.pop().unwrap().unwrap();
                    assert_eq!(used.token.index(), usize::from(chain.head()));
                    assert_eq!(used.written, written);
                    let at = tokens.iter().position(|&token| token == used.token);
                    tokens.swap_remove(at.expect("it was in flight, once"));
                }
            }
            assert_eq!(usize::from(rig.ring.in_flight()), tokens.len());
        }
        taken.extend(core::iter::from_fn(|| rig.device.take()));
        for chain in taken {
            rig.device.finish(chain.head(), 0);
            rig.ring.pop().unwrap().unwrap();
        }
        // No descriptor was lost, and none is there twice.
        for _ in 0..16 {
            rig.add(&[true]).unwrap();
            assert!(rig.device.take().is_some());
        }
        rig.no_violations();
    }
}

#[test]
fn the_ring_is_freed_on_release_only() {
    let dma = FakeDma::default();
    let mut rig = Rig::new(&dma, 8, 3, INDIRECT);
    rig.add(&[false, true]).unwrap();
    assert_eq!(dma.live(), 4, "ring, tables, notes, data");
    // SAFETY: the device is a fake, and does nothing more.
    unsafe { rig.ring.release() };
    assert_eq!(dma.live(), 2, "notes, data");
    assert_eq!(rig.add(&[true]), Err(QueueError::Broken));
    assert_eq!(rig.ring.pop(), Err(QueueError::Broken));
    assert!(!rig.ring.needs_notification());
    rig.ring.set_interrupts(true);
    drop(rig);
    assert_eq!(dma.live(), 0);

    drop(Rig::new(&dma, 8, 3, INDIRECT));
    assert_eq!(dma.live(), 2, "a device may still use ring and tables");
}
