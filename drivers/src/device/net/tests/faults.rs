//! Devices that fail, and what is left of the driver then.

use super::*;
use crate::queue::SetupError;
use crate::transport::fake::Lie;

#[test]
fn another_device_is_left_alone() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN);
    rig.device.change(|options| options.device_type = 2);
    let error = DeviceError::WrongType {
        expected: 1,
        found: 2,
    };
    assert_eq!(rig.start().unwrap_err(), error);
    assert_eq!(rig.device.events(), []);
}

#[test]
fn a_configuration_that_cannot_be() {
    let dma = FakeDma::default();
    let group = DeviceError::MacAddress {
        mac: [0x53, 0x54, 0, 1, 2, 3],
        group: false,
    };
    let wrong = |field, value| DeviceError::Config { field, value };
    let pairs = |value| wrong("max_virtqueue_pairs", value);
    for (features, offset, bytes, error) in [
        (MAC, 0, [0x53, 0x54], group),
        (MQ | CTRL_VQ, 8, [0, 0], pairs(0)),
        (MQ | CTRL_VQ, 8, [0, 0x80], pairs(0x8000)),
        (MQ | CTRL_VQ, 8, [1, 0x80], pairs(0x8001)),
        (MTU, 10, [67, 0], wrong("mtu", 67)),
    ] {
        let rig = Rig::new(&dma, Features::VERSION_1 | features);
        rig.device
            .change(|options| options.config[offset..offset + 2].copy_from_slice(&bytes));
        assert_eq!(rig.start().unwrap_err(), error);
        assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    }
    for (features, offset, len) in [(MAC, 0, 6), (MQ | CTRL_VQ, 8, 2), (MTU, 10, 2)] {
        let rig = Rig::new(&dma, Features::VERSION_1 | features);
        let available = usize::from(offset) + len - 1;
        rig.device
            .change(|options| options.config.truncate(available));
        let error = TransportError::ConfigRange {
            offset,
            len,
            available,
        };
        assert_eq!(rig.start().unwrap_err(), DeviceError::Transport(error));
    }
    // What was not negotiated is not looked at.
    let rig = Rig::new(&dma, Features::VERSION_1);
    rig.device.change(|options| options.config.clear());
    rig.start().unwrap();
    assert_eq!(dma.live(), 0);
}

#[test]
fn without_memory_a_device_does_not_come_up_and_nothing_leaks() {
    let mut failures = 0;
    for budget in (0..16384).step_by(256) {
        let dma = FakeDma::with_budget(budget);
        let features = MODERN | RING | CTRL_VQ | CTRL_RX | MQ;
        let rig = Rig::with(&dma, nic::options(features, 2));
        match rig.start_with(2) {
            Ok(mut net) => {
                let long = vec![0; 65535];
                let error = net.send(&long, &mut rig.wait()).unwrap_err();
                assert!(matches!(error, DeviceError::Dma(_)), "{error}");
            }
            Err(error) => {
                let named = matches!(
                    error,
                    DeviceError::Dma(_) | DeviceError::Setup(SetupError::Dma(_))
                );
                assert!(named, "{error}");
                assert_eq!(rig.device.status(), DeviceStatus::FAILED);
                failures += 1;
            }
        }
        assert_eq!(dma.live(), 0, "with {budget} bytes");
    }
    assert!((1..60).contains(&failures), "{failures}");
}

/// Takes all that is left of a device that was given up: how many requests.
fn aborted(net: &mut FakeNet<'_>) -> (usize, usize) {
    let broken = DeviceError::Queue(QueueError::Broken);
    let (mut received, mut sent) = (0, 0);
    while let Some(back) = match net.poll_receive(0) {
        Ok(back) => back,
        Err(error) => {
            assert_eq!(error, broken);
            None
        }
    } {
        assert_eq!(back.result, Err(DeviceError::Aborted));
        assert_eq!(back.following, 0);
        received += 1;
    }
    while let Some(back) = match net.poll_transmit(0) {
        Ok(back) => back,
        Err(error) => {
            assert_eq!(error, broken);
            None
        }
    } {
        assert_eq!(back.result, Err(DeviceError::Aborted));
        sent += 1;
    }
    (received, sent)
}

/// What a packet of these bytes in the first of four buffers is taken for.
fn packet(features: Features, header: Vec<u8>, written: u32, expected: DeviceError) {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, features);
    let mut net = rig.start().unwrap();
    for _ in 0..4 {
        net.submit_receive(0, rig.region(1600)).unwrap();
    }
    net.submit_transmit(0, rig.frame(60)).unwrap();
    let chain = rig.device.take(0).unwrap();
    chain.write(0, &header);
    rig.device.finish(0, &chain, written);
    let received = net.poll_receive(0).unwrap().unwrap();
    assert_eq!(received.result, Err(expected));
    assert_eq!((received.following, received.buffer.len()), (0, 1600));
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    assert_eq!(aborted(&mut net), (3, 1));
    let broken = DeviceError::Queue(QueueError::Broken);
    let (error, _) = net.submit_receive(0, rig.region(1600)).unwrap_err();
    assert_eq!(error, broken);
    let (error, _) = net.submit_transmit(0, rig.frame(60)).unwrap_err();
    assert_eq!(error, broken);
    drop((net, received));
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_packet_that_cannot_be_is_the_devices_fault() {
    let count = |num_buffers| DeviceError::BufferCount {
        num_buffers,
        posted: 4,
    };
    for features in [MERGEABLE, MAC | MRG_RXBUF] {
        for num_buffers in [0, 5, 0xffff] {
            let header = nic::header(features, num_buffers);
            packet(features, header, 100, count(num_buffers));
        }
    }
    for (features, header) in [(MODERN, 12), (MERGEABLE, 12), (MAC, 10)] {
        for written in [0, header - 1] {
            let error = DeviceError::ShortPacket {
                written: written as usize,
                header: header as usize,
            };
            let bytes = nic::header(features, 1);
            packet(features, bytes, written, error);
        }
    }
}

