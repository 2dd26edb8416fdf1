//! The bytes that the host and this exchange, as `xtask/src/pattern.rs` makes them:
//! word `i` (64 bits, little-endian) of the stream of a seed is
//! `i * 0x9E37_79B9_7F4A_7C15 + seed`, and its digest is FNV-1a.

use core::fmt;

use doorbell_tests::{Outcome, ensure};

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
/// Bytes in a word.
const WORD: usize = 8;

/// Fills `into` with the stream of `seed` from byte `at` on.
pub(crate) fn fill(at: u64, seed: u64, into: &mut [u8]) {
    let skipped = (at % WORD as u64) as usize;
    let word = (at / WORD as u64).wrapping_mul(MULTIPLIER);
    let mut word = word.wrapping_add(seed);
    let (first, rest) = into.split_at_mut(((WORD - skipped) % WORD).min(into.len()));
    if !first.is_empty() {
        first.copy_from_slice(&word.to_le_bytes()[skipped..][..first.len()]);
        word = word.wrapping_add(MULTIPLIER);
    }
    let mut words = rest.chunks_exact_mut(WORD);
    for bytes in &mut words {
        bytes.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(MULTIPLIER);
    }
    let last = words.into_remainder();
    last.copy_from_slice(&word.to_le_bytes()[..last.len()]);
}

/// Checks that `bytes` are the stream of `seed` from byte `at` on.
pub(crate) fn check(at: u64, seed: u64, bytes: &[u8]) -> Outcome {
    const PIECE: usize = 1024;
    let mut expected = [0; PIECE];
    let mut from = at;
    for found in bytes.chunks(PIECE) {
        let expected = &mut expected[..found.len()];
        fill(from, seed, expected);
        if found != expected {
            let mut pairs = found.iter().zip(&*expected);
            let place = pairs.position(|(a, b)| a != b).unwrap_or(0);
            ensure!(
                false,
                "byte {} is {:#04x}, not {:#04x}",
                from + place as u64,
                found[place],
                expected[place]
            );
        }
        from += found.len() as u64;
    }
    Ok(())
}

/// A digest of what went through, in pieces of any size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    /// The digest of nothing.
    pub(crate) const fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    /// Takes more bytes in.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

/// As the host has it in an answer.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
