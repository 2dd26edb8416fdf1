//! The frames that these tests send: each says which it is, and of which test.

use core::ops::Range;

use doorbell::device::net::ETHERNET_HEADER;
use doorbell_kernel::arch::tsc;
use doorbell_tests::{Outcome, ensure};

use crate::pattern;

/// A MAC address.
pub(crate) type Mac = [u8; 6];

/// The host's end of the wire.
pub(crate) const HOST: Mac = [0x52, 0x54, 0x00, 0xdb, 0xff, 0xff];
/// The EtherType of what the host sends back: the first for local experiments (IEEE 802).
const ECHOED: [u8; 2] = [0x88, 0xb5];
/// That of what the host sends by itself: the second.
const SENT: [u8; 2] = [0x88, 0xb6];

/// The shortest frame that Ethernet has, and the longest of its usual MTU.
pub(crate) const SHORTEST: usize = 60;
pub(crate) const LONGEST: usize = 1514;

/// The parts of a frame. The payload begins with the stamp's number and the frame's
/// own; what is left is a stream that both begin.
const TO: Range<usize> = 0..6;
const FROM: Range<usize> = 6..12;
const ETHERTYPE: Range<usize> = 12..ETHERNET_HEADER;
const STAMP: Range<usize> = 14..22;
const NUMBER: Range<usize> = 22..30;
const REST: usize = NUMBER.end;

/// What tells the frames of one test from those of another: what was under way when the
/// device was reset comes after that.
#[derive(Clone, Copy)]
pub(crate) struct Stamp(u64);

/// What a frame has to be.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) number: u64,
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) len: usize,
}

impl Stamp {
    /// One that no other test has: the time.
    pub(crate) fn new() -> Self {
        Self(tsc::start())
    }

    /// A seed for what the host sends.
    pub(crate) fn seed(self) -> u64 {
        self.0
    }

    /// Writes a frame.
    pub(crate) fn write(self, wanted: Wanted, frame: &mut [u8]) {
        let number = wanted.number.to_le_bytes();
        frame[TO].copy_from_slice(&wanted.to);
        frame[FROM].copy_from_slice(&wanted.from);
        frame[ETHERTYPE].copy_from_slice(&ECHOED);
        frame[STAMP].copy_from_slice(&self.0.to_le_bytes());
        frame[NUMBER].copy_from_slice(&number);
        pattern::fill(Self::at(wanted.number), self.0, &mut frame[REST..]);
    }

    /// Where the stream of a frame begins: no frame has so many bytes.
    fn at(number: u64) -> u64 {
        number << 20
    }

    /// The number of a frame, if it is one of these.
    pub(crate) fn number(self, frame: &[u8]) -> Option<u64> {
        let ours = frame.get(ETHERTYPE) == Some(&ECHOED[..])
            && frame.get(STAMP) == Some(&self.0.to_le_bytes()[..]);
        let number = frame.get(NUMBER).filter(|_| ours)?;
        Some(u64::from_le_bytes(number.try_into().ok()?))
    }

    /// Checks every byte of a frame.
    pub(crate) fn check(self, wanted: Wanted, frame: &[u8]) -> Outcome {
        let Wanted {
            number,
            to,
            from,
            len,
        } = wanted;
        let found = self.number(frame);
        ensure!(
            found == Some(number),
            "frame {found:?} came, and {number} should have"
        );
        ensure!(
            frame.len() == len,
            "frame {number} has {} bytes, not {len}",
            frame.len()
        );
        ensure!(
            frame[TO] == to && frame[FROM] == from,
            "frame {number} is for {:02x?} and from {:02x?}",
            &frame[TO],
            &frame[FROM]
        );
        pattern::check(Self::at(number), self.0, &frame[REST..])
    }
}

/// The payload of a frame that the host sends by itself, if it is one.
pub(crate) fn sent_by_host(frame: &[u8]) -> Option<&[u8]> {
    let ours = frame.get(FROM) == Some(&HOST[..]) && frame.get(ETHERTYPE) == Some(&SENT[..]);
    frame.get(ETHERNET_HEADER..).filter(|_| ours)
}
