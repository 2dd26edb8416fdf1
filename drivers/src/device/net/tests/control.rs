//! Commands, and the answers to them.

use super::*;
use crate::transport::fake::Lie;

const CONTROLLED: Features = MODERN.union(CTRL_VQ).union(CTRL_RX).union(CTRL_MAC_ADDR);
const LEGACY: Features = CONTROLLED.difference(Features::VERSION_1);

const OTHER: [u8; 6] = [2, 0, 0, 0xaa, 0xbb, 0xcc];
const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

#[test]
fn commands_are_the_specifications() {
    for features in [
        CONTROLLED,
        CONTROLLED | RING,
        LEGACY,
        LEGACY | Features::ANY_LAYOUT,
    ] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, features);
        let mut net = rig.start().unwrap();
        let before = dma.live();
        let wait = &mut rig.wait();
        net.set_promiscuous(true, wait).unwrap();
        net.set_promiscuous(false, wait).unwrap();
        net.set_all_multicast(true, wait).unwrap();
        net.set_mac(OTHER, wait).unwrap();
        assert_eq!(net.info().mac, Some(OTHER));
        net.set_mac_filter(&[OTHER, ADDRESS], &[GROUP], wait)
            .unwrap();
        net.set_mac_filter(&[], &[], wait).unwrap();
        let table = |macs: &[[u8; 6]]| {
            let mut table = vec![macs.len() as u8, 0, 0, 0];
            table.extend(macs.as_flattened());
            table
        };
        let expected = [
            (0, 0, vec![vec![1]]),
            (0, 0, vec![vec![0]]),
            (0, 1, vec![vec![1]]),
            (1, 1, vec![OTHER.to_vec()]),
            (1, 0, vec![table(&[OTHER, ADDRESS]), table(&[GROUP])]),
            (1, 0, vec![table(&[]), table(&[])]),
        ];
        assert_eq!(rig.nic.borrow().commands, expected);
        assert_eq!(dma.live(), before);
        assert_eq!(net.queue(2).doorbells(), 6);
    }
}

#[test]
fn a_command_that_the_device_does_not_have_is_not_given() {
    let dma = FakeDma::default();
    let none = Err(DeviceError::Unsupported);
    for features in [MODERN, MODERN | CTRL_VQ, MAC | CTRL_VQ] {
        let rig = Rig::new(&dma, features);
        let mut net = rig.start().unwrap();
        let wait = &mut rig.wait();
        assert_eq!(net.set_promiscuous(true, wait), none);
        assert_eq!(net.set_all_multicast(true, wait), none);
        assert_eq!(net.set_mac_filter(&[], &[], wait), none);
        if features.contains(Features::VERSION_1) {
            // 5.1.4.2: the configuration is not written.
            assert_eq!(net.set_mac(OTHER, wait), none);
            assert_eq!(net.info().mac, Some(ADDRESS));
        }
        assert!(rig.nic.borrow().commands.is_empty());
    }
}

#[test]
fn a_legacy_device_may_take_its_address_by_the_configuration() {
    // 5.1.4.3, 5.1.6.5.2.3
    let dma = FakeDma::default();
    for features in [MAC, MAC | CTRL_VQ | CTRL_RX] {
        let rig = Rig::new(&dma, features);
        let mut net = rig.start().unwrap();
        net.set_mac(OTHER, &mut rig.wait()).unwrap();
        rig.device
            .change(|options| assert_eq!(options.config[..6], OTHER));
        assert_eq!(net.info().mac, Some(OTHER));
        assert!(rig.device.events().contains(&Event::WriteConfig(0)));
    }
    // One that has no address has none to change, and one may not take it.
    let rig = Rig::new(&dma, Features::empty());
    let mut net = rig.start().unwrap();
    let none = Err(DeviceError::Unsupported);
    assert_eq!(net.set_mac(OTHER, &mut rig.wait()), none);

    let rig = Rig::new(&dma, MAC);
    let mut net = rig.start().unwrap();
    rig.device.change(|options| {
        let keep = |config: &mut Vec<u8>, _: &mut u32| config[..6].copy_from_slice(&ADDRESS);
        options.config_hook = Some(std::boxed::Box::new(keep));
    });
    assert_eq!(net.set_mac(OTHER, &mut rig.wait()), none);
    assert_eq!(net.info().mac, Some(ADDRESS));
}

