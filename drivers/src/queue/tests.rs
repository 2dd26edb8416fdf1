use super::*;
use std::vec::Vec;

use crate::dma::DmaRegion;
use crate::dma::fake::FakeDma;
use crate::transport::RingLayout;
use crate::transport::fake::{DeviceRing, FakeDevice, FakeTransport, Options};
use crate::virtio::{Init, Polls};

mod faults;
mod notification;
mod requests;
pub(in crate::queue) mod rig;

use rig::{Make, Random, wait_until};

type Rig<'d> = rig::Rig<'d, AnyRing<&'d FakeDma>>;

/// The features that both kinds of ring are asked for with.
const KINDS: [Features; 2] = [
    Features::VERSION_1,
    Features::VERSION_1.union(Features::RING_PACKED),
];

fn init<'d>(device: &FakeDevice<'d>, wanted: Features) -> Init<FakeTransport<'d>> {
    Init::begin(
        device.transport(),
        wanted,
        Features::empty(),
        &mut Polls(10),
    )
    .unwrap()
}

#[test]
fn a_queue_has_the_size_that_the_device_allows_and_rings_its_own_bell() {
    let dma = FakeDma::default();
    let data = DmaRegion::new(&dma, 16, 1).unwrap();
    let options = Options {
        queues: [4, 0, 64].into(),
        ..Options::default()
    };
    let device = FakeDevice::new(&dma, options);
    let mut init = init(&device, Features::empty());
    let transport = init.transport();
    let mut queue = VirtQueue::new(transport, 2, 100, 0, Features::VERSION_1, &dma).unwrap();
    assert_eq!((queue.size(), queue.index()), (64, 2));
    let error = VirtQueue::new(transport, 1, 8, 0, Features::VERSION_1, &dma).unwrap_err();
    assert_eq!(
        error,
        SetupError::Transport(TransportError::NoQueue { queue: 1 })
    );
    let _transport = init.finish();

    // SAFETY: the data outlives the device's use of it.
    unsafe { queue.add(&[Buffer::writable(data.address(), 16)]) }.unwrap();
    assert!(queue.kick());
    assert!(device.rang(2) && !device.rang(0));
    assert!(!queue.kick(), "nothing new");
    assert!(!device.rang(2));
    queue.notify();
    assert!(device.rang(2), "whatever the device says");
    assert_eq!(queue.doorbells(), 2);
}

#[test]
fn a_packed_queue_has_any_size() {
    // 2.8.10.1
    let dma = FakeDma::default();
    let features = Features::VERSION_1 | Features::RING_PACKED;
    for (announced, wanted, size) in [(7, 100, 7), (100, 33, 33), (0x8000, 0xffff, 0x8000)] {
        let options = Options {
            features,
            queues: [announced].into(),
            ..Options::default()
        };
        let device = FakeDevice::new(&dma, options);
        let mut init = init(&device, features);
        let transport = init.transport();
        let queue = VirtQueue::new(transport, 0, wanted, 0, features, &dma).unwrap();
        assert_eq!((queue.size(), queue.ring().is_packed()), (size, true));
        let _transport = init.finish();
        assert_eq!(device.violations(), [""; 0]);
    }
}

#[test]
fn a_legacy_interface_has_no_packed_rings() {
    let dma = FakeDma::default();
    let options = Options {
        layout: RingLayout::Contiguous { align: 4096 },
        features: Features::empty(),
        ..Options::default()
    };
    let device = FakeDevice::new(&dma, options);
    let mut init = init(&device, Features::empty());
    let error = VirtQueue::new(init.transport(), 0, 8, 0, Features::RING_PACKED, &dma);
    let refused = SetupError::Transport(TransportError::NoPackedRing);
    assert_eq!(error.unwrap_err(), refused);
    drop(init);
    assert_eq!(dma.live(), 0);
}

#[test]
fn interrupts_are_off_at_first() {
    let dma = FakeDma::default();
    for features in KINDS
        .into_iter()
        .flat_map(|kind| [kind, kind | Features::EVENT_IDX])
    {
        let device = FakeDevice::new(
            &dma,
            Options {
                features,
                ..Options::default()
            },
        );
        let mut init = init(&device, features);
        let mut queue = VirtQueue::new(init.transport(), 0, 8, 0, features, &dma).unwrap();
        let _transport = init.finish();
        let data = DmaRegion::new(&dma, 16, 1).unwrap();
        for wanted in [false, true] {
            queue.ring.set_interrupts(wanted);
            // SAFETY: the data outlives the device's use of it.
            unsafe { queue.add(&[Buffer::writable(data.address(), 16)]) }.unwrap();
            assert!(queue.kick());
            assert_eq!(device.process(0, |_| 16), 1);
            assert_eq!(queue.pop().unwrap().unwrap().written, 16);
            assert_eq!(device.interrupts(0), u64::from(wanted));
        }
    }
}

#[test]
fn a_ring_that_the_device_may_have_taken_is_not_freed() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(
        &dma,
        Options {
            refuse_queue: true,
            ..Options::default()
        },
    );
    let mut init = init(&device, Features::empty());
    let error = VirtQueue::new(init.transport(), 0, 8, 0, Features::VERSION_1, &dma).unwrap_err();
    assert_eq!(
        error,
        SetupError::Transport(TransportError::QueueRefused { queue: 0 })
    );
    drop(init);
    assert_eq!(dma.live(), 1);
}

#[test]
fn a_legacy_device_fixes_the_size() {
    let dma = FakeDma::default();
    for (announced, wanted) in [(16, 4), (16, 100)] {
        let options = Options {
            layout: RingLayout::Contiguous { align: 4096 },
            features: Features::empty(),
            queues: [announced].into(),
            ..Options::default()
        };
        let device = FakeDevice::new(&dma, options);
        let mut init = init(&device, Features::empty());
        let queue = VirtQueue::new(init.transport(), 0, wanted, 0, Features::empty(), &dma);
        assert_eq!(queue.unwrap().size(), announced);
    }
    let options = Options {
        layout: RingLayout::Contiguous { align: 4096 },
        queues: [100].into(),
        ..Options::default()
    };
    let device = FakeDevice::new(&dma, options);
    let mut init = init(&device, Features::empty());
    let error = VirtQueue::new(init.transport(), 0, 100, 0, Features::empty(), &dma).unwrap_err();
    assert_eq!(
        error,
        SetupError::Transport(TransportError::QueueSize {
            queue: 0,
            size: 100
        })
    );
}
