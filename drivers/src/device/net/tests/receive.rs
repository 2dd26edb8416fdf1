//! Buffers of the caller's, and packets over several of them.

use super::*;

fn post<'d>(net: &mut FakeNet<'d>, rig: &Rig<'d>, lens: &[usize]) -> Vec<(Token, u64)> {
    let submit = |&len: &usize| {
        let buffer = rig.region(len);
        let address = buffer.address();
        (net.submit_receive(0, buffer).unwrap(), address)
    };
    lens.iter().map(submit).collect()
}

#[test]
fn a_packet_is_in_the_callers_buffer() {
    for features in [MODERN, MERGEABLE, MAC, MAC | Features::ANY_LAYOUT] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, features);
        let mut net = rig.start().unwrap();
        let posted = post(&mut net, &rig, &[1600, 1526]);
        assert!(net.queue(0).kick());
        let frame = pattern(1514);
        let (header, _) = nic::framing(features);
        for (token, address) in posted {
            assert_eq!(nic::deliver(&rig.device, 0, &frame), 1);
            let received = net.poll_receive(0).unwrap().unwrap();
            assert_eq!(
                (received.token, received.buffer.address()),
                (token, address)
            );
            assert_eq!(received.following, 0);
            let range = received.result.unwrap();
            assert_eq!(range, header..header + 1514);
            assert_eq!(received.buffer[range], frame);
        }
        assert!(net.poll_receive(0).unwrap().is_none());
    }
}

#[test]
fn a_packet_may_be_in_several_buffers() {
    // 5.1.6.4; without VIRTIO_F_ANY_LAYOUT the first descriptor of each is as long
    // as the header, though only one has one.
    for features in [
        MERGEABLE,
        MAC | MRG_RXBUF,
        MAC | MRG_RXBUF | Features::ANY_LAYOUT,
    ] {
        let dma = FakeDma::default();
        let rig = Rig::new(&dma, features);
        let mut net = rig.start().unwrap();
        assert!(net.info().mergeable);
        post(&mut net, &rig, &[100, 50, 200, 400]);
        let (long, short) = (pattern(88 + 50 + 7), pattern(33));
        assert_eq!(nic::deliver(&rig.device, 0, &long), 3);
        assert_eq!(nic::deliver(&rig.device, 0, &short), 1);
        let mut packet: Vec<u8> = Vec::new();
        for (range, following) in [(12..100, 2), (0..50, 1), (0..7, 0)] {
            let received = net.poll_receive(0).unwrap().unwrap();
            assert_eq!(received.result, Ok(range.clone()));
            assert_eq!(received.following, following);
            packet.extend(&received.buffer[range]);
        }
        assert_eq!(packet, long);
        let received = net.poll_receive(0).unwrap().unwrap();
        assert_eq!(received.result, Ok(12..45), "a header again");
        assert_eq!(received.buffer[12..45], short);
        assert_eq!(received.following, 0);
    }
}

#[test]
fn a_copied_packet_is_put_together() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MERGEABLE | RING);
    let mut net = rig.start().unwrap();
    net.fill_receive(0, 16, 64).unwrap();
    let mut into = [0; 600];
    for len in [14, 52, 53, 600, 500, 600] {
        let frame = pattern(len);
        nic::deliver(&rig.device, 0, &frame);
        assert_eq!(net.receive_into(0, &mut into), Ok(Some(len)));
        assert_eq!(into[..len], frame);
    }
    assert_eq!(net.queue(0).in_flight(), 16, "all are back");
    // One that is too long is dropped, and the next one is whole.
    nic::deliver(&rig.device, 0, &pattern(601));
    nic::deliver(&rig.device, 0, &pattern(70));
    let error = DeviceError::BufferTooShort {
        len: 600,
        needed: 601,
    };
    assert_eq!(net.receive_into(0, &mut into), Err(error));
    assert_eq!(net.receive_into(0, &mut into), Ok(Some(70)));
    assert_eq!(into[..70], pattern(70));
    assert_eq!(net.queue(0).in_flight(), 16);
    drop(net);
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_buffer_that_is_too_short_comes_back() {
    // 5.1.6.3.1
    let dma = FakeDma::default();
    for (features, needed) in [
        (MODERN, 1526),
        (MAC, 1526),
        (MODERN | MTU, 9026),
        (MERGEABLE | MTU, 13),
        (MAC | MRG_RXBUF, 13),
    ] {
        let rig = Rig::new(&dma, features);
        let mtu = 9000u16.to_le_bytes();
        rig.device
            .change(|options| options.config[10..12].copy_from_slice(&mtu));
        let mut net = rig.start().unwrap();
        assert_eq!(net.receive_len(), needed);
        let len = needed - 1;
        let (error, buffer) = net.submit_receive(0, rig.region(len)).unwrap_err();
        assert_eq!(error, DeviceError::BufferTooShort { len, needed });
        assert_eq!(buffer.len(), len);
        assert_eq!(net.fill_receive(0, 2, len), Err(error));
        net.submit_receive(0, rig.region(needed)).unwrap();
    }
}

#[test]
fn a_full_queue_gives_the_buffer_back_and_keeps_what_it_has() {
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN);
    let mut net = rig.start().unwrap();
    let full = DeviceError::Queue(QueueError::Full { needed: 1, free: 0 });
    assert_eq!(net.fill_receive(0, 17, 1526), Err(full));
    assert!(rig.device.rang(0));
    assert_eq!(net.queue(0).in_flight(), 16);
    let (error, buffer) = net.submit_receive(0, rig.region(1527)).unwrap_err();
    assert_eq!((error, buffer.len()), (full, 1527));
}

#[test]
fn without_mergeable_buffers_the_field_is_ignored() {
    // 5.1.6.4.1 says 1, and QEMU leaves the byte that was there.
    let dma = FakeDma::default();
    let rig = Rig::new(&dma, MODERN);
    let mut net = rig.start().unwrap();
    let mut buffer = rig.region(1600);
    buffer.fill(0xcc);
    net.submit_receive(0, buffer).unwrap();
    let chain = rig.device.take(0).unwrap();
    chain.write(12, &pattern(60));
    rig.device.finish(0, &chain, 72);
    let received = net.poll_receive(0).unwrap().unwrap();
    assert_eq!((received.result, received.following), (Ok(12..72), 0));
}
