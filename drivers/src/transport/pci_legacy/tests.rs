use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::device::blk::disk::{Disk, FLUSH};
use crate::device::{Blk, DeviceError, Driver as _, Setup};
use crate::dma::DmaRegion;
use crate::dma::fake::FakeDma;
use crate::pci::fake::{FakeFunction, FakePci};
use crate::queue::{SetupError, VirtQueue};
use crate::transport::fake::{Event, FakeDevice, FakePorts, Options, stepping};
use crate::transport::pci::tests::found;
use crate::transport::{IsrBits, Notify, read_config_u32, read_config_u64};
use crate::virtio::{Init, Polls};

const BASE: u16 = 0xc040;

const RING: Features = Features::INDIRECT_DESC.union(Features::EVENT_IDX);

fn options() -> Options {
    Options {
        device_type: 4,
        features: RING,
        layout: RingLayout::Contiguous { align: 4096 },
        config: (1..=12).collect(),
        ..Options::default()
    }
}

/// The transport, in a BAR as long as the registers and the configuration.
fn transport<'d>(device: &FakeDevice<'d>, msix: bool) -> PciLegacy<FakePorts<'d>> {
    let len = if msix { 36 } else { 32 };
    // SAFETY: there are no ports behind this.
    let io = unsafe { IoRegion::new(device.ports(BASE, msix), BASE, len) }.unwrap();
    PciLegacy::new(io, 4, msix).unwrap()
}

#[test]
fn the_ports_refuse_what_the_interface_does_not_have() {
    // 4.1.4.10: registers have one width, and some one direction.
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options());
    let ports = device.ports(BASE, false);
    let panics = |access: &dyn Fn()| catch_unwind(AssertUnwindSafe(access)).is_err();
    // SAFETY: there are no ports behind this.
    unsafe {
        assert!(
            panics(&|| _ = ports.read16(BASE)),
            "device features are 32 bits"
        );
        assert!(panics(&|| ports.write32(BASE, 0)), "and read-only");
        assert!(
            panics(&|| ports.write16(BASE + 8, 1)),
            "the queue address is 32 bits"
        );
        assert!(
            panics(&|| ports.write16(BASE + 12, 1)),
            "the queue size is read-only"
        );
        assert!(panics(&|| _ = ports.read32(BASE + 12)));
        assert!(
            panics(&|| ports.write32(BASE + 14, 1)),
            "queue select is 16 bits"
        );
        assert!(
            panics(&|| ports.write16(BASE + 18, 0)),
            "the status is 8 bits"
        );
        assert!(panics(&|| _ = ports.read16(BASE + 18)));
        assert!(panics(&|| _ = ports.read8(BASE - 1)));
        assert!(
            panics(&|| _ = ports.read8(BASE + 32)),
            "behind the configuration"
        );
        assert!(
            panics(&|| _ = ports.read32(BASE + 22)),
            "not a field of 32 bits"
        );
        assert!(panics(&|| _ = ports.notifier(BASE + 14, 0)));
        assert!(panics(&|| _ = ports.isr_status(BASE + 18)));
    }
}

#[test]
fn registers_are_where_the_specification_has_them() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options());
    let mut legacy = transport(&device, false);
    legacy.reset(&mut Polls(1)).unwrap();
    legacy.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    assert_eq!(legacy.status().bits(), 3);
    assert_eq!(legacy.device_features(), RING);
    legacy.accept_features(Features::EVENT_IDX).unwrap();
    assert_eq!(device.features(), Features::EVENT_IDX);
    assert_eq!(legacy.status().bits(), 3, "there is no FEATURES_OK (3.1.2)");
    assert_eq!(legacy.queue_size(0), Ok(QueueSize::Fixed(8)));
    assert_eq!(
        legacy.queue_size(1),
        Err(TransportError::NoQueue { queue: 1 })
    );
    device.raise(3);
    assert_eq!(legacy.isr_status().take(), IsrBits::from_bits_truncate(3));
    assert_eq!(
        (legacy.interface(), legacy.notify_path()),
        (Interface::PciLegacy, NotifyPath::Pio)
    );
}

