//! Lies about queues' sizes, and in the ISR status.

use doorbell::device::blk::SECTOR;
use doorbell::device::rng::Rng;
use doorbell::device::{DeviceError, Driver, Setup};
use doorbell::dma::fake::FakeDma;
use doorbell::queue::{QueueError, SetupError};
use doorbell::transport::fake::{FakeDevice, Options};
use doorbell::transport::{DeviceStatus, RingLayout, Transport, TransportError};
use doorbell::virtio::{Features, Polls};

use crate::block;
use crate::session::{FakeRng, PACKED, SPLIT, Session, entropy, rng_options};

/// A driver of a device whose queue has this size, and as many as it likes.
fn sized<'d>(
    dma: &'d FakeDma,
    features: Features,
    size: u16,
) -> (FakeDevice<'d>, Result<FakeRng<'d>, DeviceError>) {
    let options = Options {
        queues: [size].into(),
        ..rng_options(features)
    };
    let device = FakeDevice::new(dma, options);
    let setup = Setup::new(u16::MAX, features);
    let rng = Rng::new(device.transport(), &setup, dma, &mut Polls(10));
    (device, rng)
}

pub(crate) fn queue_sizes_that_no_ring_has() -> String {
    // A modern device's is the most that there may be; more than 32768 is for nobody.
    for (features, announced, size) in [
        (SPLIT, 100, 64),
        (SPLIT, u16::MAX, 0x8000),
        (PACKED, u16::MAX, 0x8000),
    ] {
        let dma = FakeDma::default();
        let (_device, rng) = sized(&dma, features, announced);
        assert_eq!(rng.unwrap().queue(0).size(), size);
    }
    // A legacy device's is the one that it has.
    let said = [100, 0x8001, u16::MAX].map(|size| {
        let dma = FakeDma::default();
        let device = FakeDevice::new(
            &dma,
            Options {
                layout: RingLayout::Contiguous { align: 4096 },
                queues: [size].into(),
                ..rng_options(Features::empty())
            },
        );
        let error = entropy(&device, &dma, Features::empty()).unwrap_err();
        let wrong = TransportError::QueueSize { queue: 0, size };
        assert_eq!(error, DeviceError::Transport(wrong));
        assert_eq!(device.status(), DeviceStatus::FAILED);
        assert_eq!(dma.live(), 0);
        error.to_string()
    });
    said[0].clone()
}

pub(crate) fn a_queue_that_is_never_enabled() -> String {
    let dma = FakeDma::default();
    let options = Options {
        refuse_queue: true,
        ..rng_options(SPLIT)
    };
    let device = FakeDevice::new(&dma, options);
    let error = entropy(&device, &dma, SPLIT).unwrap_err();
    let refused = TransportError::QueueRefused { queue: 0 };
    assert_eq!(error, DeviceError::Setup(SetupError::Transport(refused)));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    // The device was told of the ring, and is not believed that it has none.
    assert_eq!(dma.live(), 1);
    error.to_string()
}

pub(crate) fn a_queue_size_that_changes() -> String {
    let dma = FakeDma::default();
    let options = Options {
        fickle: true,
        ..rng_options(SPLIT)
    };
    let device = FakeDevice::new(&dma, options);
    let mut rng = entropy(&device, &dma, SPLIT).unwrap();
    // As it was said first, in the ring and in the notes.
    assert_eq!(rng.queue(0).size(), 8);
    drop(rng);
    assert_eq!(dma.live(), 0);
    "as it was said first".into()
}

pub(crate) fn a_queue_for_which_there_is_no_memory() -> String {
    let dma = FakeDma::with_budget(100_000);
    let (device, rng) = sized(&dma, SPLIT, 0x8000);
    let error = rng.unwrap_err();
    let memory = matches!(
        error,
        DeviceError::Dma(_) | DeviceError::Setup(SetupError::Dma(_))
    );
    assert!(memory, "{error}");
    assert_eq!(device.status(), DeviceStatus::FAILED);
    assert_eq!(dma.live(), 0);
    error.to_string()
}

pub(crate) fn a_queue_of_none_or_one() -> String {
    let dma = FakeDma::default();
    let (device, rng) = sized(&dma, SPLIT, 0);
    let missing = TransportError::NoQueue { queue: 0 };
    let error = rng.unwrap_err();
    assert_eq!(error, DeviceError::Transport(missing));
    assert_eq!(device.status(), DeviceStatus::FAILED);
    // Of one, a request of three buffers never finds room.
    let options = Options {
        queues: [1].into(),
        ..block::options(Features::empty())
    };
    let device = FakeDevice::new(&dma, options);
    let mut blk = block::start(&device, &dma).unwrap();
    let long = Err(DeviceError::Queue(QueueError::Chain { buffers: 3 }));
    assert_eq!(blk.read(0, &mut [0; SECTOR], &mut Polls(10)), long);
    drop(blk);
    assert_eq!(dma.live(), 0);
    error.to_string()
}

/// The device claims interrupts by `bits`, of which the handler sees `seen`; nothing
/// was used.
fn isr(bits: u8, seen: u8) {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, SPLIT);
    session.rng.set_interrupts(true);
    session.device.raise(bits);
    let isr = session.device.transport().isr_status();
    for _ in 0..1000 {
        assert_eq!(isr.take().bits(), seen);
        assert!(session.rng.poll().unwrap().is_none());
    }
}

pub(crate) fn isr_bits_that_are_reserved() -> String {
    for bits in [0x04, 0xf0, 0xff] {
        isr(bits, 0);
    }
    "no interrupt of this device's".into()
}

pub(crate) fn isr_of_an_interrupt_that_was() -> String {
    let dma = FakeDma::default();
    let mut session = Session::new(&dma, SPLIT);
    session.device.finish(0, &session.chains[0], 16);
    assert_eq!(session.rng.poll().unwrap().unwrap().result, Ok(16));
    session.device.raise(1);
    let isr = session.device.transport().isr_status();
    assert_eq!(isr.take().bits(), 1);
    assert!(session.rng.poll().unwrap().is_none());
    "a look that finds nothing".into()
}

pub(crate) fn isr_that_never_clears() -> String {
    isr(3, 3);
    "a look that finds nothing, each time it interrupts".into()
}
