//! Pings (RFC 792) over IPv4 (RFC 791), which the kernel at the other end of a tap
//! answers: as many flows as there are addresses to ping from.

use core::ops::Range;

use doorbell::device::net::ETHERNET_HEADER;
use doorbell_tests::Outcome;

use super::frame::Mac;
use crate::pattern;

/// The kernel's addresses, and the guest's but for its last byte.
const KERNEL_MAC: Mac = [0x52, 0x54, 0x00, 0xdb, 0xff, 0x02];
const KERNEL: [u8; 4] = [10, 0, 3, 2];
const GUEST: [u8; 3] = [10, 0, 3];
/// The last byte of the first address that the kernel knows the guest by.
const FIRST: u8 = 15;

/// EtherType IPv4, then version 4 with a header of 5 words.
const IPV4: [u8; 3] = [0x08, 0x00, 0x45];
const TIME_TO_LIVE: u8 = 64;
const ICMP: u8 = 1;
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// The parts of a frame.
const IP: usize = ETHERNET_HEADER;
const IP_LENGTH: Range<usize> = IP + 2..IP + 4;
const IP_TIME: usize = IP + 8;
const IP_PROTOCOL: usize = IP + 9;
const IP_CHECKSUM: Range<usize> = IP + 10..IP + 12;
const IP_FROM: Range<usize> = IP + 12..IP + 16;
const IP_TO: Range<usize> = IP + 16..IP + 20;
const MESSAGE: usize = IP + 20;
const CODE: usize = MESSAGE + 1;
const CHECKSUM: Range<usize> = MESSAGE + 2..MESSAGE + 4;
const IDENTIFIER: Range<usize> = MESSAGE + 4..MESSAGE + 6;
const SEQUENCE: Range<usize> = MESSAGE + 6..MESSAGE + 8;
const DATA: usize = MESSAGE + 8;

/// How long a frame is.
pub(super) const LEN: usize = 590;

/// A ping, or what came back of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ping {
    /// Which of the guest's addresses it is from: what goes between two addresses is
    /// one flow.
    pub(super) flow: u8,
    pub(super) identifier: u16,
    pub(super) sequence: u16,
}

impl Ping {
    /// Writes the frame, which is from a device with this MAC address.
    pub(super) fn write(self, mac: Mac, frame: &mut [u8]) {
        let [a, b, c] = GUEST;
        frame.fill(0);
        frame[..6].copy_from_slice(&KERNEL_MAC);
        frame[6..12].copy_from_slice(&mac);
        frame[12..15].copy_from_slice(&IPV4);
        let length = (frame.len() - IP) as u16;
        frame[IP_LENGTH].copy_from_slice(&length.to_be_bytes());
        frame[IP_TIME] = TIME_TO_LIVE;
        frame[IP_PROTOCOL] = ICMP;
        frame[IP_FROM].copy_from_slice(&[a, b, c, FIRST + self.flow]);
        frame[IP_TO].copy_from_slice(&KERNEL);
        let sum = checksum(&frame[IP..MESSAGE]);
        frame[IP_CHECKSUM].copy_from_slice(&sum);
        frame[MESSAGE] = ECHO;
        frame[IDENTIFIER].copy_from_slice(&self.identifier.to_be_bytes());
        frame[SEQUENCE].copy_from_slice(&self.sequence.to_be_bytes());
        pattern::fill(0, self.seed(), &mut frame[DATA..]);
        let sum = checksum(&frame[MESSAGE..]);
        frame[CHECKSUM].copy_from_slice(&sum);
    }

    /// What a frame answers, if it is an answer from the kernel.
    pub(super) fn answered(frame: &[u8]) -> Option<Self> {
        let [a, b, c, last] = *frame.get(IP_TO)? else {
            return None;
        };
        let number =
            |range: Range<usize>| Some(u16::from_be_bytes(frame.get(range)?.try_into().ok()?));
        let is_answer = frame[12..15] == IPV4
            && frame[IP_PROTOCOL] == ICMP
            && frame[IP_FROM] == KERNEL
            && [a, b, c] == GUEST
            && frame.get(MESSAGE..=CODE) == Some(&[ECHO_REPLY, 0]);
        if !is_answer {
            return None;
        }
        Some(Self {
            flow: last.checked_sub(FIRST)?,
            identifier: number(IDENTIFIER)?,
            sequence: number(SEQUENCE)?,
        })
    }

    /// Checks what came back with the answer.
    pub(super) fn check(self, frame: &[u8]) -> Outcome {
        // `answered` has read what is before it.
        pattern::check(0, self.seed(), frame.get(DATA..LEN).unwrap_or_default())
    }

    fn seed(self) -> u64 {
        u64::from(self.flow) << 32 | u64::from(self.identifier) << 16 | u64::from(self.sequence)
    }
}

/// The Internet checksum (RFC 1071) of a field that is 0 so far.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high, ..] => u32::from(high) << 8,
        [] => 0,
    });
    // Less than 2^16 words: the sum and its carries have room.
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