#[test]
fn features_above_31_cannot_be_accepted() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options());
    let features = Features::VERSION_1 | RING;
    let error = transport(&device, false)
        .accept_features(features)
        .unwrap_err();
    assert_eq!(error, TransportError::FeaturesTooWide { features });
    assert_eq!(device.events(), []);
}

#[test]
fn the_configuration_moves_with_msix() {
    // 4.1.4.10: two vectors come before it while MSI-X is enabled.
    let dma = FakeDma::default();
    for msix in [false, true] {
        let device = FakeDevice::new(&dma, options());
        let mut legacy = transport(&device, msix);
        legacy.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        device.violations();
        assert_eq!(read_config_u64(&legacy, 0), Ok(0x0807_0605_0403_0201));
        assert_eq!(read_config_u32(&legacy, 8, 4), Ok(0x0c0b_0a09));
        assert_eq!(read_config_u32(&legacy, 10, 2), Ok(0x0c0b));
        assert_eq!(read_config_u32(&legacy, 11, 1), Ok(0x0c));
        let outside = TransportError::ConfigRange {
            offset: 10,
            len: 4,
            available: 12,
        };
        assert_eq!(read_config_u32(&legacy, 10, 4), Err(outside));
        let width = TransportError::ConfigRange {
            offset: 0,
            len: 3,
            available: 12,
        };
        assert_eq!(read_config_u32(&legacy, 0, 3), Err(width));
    }
}

#[test]
fn the_configuration_is_written_where_it_is_read() {
    let dma = FakeDma::default();
    for msix in [false, true] {
        let device = FakeDevice::new(&dma, options());
        let mut legacy = transport(&device, msix);
        legacy.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        let before = device.events().len();
        legacy.write_config(1, 1, &[0xa1, 0xa2]).unwrap();
        legacy.write_config(4, 2, &[0xb1, 0xb2]).unwrap();
        legacy
            .write_config(8, 4, &[0xc1, 0xc2, 0xc3, 0xc4])
            .unwrap();
        // By accesses of the field's width, in ascending order.
        let writes = [1, 2, 4, 8].map(Event::WriteConfig);
        assert_eq!(device.events()[before..], writes);
        let expected = [1, 0xa1, 0xa2, 4, 0xb1, 0xb2, 7, 8, 0xc1, 0xc2, 0xc3, 0xc4];
        device.change(|options| assert_eq!(options.config, expected));
        for (offset, width, len) in [(10, 4, 4), (0, 3, 3), (0, 2, 3), (12, 1, 1)] {
            let error = TransportError::ConfigRange {
                offset,
                len,
                available: 12,
            };
            let written = legacy.write_config(offset, width, &[0; 4][..len]);
            assert_eq!(written, Err(error));
        }
        device.change(|options| assert_eq!(options.config, expected));
    }
}

#[test]
fn vectors_are_there_while_msix_is_enabled() {
    // 4.1.5.1.2
    let dma = FakeDma::default();
    let two_queues = || Options {
        queues: [8, 8].into(),
        vectors: 2,
        ..options()
    };
    let device = FakeDevice::new(&dma, two_queues());
    let mut legacy = transport(&device, true);
    let (config, queue) = (Interrupt::ConfigChange, Interrupt::Queue(1));
    legacy.set_vector(config, Some(0)).unwrap();
    legacy.set_vector(queue, Some(1)).unwrap();
    let refused = TransportError::VectorRefused { vector: 2 };
    assert_eq!(legacy.set_vector(queue, Some(2)), Err(refused));
    assert_eq!(legacy.set_vector(config, Some(2)), Err(refused));
    legacy.set_vector(queue, None).unwrap();
    let events = [
        Event::Vector(config, Some(0)),
        Event::Vector(queue, Some(1)),
        Event::Vector(queue, Some(2)),
        Event::Vector(config, Some(2)),
        Event::Vector(queue, None),
    ];
    assert_eq!(device.events(), events);

    let device = FakeDevice::new(&dma, two_queues());
    let mut legacy = transport(&device, false);
    for interrupt in [config, queue] {
        let none = Err(TransportError::NoVectors);
        assert_eq!(legacy.set_vector(interrupt, Some(0)), none);
    }
    assert_eq!(device.events(), []);
}

