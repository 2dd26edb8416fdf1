//! Each of upstream's drivers comes up on a device of its type, and lets go of it.

use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::device::gpu::VirtIOGpu;
use virtio_drivers::device::input::VirtIOInput;
use virtio_drivers::device::net::VirtIONet;
use virtio_drivers::device::socket::VirtIOSocket;
use virtio_drivers::device::sound::VirtIOSound;
use virtio_drivers::device::virtio_9p::VirtIO9p;

use super::*;

type Hal = DmaHal<Copied>;

/// Brings a driver up and drops it.
type Drives = fn(Upstream<'static>) -> virtio_drivers::Result<()>;

/// Device types, the sizes of upstream's queues, whether its drivers give their queues
/// buffers at once, and how they come up.
const DRIVERS: [(u16, &[u16], bool, Drives); 9] = [
    (1, &[16, 16], true, |t| {
        VirtIONet::<Hal, _, 16>::new(t, 2048).map(drop)
    }),
    (2, &[16], false, |t| VirtIOBlk::<Hal, _>::new(t).map(drop)),
    (3, &[2, 2], true, |t| {
        VirtIOConsole::<Hal, _>::new(t).map(drop)
    }),
    (4, &[8], false, |t| VirtIORng::<Hal, _>::new(t).map(drop)),
    (9, &[16], false, |t| VirtIO9p::<Hal, _>::new(t).map(drop)),
    (16, &[2, 2], false, |t| {
        VirtIOGpu::<Hal, _>::new(t).map(drop)
    }),
    (18, &[32, 32], true, |t| {
        VirtIOInput::<Hal, _>::new(t).map(drop)
    }),
    (19, &[8, 8, 8], true, |t| {
        VirtIOSocket::<Hal, _>::new(t).map(drop)
    }),
    (25, &[32, 32, 32, 32], true, |t| {
        VirtIOSound::<Hal, _>::new(t).map(drop)
    }),
];

/// A device of such queues, whose configuration serves each type: a 9P mount tag of one
/// letter, and numbers that are small.
fn device(device_type: u16, queues: &[u16]) -> FakeDevice<'static> {
    let mut config = vec![0; 64];
    config[..3].copy_from_slice(&[1, 0, b'd']);
    let options = Options {
        device_type,
        features: Features::VERSION_1 | Features::INDIRECT_DESC | Features::EVENT_IDX,
        queues: queues.to_vec(),
        config,
        ..Options::default()
    };
    FakeDevice::new(dma(), options)
}

#[test]
fn every_driver_of_upstreams_comes_up() {
    for (device_type, queues, gives, drives) in DRIVERS {
        let device = device(device_type, queues);
        let fault: &Fault = Box::leak(Box::default());
        let doorbells: &AtomicU64 = Box::leak(Box::default());
        let transport = wrap(&device, fault).counting(doorbells);
        let up = fault.check(drives(transport));
        assert_eq!(up, Ok(()), "device type {device_type}");
        let enabled = |queue| Event::Enable(queue as u16);
        let events = device.events();
        assert!((0..queues.len()).all(|queue| events.contains(&enabled(queue))));
        assert!(events.contains(&Event::Status(15)), "DRIVER_OK");
        let rang = doorbells.load(Ordering::Relaxed) > 0;
        assert_eq!(rang, gives, "device type {device_type}");
        assert_eq!(device.status(), DeviceStatus::empty());
    }
}

/// A share without a name. Upstream has a word for that which it has for a queue that is
/// too small, too.
#[test]
fn what_is_wrong_with_no_queue_is_said_of_none() {
    let device = device(9, &[16]);
    device.change(|options| options.config[0] = 0);
    let fault: &Fault = Box::leak(Box::default());
    let made = VirtIO9p::<Hal, _>::new(wrap(&device, fault)).map(drop);
    let error = fault.check(made);
    assert_eq!(error, Err(CompatError::Upstream(Error::InvalidParam)));
    // Upstream (0.13) frees the ring here before it lets go of the device.
    drop(device.violations());
}

#[test]
fn no_driver_of_upstreams_outlives_a_queue_that_it_did_not_get() {
    for (device_type, queues, _, drives) in DRIVERS {
        for missing in 0..queues.len() {
            let mut sizes = queues.to_vec();
            sizes[missing] = 0;
            let device = device(device_type, &sizes);
            let fault: &Fault = Box::leak(Box::default());
            let error = fault.check(drives(wrap(&device, fault)));
            let queue = missing as u16;
            assert_eq!(
                error,
                Err(TransportError::NoQueue { queue }.into()),
                "device type {device_type}"
            );
            assert!(!device.events().contains(&Event::Status(15)));
        }
    }
}
