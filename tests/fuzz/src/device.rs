//! Devices that answer with anything.

use doorbell::device::net::Net;
use doorbell::device::{Console, Setup};
use doorbell::dma::DmaRegion;
use doorbell::dma::fake::FakeDma;
use doorbell::transport::fake::{FakeDevice, Options};
use doorbell::virtio::{Features, Polls};

use crate::bytes::Bytes;

/// `VIRTIO_CONSOLE_F_MULTIPORT` (5.3.3).
const MULTIPORT: u64 = 1 << 1;
/// `VIRTIO_NET_F_MAC`, `_MRG_RXBUF`, `_STATUS` (5.1.3).
const NET: [u64; 3] = [1 << 5, 1 << 15, 1 << 16];

fn ring(bytes: &mut Bytes<'_>) -> Features {
    let choice = bytes.u8();
    let mut features = Features::VERSION_1;
    features.set(Features::INDIRECT_DESC, choice & 1 != 0);
    features.set(Features::EVENT_IDX, choice & 2 != 0);
    features.set(Features::RING_PACKED, choice & 4 != 0);
    features
}

/// The control messages of a console (5.3.6.2), in any order and of any length.
pub fn console(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let dma = FakeDma::default();
    {
        let ring = ring(&mut bytes);
        let ports = 1 + bytes.u8() % 4;
        let mut config = vec![80, 0, 25, 0, ports, 0, 0, 0, 0, 0, 0, 0];
        if bytes.u8() % 4 == 0 {
            config[4..8].copy_from_slice(&bytes.take::<4>());
        }
        let device = FakeDevice::new(
            &dma,
            Options {
                device_type: 3,
                features: ring | Features::from_bits_retain(MULTIPORT),
                queues: vec![8; 2 * (usize::from(ports) + 1)],
                config,
                ..Options::default()
            },
        );
        let setup = Setup {
            queues: 4,
            ..Setup::new(8, ring)
        };
        let console = Console::new(device.transport(), &setup, &dma, &mut Polls(100));
        let Ok(mut console) = console else {
            return;
        };
        while !bytes.is_empty() {
            match bytes.u8() % 6 {
                0..=2 => say(&mut bytes, &device),
                3 => {
                    let port = u32::from(bytes.u8() % 6);
                    let _ = match bytes.u8() % 2 {
                        0 => console.open_port(port),
                        _ => console.close_port(port),
                    };
                }
                4 => {
                    let mut into = [0; 16];
                    let port = u32::from(bytes.u8() % 6);
                    let _ = console.read(port, &mut into);
                    let _ = console.write(port, b"hello");
                }
                _ => {
                    for _ in 0..8 {
                        if !matches!(console.poll_event(), Ok(Some(_))) {
                            break;
                        }
                    }
                }
            }
            for queue in 0..u16::from(2 * (ports + 1)) {
                if queue % 2 == 1 {
                    device.process(queue, |_| 0);
                }
            }
        }
        for (_, port) in console.ports() {
            assert!(port.name().is_none_or(|name| name.len() <= 4096));
        }
        drop(console);
        assert_eq!(device.violations(), Vec::<String>::new());
    }
    assert_eq!(dma.live(), 0, "memory was kept");
}

/// A message with the fields that mean something likelier than chance has them.
fn say(bytes: &mut Bytes<'_>, device: &FakeDevice<'_>) {
    let Some(chain) = device.take(2) else {
        return;
    };
    let mut message = Vec::new();
    message.extend(u32::from(bytes.u8() % 6).to_le_bytes());
    message.extend(u16::from(bytes.u8() % 10).to_le_bytes());
    message.extend(u16::from(bytes.u8() % 3).to_le_bytes());
    let more = usize::from(bytes.u8() % 40);
    message.extend(bytes.slice(more));
    if bytes.u8() % 4 == 0 {
        message.truncate(usize::from(bytes.u8() % 8));
    }
    let len = (message.len()).min(chain.writable() as usize);
    chain.write(0, &message[..len]);
    device.finish(2, &chain, len as u32);
}

/// The headers of received frames and the counts of their buffers (5.1.6.4), and a
/// configuration that says anything.
pub fn net(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let dma = FakeDma::default();
    {
        let ring = ring(&mut bytes);
        let own = bytes.u8();
        let own = NET.iter().enumerate().filter(|(n, _)| own >> n & 1 != 0);
        let own = own.fold(0, |all, (_, bit)| all | bit);
        let mut config = vec![0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0, 0xdc, 5];
        if bytes.u8() % 8 == 0 {
            config.copy_from_slice(&bytes.take::<12>());
        }
        let device = FakeDevice::new(
            &dma,
            Options {
                device_type: 1,
                features: ring | Features::from_bits_retain(own),
                queues: vec![8; 3],
                config,
                ..Options::default()
            },
        );
        let setup = Setup::new(8, ring);
        let net = Net::new(device.transport(), &setup, &dma, &mut Polls(100));
        let Ok(mut net) = net else {
            return;
        };
        while !bytes.is_empty() {
            match bytes.u8() % 4 {
                0 => {
                    let len = 14 + usize::from(bytes.u8());
                    if let Ok(buffer) = DmaRegion::new(&dma, len, 16) {
                        let _ = net.submit_receive(0, buffer);
                    }
                }
                1..=2 => arrive(&mut bytes, &device),
                _ => {
                    if let Ok(Some(received)) = net.poll_receive(0) {
                        drop(received);
                    }
                }
            }
        }
        drop(net);
        assert_eq!(device.violations(), Vec::<String>::new());
    }
    assert_eq!(dma.live(), 0, "memory was kept");
}

fn arrive(bytes: &mut Bytes<'_>, device: &FakeDevice<'_>) {
    let Some(chain) = device.take(0) else {
        return;
    };
    let room = chain.writable() as usize;
    let len = usize::from(bytes.u16()).min(room);
    let mut frame = vec![0; len];
    let header = bytes.slice(12);
    let there = header.len().min(len);
    frame[..there].copy_from_slice(&header[..there]);
    chain.write(0, &frame);
    let written = match bytes.u8() % 8 {
        0 => bytes.u32().min(room as u32),
        _ => len as u32,
    };
    device.finish(0, &chain, written);
}
