//! Several pairs of queues.

use super::*;

const SEVERAL: Features = MODERN.union(CTRL_VQ).union(MQ);

/// Which queues were enabled.
fn enabled(device: &FakeDevice<'_>) -> Vec<u16> {
    let enabled = |event| match event {
        Event::Enable(queue) => Some(queue),
        _ => None,
    };
    device.events().into_iter().filter_map(enabled).collect()
}

#[test]
fn as_many_pairs_are_used_as_both_sides_want() {
    let dma = FakeDma::default();
    for features in [SEVERAL, MAC | CTRL_VQ | MQ] {
        for (wanted, pairs) in [(0, 1), (1, 1), (2, 2), (3, 3), (9, 3)] {
            let rig = Rig::with(&dma, nic::options(features, 3));
            let net = rig.start_with(wanted).unwrap();
            assert_eq!((net.pairs(), net.active_pairs()), (pairs, pairs));
            assert_eq!(net.queues(), 2 * usize::from(pairs) + 1);
            assert_eq!(net.control_queue(), Some(2 * usize::from(pairs)));
            // 5.1.2: the control queue is behind all that there are.
            let mut queues: Vec<u16> = (0..2 * pairs).collect();
            queues.push(6);
            assert_eq!(enabled(&rig.device), queues);
            let commands = core::mem::take(&mut rig.nic.borrow_mut().commands);
            match pairs {
                // 5.1.6.5.6: one is the default.
                1 => assert_eq!(commands, []),
                _ => assert_eq!(commands, [(4, 0, vec![vec![pairs as u8, 0]])]),
            }
        }
    }
}

#[test]
fn without_several_pairs_the_control_queue_is_the_third() {
    let dma = FakeDma::default();
    let rig = Rig::with(&dma, nic::options(MODERN | CTRL_VQ, 3));
    let mut net = rig.start_with(3).unwrap();
    assert_eq!(net.pairs(), 1);
    assert_eq!(enabled(&rig.device), [0, 1, 2]);
    net.set_pairs(1, &mut rig.wait()).unwrap();
    assert!(rig.nic.borrow().commands.is_empty());
}

#[test]
fn each_pair_has_its_own_packets() {
    let dma = FakeDma::default();
    let rig = Rig::with(&dma, nic::options(SEVERAL | MRG_RXBUF, 3));
    let mut net = rig.start_with(2).unwrap();
    assert_eq!((net.receive_queue(1), net.transmit_queue(1)), (2, 3));
    net.fill_receive(0, 4, 100).unwrap();
    net.fill_receive(1, 4, 100).unwrap();
    nic::deliver(&rig.device, 2, &pattern(150));
    nic::deliver(&rig.device, 0, &pattern(20));
    // Halfway through a packet of the one, the other is not.
    assert_eq!(net.poll_receive(1).unwrap().unwrap().following, 1);
    let received = net.poll_receive(0).unwrap().unwrap();
    assert_eq!((received.result, received.following), (Ok(12..32), 0));
    let received = net.poll_receive(1).unwrap().unwrap();
    assert_eq!((received.result, received.following), (Ok(0..62), 0));
    net.submit_transmit(1, rig.frame(60)).unwrap();
    net.queue(net.transmit_queue(1)).kick();
    rig.run();
    assert!(net.poll_transmit(0).unwrap().is_none());
    assert_eq!(net.poll_transmit(1).unwrap().unwrap().frame.len(), 60);
    let error = DeviceError::NoPair { pair: 2, pairs: 2 };
    assert_eq!(net.submit_receive(2, rig.region(100)).unwrap_err().0, error);
    assert_eq!(net.submit_transmit(2, rig.frame(60)).unwrap_err().0, error);
    assert_eq!(net.poll_receive(2).unwrap_err(), error);
    assert_eq!(net.poll_transmit(2).unwrap_err(), error);
    assert_eq!(net.fill_receive(2, 1, 100), Err(error));
    assert_eq!(net.receive_into(2, &mut []), Err(error));
}

#[test]
fn nothing_is_sent_by_a_pair_that_is_switched_off() {
    // 5.1.6.5.6.1
    let dma = FakeDma::default();
    let rig = Rig::with(&dma, nic::options(SEVERAL, 3));
    let mut net = rig.start_with(2).unwrap();
    for wanted in [0, 3] {
        let error = DeviceError::PairCount { wanted, pairs: 2 };
        assert_eq!(net.set_pairs(wanted, &mut rig.wait()), Err(error));
    }
    net.set_pairs(1, &mut rig.wait()).unwrap();
    assert_eq!((net.pairs(), net.active_pairs()), (2, 1));
    let off = DeviceError::NoPair { pair: 1, pairs: 1 };
    assert_eq!(net.submit_transmit(1, rig.frame(60)).unwrap_err().0, off);
    net.submit_transmit(0, rig.frame(60)).unwrap();
    // It may have buffers, before it is switched on.
    net.submit_receive(1, rig.region(1526)).unwrap();
    rig.nic.borrow_mut().ack = Some(1);
    let refused = DeviceError::Refused {
        command: "VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET",
    };
    assert_eq!(net.set_pairs(2, &mut rig.wait()), Err(refused));
    assert_eq!(net.active_pairs(), 1);
    rig.nic.borrow_mut().ack = Some(0);
    net.set_pairs(2, &mut rig.wait()).unwrap();
    net.submit_transmit(1, rig.frame(60)).unwrap();
    let numbers: Vec<u8> = rig
        .nic
        .borrow()
        .commands
        .iter()
        .map(|(_, _, data)| data[0][0])
        .collect();
    assert_eq!(numbers, [2, 1, 2, 2]);
}

#[test]
fn a_device_that_switches_no_pairs_on_does_not_come_up() {
    let dma = FakeDma::default();
    let rig = Rig::with(&dma, nic::options(SEVERAL, 2));
    rig.nic.borrow_mut().ack = Some(1);
    let refused = DeviceError::Refused {
        command: "VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET",
    };
    assert_eq!(rig.start_with(2).unwrap_err(), refused);
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    assert_eq!(dma.live(), 0);
    // With one there is no need to.
    rig.start_with(1).unwrap();
}

#[test]
fn a_control_queue_that_is_not_there_is_named() {
    let dma = FakeDma::default();
    let rig = Rig::with(&dma, nic::options(SEVERAL, 2));
    rig.device.change(|options| options.queues[4] = 0);
    let error = TransportError::NoQueue { queue: 4 };
    assert_eq!(rig.start().unwrap_err(), DeviceError::Transport(error));
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
}
