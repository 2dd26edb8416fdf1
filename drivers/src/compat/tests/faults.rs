//! What goes wrong, and what is said of it.

use super::*;

/// What `make` says, when nothing of the device's is left behind.
fn fault_of<R>(
    device: &FakeDevice<'static>,
    make: impl FnOnce(Upstream<'static>) -> virtio_drivers::Result<R>,
) -> CompatError {
    let fault: &Fault = Box::leak(Box::default());
    let error = fault.check(make(wrap(device, fault))).err().unwrap();
    assert_eq!(dma().live(), 0);
    assert!(!device.status().contains(DeviceStatus::DRIVER_OK));
    error
}

fn blk<'f>(transport: Upstream<'f>) -> virtio_drivers::Result<UpstreamBlk<'f>> {
    VirtIOBlk::new(transport)
}

#[test]
fn a_fixed_size_that_is_not_upstreams_is_refused_in_a_sentence() {
    let device = block_device(256, legacy);
    let error = fault_of(&device, blk);
    assert_eq!(
        error.to_string(),
        "queue 0 has a fixed size of 256, and virtio-drivers wants 16: drive this device by its modern interface"
    );
    assert_eq!(device.status(), DeviceStatus::FAILED);
    assert!(!device.events().contains(&Event::Enable(0)));
}

#[test]
fn a_queue_that_is_too_small_is_named() {
    for change in [|_: &mut Options| (), legacy] {
        let error = fault_of(&block_device(8, change), blk);
        assert_eq!(error, CompatError::QueueTooSmall { queue: 0, size: 8 });
    }
}

#[test]
fn a_missing_queue_is_named() {
    let device = block_device(0, |_| ());
    let missing = TransportError::NoQueue { queue: 0 };
    assert_eq!(fault_of(&device, blk), missing.into());
    assert_eq!(device.status(), DeviceStatus::FAILED);
}

#[test]
fn refused_features_are_named() {
    let device = block_device(16, |options| options.refuse_features = true);
    let refused = fault_of(&device, blk);
    let features = Features::VERSION_1 | FLUSH | Features::INDIRECT_DESC | Features::EVENT_IDX;
    assert_eq!(refused, TransportError::FeaturesRefused { features }.into());
}

#[test]
fn a_driver_that_hides_version_1_is_told() {
    let device = block_device(16, |_| ());
    let fault = fault_of(&device, |transport| {
        blk(transport.without(Features::VERSION_1))
    });
    assert!(
        matches!(
            fault,
            CompatError::Transport(TransportError::NoVersion1 { .. })
        ),
        "{fault}"
    );
}

#[test]
fn a_refused_queue_is_named_and_taken_back() {
    let device = block_device(16, |options| options.refuse_queue = true);
    let refused = TransportError::QueueRefused { queue: 0 };
    assert_eq!(fault_of(&device, blk), refused.into());
    // That the ring's memory was not freed before the reset is the device's watch.
    assert_eq!(device.status(), DeviceStatus::FAILED);
}

#[test]
fn memory_that_runs_out_is_upstreams_own_error() {
    struct Nothing;
    struct Empty;
    // SAFETY: it has no memory.
    unsafe impl Dma for Empty {
        fn allocate(&self, size: usize, align: usize) -> Result<DmaMemory, DmaError> {
            Err(DmaError { size, align })
        }

        unsafe fn free(&self, _: DmaMemory) {
            unreachable!("nothing was allocated");
        }
    }
    // SAFETY: as above.
    unsafe impl StaticDma for Nothing {
        type Dma = Empty;

        fn dma() -> Empty {
            Empty
        }

        unsafe fn share(_: NonNull<[u8]>, _: BufferDirection) -> u64 {
            unreachable!("there is no ring");
        }

        unsafe fn unshare(_: u64, _: NonNull<[u8]>, _: BufferDirection) {
            unreachable!("there is no ring");
        }
    }
    let device = block_device(16, |_| ());
    let error = fault_of(&device, VirtIOBlk::<DmaHal<Nothing>, Upstream>::new);
    assert_eq!(error, CompatError::Upstream(Error::DmaError));
    assert_eq!(device.status(), DeviceStatus::empty());
}

#[test]
fn a_ring_out_of_place_is_not_given_to_a_legacy_device() {
    let (device, fault) = (plain(legacy), Fault::new());
    let mut transport = wrap(&device, &fault);
    transport.begin_init(Feature::empty());
    let ring = DmaRegion::new(dma(), 3 * PAGE_SIZE, PAGE_SIZE).unwrap();
    let at = ring.address();
    // The used ring belongs at the next page.
    transport.queue_set(0, 8, at, at + 128, at + 256);
    assert_eq!(fault.get(), Some(CompatError::Layout { queue: 0 }));
    assert!(!device.events().contains(&Event::Enable(0)));
}