#[test]
fn no_queue_is_reset_by_itself() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options());
    let error = transport(&device, false).reset_queue(0, &mut Polls(1));
    assert_eq!(error, Err(TransportError::NoQueueReset { queue: 0 }));
    assert_eq!(device.events(), []);
}

#[test]
fn a_bar_that_is_too_short() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options());
    for (len, msix, ok) in [
        (19, false, false),
        (20, false, true),
        (20, true, false),
        (24, true, true),
    ] {
        // SAFETY: there are no ports behind this.
        let io = unsafe { IoRegion::new(device.ports(BASE, msix), BASE, len) }.unwrap();
        assert_eq!(
            PciLegacy::new(io, 4, msix).is_ok(),
            ok,
            "{len} ports, MSI-X {msix}"
        );
    }
}

#[test]
fn a_queue_is_given_by_its_page() {
    // 4.1.5.1.3.1
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options());
    let mut init = Init::begin(
        transport(&device, false),
        RING,
        Features::empty(),
        &mut Polls(1),
    )
    .unwrap();
    let legacy = init.transport();
    let memory = DmaRegion::new(&dma, 8192, 4096).unwrap();
    let at = |offset| RingAddresses {
        descriptors: memory.address() + offset,
        driver: memory.address() + 128,
        device: memory.address() + 4096,
    };
    // SAFETY: no error gives the device the ring, and the ring is empty.
    let mut enable = |queue, size, at| unsafe { legacy.enable_queue(queue, size, &at) };
    let size = TransportError::QueueSize { queue: 0, size: 4 };
    assert_eq!(
        enable(0, 4, at(0)).unwrap_err(),
        size,
        "the device fixed it"
    );
    assert_eq!(
        enable(1, 8, at(0)).unwrap_err(),
        TransportError::NoQueue { queue: 1 }
    );
    let address = memory.address() + 2048;
    let unaligned = TransportError::RingAddress { queue: 0, address };
    assert_eq!(enable(0, 8, at(2048)).unwrap_err(), unaligned);
    // A page number has 32 bits.
    let far = RingAddresses {
        descriptors: 1 << 44,
        driver: 0,
        device: 0,
    };
    let error = TransportError::RingAddress {
        queue: 0,
        address: 1 << 44,
    };
    assert_eq!(enable(0, 8, far).unwrap_err(), error);
    let zero = RingAddresses {
        descriptors: 0,
        driver: 0,
        device: 0,
    };
    let error = TransportError::RingAddress {
        queue: 0,
        address: 0,
    };
    assert_eq!(enable(0, 8, zero).unwrap_err(), error);
    assert!(!device.events().contains(&Event::Enable(0)));
}

#[test]
fn a_queue_in_use_is_not_taken_over() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options());
    let mut init = Init::begin(
        transport(&device, false),
        RING,
        Features::empty(),
        &mut Polls(1),
    )
    .unwrap();
    let legacy = init.transport();
    let queue = VirtQueue::new(legacy, 0, 8, 3, RING, &dma).unwrap();
    let error = VirtQueue::new(legacy, 0, 8, 3, RING, &dma).unwrap_err();
    assert_eq!(
        error,
        SetupError::Transport(TransportError::QueueInUse { queue: 0 })
    );
    assert!(!device.rang(0));
    let _transport = init.finish();
    queue.notifier().notify();
    assert!(device.rang(0));
}

