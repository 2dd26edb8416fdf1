//! What a network device does with its queues (virtio 1.2, 5.1.6), for tests.

use std::vec;
use std::vec::Vec;

use crate::transport::RingLayout;
use crate::transport::fake::{Chain, FakeDevice, Options};
use crate::virtio::Features;

const fn bit(number: u32) -> Features {
    Features::from_bits_retain(1 << number)
}

pub(crate) const MTU: Features = bit(3);
pub(crate) const MAC: Features = bit(5);
pub(crate) const MRG_RXBUF: Features = bit(15);
pub(crate) const STATUS: Features = bit(16);
pub(crate) const CTRL_VQ: Features = bit(17);
pub(crate) const CTRL_RX: Features = bit(18);
pub(crate) const MQ: Features = bit(22);
pub(crate) const CTRL_MAC_ADDR: Features = bit(23);

pub(crate) const ADDRESS: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

/// How the header lies before a packet under these features: its length, and
/// whether it has a descriptor of its own (5.1.6.1, 5.1.6.6).
pub(crate) fn framing(features: Features) -> (usize, bool) {
    let modern = features.contains(bit(32));
    let long = modern || features.contains(MRG_RXBUF);
    let split = !modern && !features.contains(bit(27));
    (if long { 12 } else { 10 }, split)
}

/// A device with `pairs` pairs of queues of 16 and a control queue, that offers
/// `features`; a legacy one, if VIRTIO_F_VERSION_1 is not among them.
pub(crate) fn options(features: Features, pairs: u16) -> Options {
    let mut config = Vec::from(ADDRESS);
    config.extend([1, 0]);
    config.extend(pairs.to_le_bytes());
    config.extend(1500u16.to_le_bytes());
    let layout = if features.contains(bit(32)) {
        RingLayout::Separate
    } else {
        RingLayout::Contiguous { align: 4096 }
    };
    Options {
        device_type: 1,
        features,
        layout,
        queues: vec![16; 2 * usize::from(pairs) + 1],
        config,
        ..Options::default()
    }
}

#[derive(Default)]
pub(crate) struct Nic {
    /// What was sent.
    pub(crate) sent: Vec<Vec<u8>>,
    /// Class, command, and the buffers of data of each command.
    pub(crate) commands: Vec<(u8, u8, Vec<Vec<u8>>)>,
    /// The answer to all commands from now on; `None` for none.
    pub(crate) ack: Option<u8>,
}

impl Nic {
    pub(crate) fn new() -> Self {
        Self {
            ack: Some(0),
            ..Self::default()
        }
    }

    /// Takes a frame that is sent; the answer is how many bytes were written.
    pub(crate) fn transmit(&mut self, features: Features, chain: &Chain) -> u32 {
        let (header, split) = framing(features);
        check_framing(chain, header, split);
        assert_eq!(chain.writable(), 0);
        let bytes = chain.readable();
        assert!(bytes[..header].iter().all(|&byte| byte == 0), "5.1.6.2.1");
        self.sent.push(bytes[header..].into());
        0
    }

    /// Does what a command says; the answer is how many bytes were written.
    pub(crate) fn control(&mut self, chain: &Chain) -> u32 {
        // 5.1.6.6: so it has to be for devices that know nothing else.
        let buffers = chain.buffers();
        let (last, readable) = buffers.split_last().unwrap();
        assert_eq!((last.len, last.writable), (1, true), "the ack");
        let mut bytes = chain.readable();
        let mut data = Vec::new();
        for (index, buffer) in readable.iter().enumerate() {
            assert!(!buffer.writable);
            let rest = bytes.split_off(buffer.len as usize);
            let part = core::mem::replace(&mut bytes, rest);
            match index {
                0 => assert_eq!(part.len(), 2, "class and command"),
                _ => data.push(part),
            }
        }
        let head = chain.readable();
        self.commands.push((head[0], head[1], data));
        let Some(ack) = self.ack else { return 0 };
        chain.write(0, &[ack]);
        1
    }
}

fn check_framing(chain: &Chain, header: usize, split: bool) {
    let buffers = chain.buffers();
    if split {
        assert_eq!(buffers.len(), 2);
        assert_eq!(buffers[0].len as usize, header, "5.1.6.6");
    } else {
        assert_eq!(buffers.len(), 1);
    }
}

/// A header that says `num_buffers`, where it has that field.
pub(crate) fn header(features: Features, num_buffers: u16) -> Vec<u8> {
    let (len, _) = framing(features);
    // A device that has no offloads to tell of leaves all else 0.
    let mut header = vec![0; len];
    if features.contains(MRG_RXBUF) {
        header[10..12].copy_from_slice(&num_buffers.to_le_bytes());
    }
    header
}

/// Puts a frame into the buffers of a receive queue; the answer is how many.
pub(crate) fn deliver(device: &FakeDevice<'_>, queue: u16, frame: &[u8]) -> u16 {
    let features = device.features();
    let (header_len, split) = framing(features);
    let mut chains = Vec::new();
    let (mut room, len) = (0, header_len + frame.len());
    while room < len {
        let chain = device.take(queue).expect("a receive buffer");
        check_framing(&chain, header_len, split);
        room += chain.writable() as usize;
        chains.push(chain);
    }
    let count = chains.len() as u16;
    let mut bytes = header(features, count);
    bytes.extend(frame);
    for chain in chains {
        let here = bytes.len().min(chain.writable() as usize);
        let rest = bytes.split_off(here);
        chain.write(0, &bytes);
        device.finish(queue, &chain, here as u32);
        bytes = rest;
    }
    count
}
