use std::vec::Vec;

use super::*;
use crate::dma::fake::FakeDma;
use crate::transport::RingLayout;
use crate::transport::fake::{Event, FakeDevice, Options};

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const FAILED: u8 = 128;

const WANTED: Features = Features::EVENT_IDX.union(Features::INDIRECT_DESC);

fn legacy(features: Features) -> Options {
    let layout = RingLayout::Contiguous { align: 4096 };
    Options {
        layout,
        features,
        ..Options::default()
    }
}

fn begin<T: Transport>(transport: T, required: Features) -> Result<Init<T>, InitError> {
    Init::begin(transport, WANTED, required, &mut Polls(100))
}

#[test]
fn the_steps_are_in_order() {
    // 3.1.1
    let dma = FakeDma::default();
    let offered = Features::VERSION_1 | Features::EVENT_IDX | Features::from_bits_retain(0xff);
    let device = FakeDevice::new(
        &dma,
        Options {
            features: offered,
            ..Options::default()
        },
    );
    device.leave_status(ACKNOWLEDGE | DRIVER | DRIVER_OK);
    let init = begin(device.transport(), Features::empty()).unwrap();
    // 6.1: VERSION_1 is accepted where it is offered, whoever wants it.
    let accepted = Features::VERSION_1 | Features::EVENT_IDX;
    assert_eq!(init.features(), accepted);
    let transport = init.finish();
    assert_eq!(
        device.events(),
        [
            Event::Status(0),
            Event::Status(ACKNOWLEDGE),
            Event::Status(ACKNOWLEDGE | DRIVER),
            Event::ReadFeatures,
            Event::Accept(accepted),
            Event::Status(ACKNOWLEDGE | DRIVER | FEATURES_OK),
            Event::Status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK),
        ]
    );
    assert_eq!(device.features(), accepted);
    drop(transport);
}

#[test]
fn a_legacy_device_has_no_features_ok() {
    // 3.1.2
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, legacy(Features::EVENT_IDX));
    let _transport = begin(device.transport(), Features::empty())
        .unwrap()
        .finish();
    assert_eq!(device.status().bits(), ACKNOWLEDGE | DRIVER | DRIVER_OK);
    assert_eq!(device.features(), Features::EVENT_IDX);
}

#[test]
fn a_legacy_interface_offers_no_packed_rings() {
    let dma = FakeDma::default();
    let packed = Features::RING_PACKED;
    let device = FakeDevice::new(&dma, legacy(Features::EVENT_IDX | packed));
    let wanted = Features::EVENT_IDX | packed;
    let begin = |required| Init::begin(device.transport(), wanted, required, &mut Polls(100));
    let init = begin(Features::empty()).unwrap();
    assert_eq!(init.features(), Features::EVENT_IDX);
    drop(init);
    let error = begin(packed).unwrap_err();
    assert_eq!(error, InitError::MissingFeatures { missing: packed });

    let options = Options {
        features: Features::VERSION_1 | packed,
        ..Options::default()
    };
    let device = FakeDevice::new(&dma, options);
    let init = Init::begin(device.transport(), packed, packed, &mut Polls(100)).unwrap();
    assert_eq!(init.features(), Features::VERSION_1 | packed);
}

#[test]
fn a_driver_that_gives_up_resets_the_device_and_says_so() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, Options::default());
    drop(begin(device.transport(), Features::empty()).unwrap());
    assert_eq!(device.status().bits(), FAILED);
    let events = device.events();
    assert_eq!(
        events[events.len() - 2..],
        [Event::Status(0), Event::Status(FAILED)]
    );
}

#[test]
fn missing_features_are_named() {
    // 2.2.1
    let dma = FakeDma::default();
    let device = FakeDevice::new(&dma, Options::default());
    let missing = Features::from_bits_retain(1 << 5 | 1 << 40);
    let error = begin(device.transport(), missing | Features::VERSION_1).unwrap_err();
    assert_eq!(error, InitError::MissingFeatures { missing });
    assert_eq!(
        std::format!("{error}"),
        "the device does not offer the features 0x10000000020"
    );
    assert_eq!(device.status().bits(), FAILED);
    assert!(
        !device
            .events()
            .iter()
            .any(|event| matches!(event, Event::Accept(_)))
    );
}

#[test]
fn features_that_the_device_refuses() {
    // 3.1.1, step 6
    let dma = FakeDma::default();
    let device = FakeDevice::new(
        &dma,
        Options {
            refuse_features: true,
            ..Options::default()
        },
    );
    let error = begin(device.transport(), Features::empty()).unwrap_err();
    let refused = TransportError::FeaturesRefused {
        features: Features::VERSION_1,
    };
    assert_eq!(error, InitError::Transport(refused));
    assert_eq!(device.status().bits(), FAILED);
}

#[test]
fn a_reset_is_waited_for() {
    // 2.4.2
    let dma = FakeDma::default();
    let device = FakeDevice::new(
        &dma,
        Options {
            reset_reads: 50,
            ..Options::default()
        },
    );
    device.leave_status(0x4f);
    let _transport = begin(device.transport(), Features::empty())
        .unwrap()
        .finish();
    let statuses: Vec<_> = device
        .events()
        .into_iter()
        .filter(|event| matches!(event, Event::Status(_)))
        .collect();
    assert_eq!(
        statuses[..2],
        [Event::Status(0), Event::Status(ACKNOWLEDGE)]
    );
}

#[test]
#[cfg_attr(miri, ignore = "100,000 looks at the status take minutes")]
fn a_reset_that_does_not_end() {
    let dma = FakeDma::default();
    let device = FakeDevice::new(
        &dma,
        Options {
            reset_reads: u32::MAX,
            ..Options::default()
        },
    );
    device.leave_status(0x4f);
    let error = begin(device.transport(), Features::empty()).unwrap_err();
    assert_eq!(
        error,
        InitError::Transport(TransportError::ResetTimeout { status: 0x4f })
    );
    assert_eq!(device.status().bits(), 0x4f | FAILED);
}

#[test]
#[cfg_attr(miri, ignore = "100,000 looks at the status take minutes")]
fn whether_a_device_did_reset_is_known() {
    let dma = FakeDma::default();
    for (reset_reads, resets) in [(0, true), (1000, true), (u32::MAX, false)] {
        let device = FakeDevice::new(
            &dma,
            Options {
                reset_reads,
                ..Options::default()
            },
        );
        device.leave_status(0x0f);
        assert_eq!(retire(&mut device.transport()), resets);
        device.leave_status(0x0f);
        assert_eq!(give_up(&mut device.transport()), resets);
        assert!(device.status().contains(DeviceStatus::FAILED));
    }
}
