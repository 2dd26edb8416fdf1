//! The bytes that host and guest exchange: a stream that either can make at any
//! place from a seed, and a digest of what came.
//!
//! Word `i` of a stream (64 bits, little-endian) is
//!
//! ```text
//! i * 0x9E37_79B9_7F4A_7C15 + seed        (wrapping)
//! ```
//!
//! A disk is one stream, so that sector `n` begins with word `64 * n`. The
//! payloads of network frames and the bytes of a serial port are streams too.

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
/// Bytes in a word.
const WORD: usize = 8;

/// Fills `into` with the stream of `seed` from byte `at` on.
pub(crate) fn fill(at: u64, seed: u64, into: &mut [u8]) {
    let skipped = (at % WORD as u64) as usize;
    let mut value = (at / WORD as u64)
        .wrapping_mul(MULTIPLIER)
        .wrapping_add(seed);
    let (first, rest) = into.split_at_mut(((WORD - skipped) % WORD).min(into.len()));
    if !first.is_empty() {
        first.copy_from_slice(&value.to_le_bytes()[skipped..][..first.len()]);
        value = value.wrapping_add(MULTIPLIER);
    }
    for word in rest.chunks_mut(WORD) {
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        value = value.wrapping_add(MULTIPLIER);
    }
}

/// Where `bytes`, which begin at byte `at` of the stream of `seed`, differ from
/// it first: the place in the stream, what is there, and what should be.
pub(crate) fn difference(at: u64, seed: u64, bytes: &[u8]) -> Option<(u64, u8, u8)> {
    let mut expected = vec![0; bytes.len()];
    fill(at, seed, &mut expected);
    if bytes == expected {
        return None;
    }
    let place = bytes.iter().zip(&expected).position(|(a, b)| a != b)?;
    Some((at + place as u64, bytes[place], expected[place]))
}

/// A running FNV-1a digest of 64 bits: what both sides can afford to make of
/// megabytes. It finds what was lost, doubled or put out of order; it is no
/// protection against malice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    const START: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01B3;

    /// The digest of nothing.
    pub(crate) const fn new() -> Self {
        Self(Self::START)
    }

    /// Takes more bytes in.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
        }
    }
}

/// As in an answer: 16 hexadecimal digits.
impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_from_wherever_it_is_made() {
        let mut whole = [0; 100];
        fill(0, 7, &mut whole);
        for n in 0..12 {
            let word = u64::from_le_bytes(whole[n * 8..][..8].try_into().unwrap());
            let expected = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) + 7;
            assert_eq!(word, expected);
        }
        for from in 0..20 {
            for to in from..whole.len() {
                let mut part = vec![0; to - from];
                fill(from as u64, 7, &mut part);
                assert_eq!(part, whole[from..to], "{from}..{to}");
            }
        }
    }

    #[test]
    fn the_first_wrong_byte_is_found() {
        let mut bytes = [0; 64];
        fill(1000, 3, &mut bytes);
        assert_eq!(difference(1000, 3, &bytes), None);
        let right = bytes[21];
        bytes[21] ^= 0x80;
        bytes[40] ^= 1;
        let expected = Some((1021, right ^ 0x80, right));
        assert_eq!(difference(1000, 3, &bytes), expected);
        assert!(difference(1001, 3, &bytes).is_some());
    }

    #[test]
    fn the_digest_is_fnv_1a_and_does_not_mind_pieces() {
        // From the algorithm's own list of test values.
        let mut digest = Digest::new();
        assert_eq!(digest.to_string(), "cbf29ce484222325");
        digest.add(b"foo");
        digest.add(b"bar");
        assert_eq!(digest.to_string(), "85944171f73967e8");
    }
}