#[test]
fn a_disk_session() {
    for (ring, msix) in [(Features::empty(), false), (RING, false), (RING, true)] {
        let dma = FakeDma::default();
        let mut disk = Disk::new(64);
        let layout = RingLayout::Contiguous { align: 4096 };
        let device = FakeDevice::new(
            &dma,
            Options {
                layout,
                ..disk.options(FLUSH | ring, 64)
            },
        );
        // SAFETY: there are no ports behind this.
        let io = unsafe { IoRegion::new(device.ports(BASE, msix), BASE, 128) }.unwrap();
        let legacy = PciLegacy::new(io, 2, msix).unwrap();
        let mut blk = Blk::new(legacy, &Setup::new(4, RING), &dma, &mut Polls(100)).unwrap();
        assert_eq!(blk.queue(0).size(), 64);
        assert_eq!(blk.info().capacity, 64);
        let mut sectors = [0; 4 * 512];
        let mut wait = stepping(|| {
            device.process(0, |chain| disk.serve(chain));
        });
        blk.read(60, &mut sectors, &mut wait).unwrap();
        assert_eq!((sectors[0], sectors[3 * 512]), (60, 63));
        blk.write(1, &[9; 512], &mut wait).unwrap();
        blk.flush(&mut wait).unwrap();
        blk.device_id(&mut wait).unwrap();
        assert_eq!(blk.queue(0).doorbells(), 4);
        drop(blk);
        drop(wait);
        assert_eq!((disk.data[512], disk.flushes), (9, 1));
        assert_eq!(device.status(), DeviceStatus::empty());
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn a_size_that_changes_while_it_is_looked_at() {
    // The driver's own tables are of the first size.
    let dma = FakeDma::default();
    let disk = Disk::new(64);
    let layout = RingLayout::Contiguous { align: 4096 };
    let options = Options {
        layout,
        fickle: true,
        ..disk.options(FLUSH, 8)
    };
    let device = FakeDevice::new(&dma, options);
    // SAFETY: there are no ports behind this.
    let io = unsafe { IoRegion::new(device.ports(BASE, false), BASE, 128) }.unwrap();
    let legacy = PciLegacy::new(io, 2, false).unwrap();
    let error = Blk::new(legacy, &Setup::new(4, RING), &dma, &mut Polls(100)).unwrap_err();
    let size = TransportError::QueueSize { queue: 0, size: 8 };
    assert_eq!(error, DeviceError::Setup(SetupError::Transport(size)));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    assert_eq!(dma.live(), 0);
}

/// The legacy interface of a function, with the ports of `device` behind it.
fn of_function<'d>(
    device: &FakeDevice<'d>,
    msix: bool,
    function: FakeFunction,
) -> Result<PciLegacy<FakePorts<'d>>, PciError> {
    let pci = FakePci::new().with(1, 0, function);
    let function = found(&pci);
    assert_eq!(check(&function).is_ok(), function.bars[0].is_some());
    // SAFETY: there are no ports behind this.
    unsafe { PciLegacy::from_function(&function, &pci, device.ports(BASE, msix)) }
}

#[test]
fn a_transitional_function_is_driven_through_its_bar_0() {
    // 4.1.2.3: a transitional ID, and the type in the subsystem device ID.
    let function = || {
        FakeFunction::endpoint(0x1af4, 0x1005)
            .subsystem(0x1af4, 4)
            .io_bar(0, 64)
            .at(0, BASE.into())
    };
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, options());
    let legacy = of_function(&device, false, function()).unwrap();
    assert_eq!((legacy.device_type(), legacy.config), (4, 20));
    // 4.1.5.1.3.1: with MSI-X enabled, two vectors come first.
    for (control, config) in [(0x8001u16, 24), (0x0001, 20)] {
        let [low, high] = control.to_le_bytes();
        let with_msix = function().capability(0x11, &[low, high, 0, 0, 0, 0, 0, 0, 0, 0]);
        let legacy = of_function(&device, config == 24, with_msix).unwrap();
        assert_eq!(legacy.config, config);
    }
    let modern = FakeFunction::endpoint(0x1af4, 0x1044);
    assert_eq!(
        of_function(&device, false, modern).unwrap_err(),
        PciError::NotTransitional {
            vendor: 0x1af4,
            device: 0x1044
        }
    );
    let memory = FakeFunction::endpoint(0x1af4, 0x1005).subsystem(0x1af4, 4);
    assert_eq!(
        of_function(&device, false, memory).unwrap_err(),
        PciError::NoBar { bar: 0 }
    );
}