#[test]
fn an_address_of_the_wrong_kind_is_named() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, CONTROLLED);
    let mut net = rig.start().unwrap();
    let wait = &mut rig.wait();
    let wrong = |mac, group| Err(DeviceError::MacAddress { mac, group });
    assert_eq!(net.set_mac(GROUP, wait), wrong(GROUP, false));
    let filter = net.set_mac_filter(&[OTHER, GROUP], &[], wait);
    assert_eq!(filter, wrong(GROUP, false));
    let filter = net.set_mac_filter(&[], &[GROUP, OTHER], wait);
    assert_eq!(filter, wrong(OTHER, true));
    assert!(rig.nic.borrow().commands.is_empty());
    let text = std::format!("{}", wrong(OTHER, true).unwrap_err());
    assert_eq!(text, "the MAC address 02:00:00:aa:bb:cc is not a group's");
}

#[test]
fn a_command_that_is_refused_is_named_and_the_device_goes_on() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, CONTROLLED);
    let mut net = rig.start().unwrap();
    let wait = &mut rig.wait();
    rig.nic.borrow_mut().ack = Some(1);
    let refused = |command| Err(DeviceError::Refused { command });
    assert_eq!(
        net.set_promiscuous(true, wait),
        refused("VIRTIO_NET_CTRL_RX_PROMISC")
    );
    assert_eq!(
        net.set_all_multicast(true, wait),
        refused("VIRTIO_NET_CTRL_RX_ALLMULTI")
    );
    assert_eq!(
        net.set_mac_filter(&[], &[], wait),
        refused("VIRTIO_NET_CTRL_MAC_TABLE_SET")
    );
    let error = refused("VIRTIO_NET_CTRL_MAC_ADDR_SET");
    assert_eq!(net.set_mac(OTHER, wait), error);
    assert_eq!(net.info().mac, Some(ADDRESS));
    rig.nic.borrow_mut().ack = Some(0);
    net.set_promiscuous(true, wait).unwrap();
    net.send(&pattern(60), wait).unwrap();
}

#[test]
fn an_answer_that_makes_no_sense_is_the_devices_fault() {
    for (ack, status, written) in [(Some(2), 2, 1), (None, 0xff, 0)] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, CONTROLLED);
        let mut net = rig.start().unwrap();
        net.fill_receive(0, 2, 1526).unwrap();
        rig.nic.borrow_mut().ack = ack;
        let error = net.set_promiscuous(true, &mut rig.wait()).unwrap_err();
        assert_eq!(error, DeviceError::BadAnswer { status, written });
        assert_eq!(rig.device.status(), DeviceStatus::FAILED);
        let error = net.set_promiscuous(true, &mut rig.wait()).unwrap_err();
        assert_eq!(error, DeviceError::Queue(QueueError::Broken));
        drop(net);
        assert_eq!(dma.live(), 0);
    }
}

#[test]
fn an_ack_counts_if_the_device_says_that_it_wrote_one() {
    // Of a legacy device that says nothing (5.1.6.1).
    for (features, expected) in [
        (
            CONTROLLED,
            Err(DeviceError::BadAnswer {
                status: 0,
                written: 0,
            }),
        ),
        (LEGACY, Ok(())),
    ] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, features);
        let mut net = rig.start().unwrap();
        let mut wait = stepping(|| {
            rig.device.process(2, |chain| {
                chain.write(0, &[0]);
                0
            });
        });
        assert_eq!(net.set_promiscuous(true, &mut wait), expected);
    }
}

#[test]
fn a_command_is_not_waited_for_without_end() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, CONTROLLED);
    let mut net = rig.start().unwrap();
    rig.device.change(|options| options.lie = Some(Lie::Silent));
    let error = net.set_all_multicast(true, &mut rig.wait()).unwrap_err();
    assert_eq!(error, DeviceError::Timeout);
    assert_eq!(rig.device.status(), DeviceStatus::FAILED);
    drop(net);
    assert_eq!(dma.live(), 0);
}