#[test]
fn a_packet_comes_whole_or_the_device_is_given_up() {
    // 5.1.6.4.1
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MERGEABLE);
    let mut net = rig.start().unwrap();
    net.fill_receive(0, 4, 100).unwrap();
    let chain = rig.device.take(0).unwrap();
    chain.write(0, &nic::header(MERGEABLE, 3));
    rig.device.finish(0, &chain, 100);
    let received = net.poll_receive(0).unwrap().unwrap();
    assert_eq!((received.result, received.following), (Ok(12..100), 2));
    let error = net.poll_receive(0).unwrap_err();
    assert_eq!(error, DeviceError::IncompletePacket { missing: 2 });
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    assert_eq!(aborted(&mut net), (3, 0));
}

#[test]
fn a_reset_in_the_middle_of_a_packet_ends_it() {
    let dma = FakeDma::default();
    let rig = Rig::with(
        &dma,
        Options {
            features: MERGEABLE | Features::RING_RESET,
            ..nic::options(MERGEABLE, 1)
        },
    );
    let setup = Setup::new(16, Features::RING_RESET);
    let transport = rig.device.transport();
    let mut net = Net::new(transport, &setup, &dma, &mut rig.wait()).unwrap();
    net.fill_receive(0, 4, 100).unwrap();
    nic::deliver(&rig.device, 0, &pattern(150));
    assert_eq!(net.poll_receive(0).unwrap().unwrap().following, 1);
    net.reset_queue(0, &mut Polls(1)).unwrap();
    assert_eq!(aborted(&mut net).0, 3);
    net.restart_queue(0).unwrap();
    net.fill_receive(0, 4, 100).unwrap();
    nic::deliver(&rig.device, 0, &pattern(20));
    let received = net.poll_receive(0).unwrap().unwrap();
    assert_eq!((received.result, received.following), (Ok(12..32), 0));
}

#[test]
fn a_device_that_lies_is_given_up() {
    for (lie, expected) in [
        (Lie::Id(16), QueueError::UsedId { id: 16 }),
        (
            Lie::Longer(1),
            QueueError::UsedLength {
                written: 1,
                writable: 0,
            },
        ),
    ] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, MODERN);
        let mut net = rig.start().unwrap();
        net.fill_receive(0, 3, 1600).unwrap();
        rig.device.change(|options| options.lie = Some(lie));
        let error = net.send(&pattern(60), &mut rig.wait()).unwrap_err();
        assert_eq!(error, DeviceError::Queue(expected));
        assert_eq!(rig.device.status(), DeviceStatus::FAILED);
        assert_eq!(aborted(&mut net).0, 3);
        let error = net.receive_into(0, &mut [0; 2000]).unwrap_err();
        assert_eq!(error, DeviceError::Queue(QueueError::Broken));
        drop(net);
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn what_a_legacy_device_reports_of_a_frame_that_it_sent_is_ignored() {
    // 5.1.6.1
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MAC);
    let mut net = rig.start().unwrap();
    rig.device
        .change(|options| options.lie = Some(Lie::Longer(70)));
    net.send(&pattern(60), &mut rig.wait()).unwrap();
}

#[test]
fn a_device_that_does_not_answer_is_given_up() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN);
    let mut net = rig.start().unwrap();
    rig.device.change(|options| options.lie = Some(Lie::Silent));
    let error = net.send(&pattern(60), &mut rig.wait()).unwrap_err();
    assert_eq!(error, DeviceError::Timeout);
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    let error = net.send(&pattern(60), &mut rig.wait()).unwrap_err();
    assert_eq!(error, DeviceError::Queue(QueueError::Broken));
    drop(net);
    assert_eq!(dma.live(), 0);
}

#[test]
fn memory_in_flight_is_freed_after_the_reset_and_not_before() {
    // The fake looks at all of it when the reset is finished.
    for features in [MODERN | RING, MAC] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, features);
        let mut net = rig.start().unwrap();
        net.fill_receive(0, 4, 1600).unwrap();
        for _ in 0..4 {
            net.submit_transmit(0, rig.frame(60)).unwrap();
        }
        assert!(rig.device.take(0).is_some() && rig.device.take(1).is_some());
        rig.device.change(|options| options.reset_reads = 100);
        drop(net);
        assert_eq!(rig.device.status(), DeviceStatus::empty());
        assert_eq!(dma.live(), 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "100,000 looks at the status take minutes")]
fn memory_of_a_device_that_does_not_reset_is_never_freed() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN);
    let mut net = rig.start().unwrap();
    net.fill_receive(0, 2, 1600).unwrap();
    net.submit_transmit(0, rig.frame(60)).unwrap();
    let chain = rig.device.take(0).unwrap();
    rig.device.change(|options| options.reset_reads = u32::MAX);
    drop(net);
    // Three requests; the rings, and the notes on who owns what.
    assert_eq!(dma.live(), 3 + 4);
    // It may go on writing for ever.
    chain.write(0, &pattern(1600));
}
