//! The fake device notices what it is there to notice.

use std::string::String;

use super::*;
use crate::dma::DmaRegion;
use crate::dma::fake::FakeDma;
use crate::queue::{Buffer, VirtQueue};
use crate::virtio::{Init, Polls};

/// One violation was noted, and it says `what`.
fn noted(device: &FakeDevice, what: &str) {
    let violations = device.violations();
    let [only] = &violations[..] else {
        panic!("not one violation: {violations:?}")
    };
    assert!(only.contains(what), "{only}");
}

fn set(transport: &mut FakeTransport, bits: u8) {
    transport.set_status(DeviceStatus::from_bits_retain(bits));
}

const AT: RingAddresses = RingAddresses {
    descriptors: 0,
    driver: 0x1000,
    device: 0x2000,
};

#[test]
fn steps_out_of_order() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, Options::default());
    let mut transport = device.transport();
    transport.device_features();
    noted(&device, "before DRIVER");
    set(&mut transport, 3);
    set(&mut transport, 1);
    noted(&device, "2.1.1");
    set(&mut transport, 3);
    let excess = Features::VERSION_1 | Features::EVENT_IDX;
    transport.accept_features(excess).unwrap();
    noted(&device, "not offered");
    transport.accept_features(Features::VERSION_1).unwrap();
    noted(&device, "too late");
    set(&mut transport, 0);
    set(&mut transport, 1);
    noted(&device, "before the reset was finished");
    transport.reset(&mut Polls(1)).unwrap();
    set(&mut transport, 7);
    noted(&device, "without FEATURES_OK");
}

#[test]
fn queues_that_make_no_sense() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, Options::default());
    let mut transport = device.transport();
    transport.reset(&mut Polls(1)).unwrap();
    set(&mut transport, 11);
    let enable = |transport: &mut FakeTransport, size, at: &RingAddresses| {
        // SAFETY: the fake refuses what is no shared memory.
        unsafe { transport.enable_queue(0, size, at) }.map(drop)
    };
    let refused = Err(TransportError::QueueRefused { queue: 0 });
    assert_eq!(enable(&mut transport, 8, &AT), refused);
    noted(&device, "not in shared memory");
    let memory = DmaRegion::new(&dma, 4096, 4096).unwrap();
    let base = memory.address();
    let at = |driver, device| RingAddresses {
        descriptors: base,
        driver: base + driver,
        device: base + device,
    };
    enable(&mut transport, 8, &at(0x100, 0x202)).unwrap();
    noted(&device, "not aligned");
    enable(&mut transport, 8, &at(0x100, 0x200)).unwrap();
    noted(&device, "enabled twice");
    transport.reset(&mut Polls(1)).unwrap();
    set(&mut transport, 11);
    enable(&mut transport, 16, &at(0x100, 0x200)).unwrap();
    noted(&device, "the size 16 of 8");
    drop(memory);
    transport.reset(&mut Polls(1)).unwrap();
    noted(&device, "freed before the reset");
}

#[test]
fn doorbells_and_memory() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, Options::default());
    let no = Features::empty();
    let mut init = Init::begin(device.transport(), no, no, &mut Polls(1)).unwrap();
    let mut queue = VirtQueue::new(init.transport(), 0, 8, 0, no, &dma).unwrap();
    queue.notify();
    let mut transport = init.finish();
    noted(&device, "without DRIVER_OK");

    let data = DmaRegion::new(&dma, 16, 1).unwrap();
    // SAFETY: the device is a fake that looks before it reads.
    unsafe { queue.add(&[Buffer::readable(data.address(), 16)]) }.unwrap();
    let chain = device.take(0).unwrap();
    assert_eq!(chain.readable(), [0; 16]);
    drop(data);
    transport.reset(&mut Polls(1)).unwrap();
    noted(&device, "request's memory was freed");
    device.finish(0, &chain, 0);
    assert_eq!(
        queue.pop(),
        Ok(None),
        "a device that was reset writes nothing"
    );
    queue.notify();
    noted(&device, "without DRIVER_OK");
}

#[test]
fn a_violation_that_nobody_took_ends_the_test() {
    let dropped = std::panic::catch_unwind(|| {
        let dma = FakeDma::default();
        let device = FakeDevice::new(&dma, Options::default());
        device.transport().device_features();
    });
    let message = *dropped.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("the driver broke the rules"), "{message}");
}

#[test]
fn a_configuration_that_changes_is_read_untorn() {
    // 2.5.1, and 2.5.4 for a legacy device, which has no generation.
    for legacy in [false, true] {
        let dma = FakeDma::default();
        let mut reads = 0;
        let hook = move |config: &mut std::vec::Vec<u8>, generation: &mut u32| {
            reads += 1;
            // It changes between the two halves of the first read.
            if reads == 2 {
                config.copy_from_slice(&u64::to_le_bytes(0x2222_2222_2222_2222));
                *generation += u32::from(!legacy);
            }
        };
        let options = Options {
            config: u64::to_le_bytes(0x1111_1111_1111_1111).into(),
            config_hook: Some(std::boxed::Box::new(hook)),
            ..Options::default()
        };
        let device = FakeDevice::new(&dma, options);
        set(&mut device.transport(), 3);
        let value = crate::transport::read_config_u64(&device.transport(), 0);
        assert_eq!(value, Ok(0x2222_2222_2222_2222));
    }
}

#[test]
fn a_configuration_that_never_stands_still_is_given_up() {
    let dma = FakeDma::default();
    let hook = |_: &mut std::vec::Vec<u8>, generation: &mut u32| *generation += 1;
    let options = Options {
        config: [0; 16].into(),
        config_hook: Some(std::boxed::Box::new(hook)),
        ..Options::default()
    };
    let device = FakeDevice::new(&dma, options);
    set(&mut device.transport(), 3);
    let value = crate::transport::read_config_u64(&device.transport(), 8);
    assert_eq!(value, Err(TransportError::ConfigUnstable { offset: 8 }));
}