#[test]
fn one_queue_too_many_is_named() {
    let device = plain(|options| options.queues = vec![8; usize::from(QUEUES) + 1]);
    let fault = Fault::new();
    let mut transport = wrap(&device, &fault);
    transport.begin_init(Feature::VERSION_1);
    let last = set_queue(&mut transport, QUEUES - 1, 8);
    assert_eq!(fault.get(), None);
    let more = set_queue(&mut transport, QUEUES, 8);
    let error = CompatError::TooManyQueues { queue: QUEUES };
    assert_eq!(fault.get(), Some(error));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    drop((last, more));
}

#[test]
fn after_a_fault_nothing_more_is_done() {
    let (device, fault) = (plain(|_| ()), Fault::new());
    let mut transport = wrap(&device, &fault);
    transport.begin_init(Feature::VERSION_1);
    let ring = set_queue(&mut transport, 0, 8);
    let wanted = set_queue(&mut transport, 1, 16);
    let first = CompatError::QueueTooSmall { queue: 1, size: 8 };
    assert_eq!(fault.get(), Some(first));
    // The first queue's memory was the device's, until it was given up.
    drop((ring, wanted));
    let events = device.events().len();
    assert_eq!(transport.max_queue_size(2), 0);
    let ring = set_queue(&mut transport, 2, 8);
    transport.write_driver_features(0);
    transport.finish_init();
    transport.notify(0);
    transport.queue_unset(0);
    assert_eq!(transport.read_config_space::<u8>(0), Err(Error::IoError));
    assert_eq!(transport.write_config_space(0, 0_u8), Err(Error::IoError));
    assert!(!transport.queue_used(0) && !transport.queue_used(2));
    drop(transport);
    assert_eq!(device.events().len(), events);
    assert_eq!(fault.get(), Some(first), "and it stays the first");
    drop(ring);
}

#[test]
fn a_device_that_does_not_reset_is_said_to_keep_its_memory() {
    let device = block_device(16, |_| ());
    let fault = Fault::new();
    let blk: UpstreamBlk = fault.check(VirtIOBlk::new(wrap(&device, &fault))).unwrap();
    assert!(!fault.is_memory_kept());
    device.change(|options| options.reset_reads = u32::MAX);
    drop(blk);
    let status = DeviceStatus::from_bits_retain(0x0f);
    let timeout = TransportError::ResetTimeout {
        status: status.bits(),
    };
    assert_eq!(fault.get(), Some(timeout.into()));
    assert!(fault.is_memory_kept());
    // The ring is gone, and the device still has it: the watch sees that.
    device.change(|options| options.reset_reads = 0);
    device.transport().reset(&mut || true).unwrap();
    assert!(!device.violations().is_empty());
}

#[test]
fn a_device_that_is_gone_ends_the_way_up() {
    let device = block_device(16, |options| options.gone = true);
    let fault = Fault::new();
    assert!(fault.check(blk(wrap(&device, &fault))).is_err());
    assert_eq!(fault.get(), Some(TransportError::Gone.into()));
    drop(device.violations());
}

#[test]
fn a_device_that_goes_on_the_way_up_is_not_written_to() {
    let (device, fault) = (plain(|_| ()), Fault::new());
    let mut transport = wrap(&device, &fault);
    transport.set_status(upstream::DeviceStatus::empty());
    device.unplug();
    transport.set_status(upstream::DeviceStatus::ACKNOWLEDGE);
    assert_eq!(fault.get(), Some(TransportError::Gone.into()));
    let acknowledged = |event: &Event| matches!(event, Event::Status(bits) if bits & 1 != 0);
    let given_up = Event::Status(u8::MAX);
    let mut events = device.events().into_iter();
    assert!(!events.any(|event| acknowledged(&event) && event != given_up));
    drop(device.violations());
}

#[test]
fn the_first_fault_stays() {
    let fault = Fault::new();
    let first = CompatError::Layout { queue: 1 };
    fault.report(first);
    fault.report(CompatError::Layout { queue: 2 });
    assert_eq!(fault.get(), Some(first));
    assert_eq!(fault.check(Ok(())), Err(first));
}

#[test]
fn a_configuration_that_never_stands_still_ends_a_read() {
    let device = block_device(16, |options| {
        options.config_hook = Some(Box::new(|_, generation| *generation += 1));
    });
    let unstable = TransportError::ConfigUnstable { offset: 0 };
    assert_eq!(fault_of(&device, blk), unstable.into());
}

#[test]
fn a_type_that_upstream_does_not_know_is_refused() {
    let device = plain(|options| options.device_type = 40);
    let fault = Fault::new();
    // SAFETY: nothing is driven.
    let error = unsafe { Compat::new(device.transport(), &fault) }.unwrap_err();
    assert_eq!(error, CompatError::DeviceType { device_type: 40 });
}
