use doorbell::dma::fake::FakeDma;
use doorbell::transport::fake::{Chain, FakeDevice, FakeTransport, Options, stepping};
use doorbell::virtio::Features;
use std::vec;

use super::*;

/// VIRTIO_NET_F_MTU, _MAC, _MRG_RXBUF and _STATUS (5.1.3).
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;

/// Bytes of a packet's header.
const HEADER: usize = 12;

type Fake<'d> = Adapter<FakeTransport<'d>, &'d FakeDma>;

/// A device with queues of 8.
fn device(dma: &FakeDma, own: u64, mtu: u16) -> FakeDevice<'_> {
    let mut config = vec![0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0];
    config.extend(mtu.to_le_bytes());
    let options = Options {
        device_type: 1,
        features: Features::VERSION_1 | Features::from_bits_retain(own),
        queues: vec![8, 8],
        config,
        ..Options::default()
    };
    FakeDevice::new(dma, options)
}

fn start<'d>(device: &FakeDevice<'d>, dma: &'d FakeDma) -> Fake<'d> {
    let setup = Setup::new(8, Features::empty());
    Adapter::new(device.transport(), &setup, dma, &mut stepping(|| {})).unwrap()
}

/// A frame comes in, in as many of the driver's buffers as it takes.
fn deliver(device: &FakeDevice<'_>, frame: &[u8]) {
    let mut packet = vec![0; HEADER];
    packet.extend(frame);
    let mut chains: Vec<(Chain<'_>, usize)> = Vec::new();
    let mut at = 0;
    while at < packet.len() {
        let chain = device.take(0).expect("a buffer");
        let len = (packet.len() - at).min(chain.writable() as usize);
        chains.push((chain, len));
        at += len;
    }
    packet[10..12].copy_from_slice(&(chains.len() as u16).to_le_bytes());
    let mut rest = &packet[..];
    for (chain, len) in chains {
        chain.write(0, &rest[..len]);
        rest = &rest[len..];
        device.finish(0, &chain, len as u32);
    }
}

/// What has been sent, without the headers.
fn sent(device: &FakeDevice<'_>) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    device.process(1, |chain| {
        frames.push(chain.readable()[HEADER..].to_vec());
        0
    });
    frames
}

#[test]
fn frames_come_and_go_without_end() {
    let dma = FakeDma::default();
    let device = device(&dma, MAC | MRG_RXBUF, 0);
    let mut adapter = start(&device, &dma);
    assert_eq!(adapter.mac(), [0x52, 0x54, 0, 1, 2, 3]);
    assert_eq!(adapter.mtu(), 1500);
    let live = dma.live();
    for len in 60..100 {
        deliver(&device, &vec![len as u8; len]);
        let arrived = adapter.receive().unwrap();
        assert_eq!(arrived.as_ref(), vec![len as u8; len]);
        assert!(adapter.receive().is_none());
        adapter.recycle(arrived);
        assert!(adapter.can_send());
        adapter.send(len, |bytes| bytes.fill(len as u8 + 1));
        assert_eq!(adapter.flush(), Ok(()));
        assert!(device.rang(0), "a buffer came back");
        assert_eq!(sent(&device), [vec![len as u8 + 1; len]]);
    }
    assert_eq!(dma.live(), live, "nothing is allocated on the way");
    drop(adapter);
    assert_eq!(dma.live(), 0);
}

#[test]
fn a_full_frame_fits_whatever_the_mtu_is() {
    for (features, mtu, used) in [
        (MAC | MTU, 576, 576),
        (MAC | MTU, 9000, 9000),
        (MAC | MTU, 65_535, 9000),
        (MAC | MTU | MRG_RXBUF, 65_535, 9000),
        (MAC, 0, 1500),
    ] {
        let dma = FakeDma::default();
        let device = device(&dma, features, mtu);
        let mut adapter = start(&device, &dma);
        assert_eq!(adapter.mtu(), used);
        let frame = vec![7; used + ETHERNET_HEADER];
        deliver(&device, &frame);
        assert_eq!(adapter.receive().unwrap().as_ref(), frame);
        assert!(adapter.can_send());
        adapter.send(frame.len(), |bytes| bytes.fill(8));
        assert_eq!(adapter.flush(), Ok(()));
        assert_eq!(sent(&device)[0].len(), frame.len());
    }
}

#[test]
fn a_frame_larger_than_the_mtu_is_dropped_and_counted() {
    let dma = FakeDma::default();
    let device = device(&dma, MAC | MRG_RXBUF, 0);
    let mut adapter = start(&device, &dma);
    for _ in 0..5 {
        deliver(&device, &[9; 4000]);
        deliver(&device, &[5; 60]);
        let arrived = adapter.receive().unwrap();
        assert_eq!(arrived.as_ref(), [5; 60]);
        adapter.recycle(arrived);
        assert!(adapter.receive().is_none());
    }
    assert_eq!(adapter.oversized(), 5);
    assert_eq!(adapter.flush(), Ok(()));
    // Without a frame after it, there is none.
    deliver(&device, &[9; 1515]);
    assert!(adapter.receive().is_none());
    assert_eq!(adapter.oversized(), 6);
}

#[test]
fn a_device_that_sends_nothing_leaves_no_room() {
    let dma = FakeDma::default();
    let device = device(&dma, MAC, 0);
    let mut adapter = start(&device, &dma);
    let mut count = 0;
    while adapter.can_send() {
        adapter.send(60, |bytes| bytes.fill(count));
        count += 1;
    }
    // Half of the queue's size, as a legacy device's frames would fill it.
    assert_eq!(count, 4);
    assert_eq!(adapter.flush(), Ok(()));
    assert_eq!(sent(&device).len(), 4);
    assert!(adapter.can_send());
}

#[test]
fn a_frame_without_room_is_an_error_and_not_a_panic() {
    let dma = FakeDma::default();
    let device = device(&dma, MAC, 0);
    let mut adapter = start(&device, &dma);
    assert_eq!(adapter.send(2000, |bytes| bytes.len()), 2000);
    let error = adapter.flush().unwrap_err();
    assert_eq!(error, "a buffer of 1514 bytes where it takes 2000");
}

#[test]
fn an_adapter_without_an_address_gets_one() {
    let dma = FakeDma::default();
    let device = device(&dma, 0, 0);
    let mac = start(&device, &dma).mac();
    // One station's, and locally administered.
    assert_eq!(mac[0] & 3, 2);
}

#[test]
fn the_link_and_the_devices_end_are_seen() {
    let dma = FakeDma::default();
    let device = device(&dma, MAC | STATUS, 0);
    let mut adapter = start(&device, &dma);
    assert_eq!(adapter.link_up(), Ok(true));
    device.change(|options| options.config[6] = 0);
    assert_eq!(adapter.link_up(), Ok(false));
    device.unplug();
    device.change(|options| options.config[6..8].fill(0xff));
    assert_eq!(adapter.link_up(), Err(DeviceError::Gone.to_string()));
}

#[test]
fn what_a_device_lies_about_ends_it() {
    let dma = FakeDma::default();
    let device = device(&dma, MAC | MRG_RXBUF, 0);
    let mut adapter = start(&device, &dma);
    let chain = device.take(0).unwrap();
    device.finish(0, &chain, HEADER as u32 - 1);
    assert!(adapter.receive().is_none());
    let error = adapter.flush().unwrap_err();
    assert!(error.contains("wrote 11 bytes"), "{error}");
    // It stays so, and the first error is the one that is told.
    assert!(adapter.receive().is_none());
    assert_eq!(adapter.flush(), Err(error));
}
