//! The disk images: what the host writes before a run, and what it expects to
//! find afterwards.
//!
//! A disk is [`DISK_BYTES`] long and full of one pattern. Word `i` (0..64, 64-bit
//! little-endian) of sector `n` is
//!
//! ```text
//! (n * 64 + i) * 0x9E37_79B9_7F4A_7C15 + seed        (wrapping)
//! ```
//!
//! with [`DISK_SEED`] for what the host writes. A guest that writes uses the
//! same formula with a seed of its own, and announces the sectors and the seed
//! in a `wrote` record.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Bytes in a sector, as virtio-blk counts them.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Bytes in each default disk: 16 MiB.
pub(crate) const DISK_BYTES: u64 = 16 << 20;
/// The seed of what the host writes.
pub(crate) const DISK_SEED: u64 = 0xD00D_BE11_D00D_BE11;
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// The contents of sector `n` for `seed`.
pub(crate) fn sector(n: u64, seed: u64) -> [u8; SECTOR_BYTES] {
    let mut bytes = [0; SECTOR_BYTES];
    for (i, word) in (0u64..).zip(bytes.chunks_exact_mut(8)) {
        let value = n
            .wrapping_mul(64)
            .wrapping_add(i)
            .wrapping_mul(MULTIPLIER)
            .wrapping_add(seed);
        word.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Writes a fresh disk image.
///
/// # Errors
/// Whatever the file system says, with the path.
pub(crate) fn create(path: &Path) -> Result<()> {
    let mut bytes = Vec::with_capacity(DISK_BYTES as usize);
    for n in 0..DISK_BYTES / SECTOR_BYTES as u64 {
        bytes.extend_from_slice(&sector(n, DISK_SEED));
    }
    File::create(path)
        .and_then(|mut file| file.write_all(&bytes))
        .with_context(|| format!("cannot write the disk image {}", path.display()))
}

/// Sectors that a guest says it wrote: `count` from `first`, with `seed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrote {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) seed: u64,
}

/// Checks every sector: those in `wrote` hold the guest's pattern (the last
/// write counts), all others still the host's. Returns the number of sectors
/// that the guest wrote, or a sentence about the first wrong word.
pub(crate) fn check(path: &Path, wrote: &[Wrote]) -> Result<u64, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if bytes.len() as u64 != DISK_BYTES {
        return Err(format!(
            "the disk is {} bytes long, not {DISK_BYTES}",
            bytes.len()
        ));
    }
    let sectors = DISK_BYTES / SECTOR_BYTES as u64;
    if let Some(w) = wrote.iter().find(|w| {
        w.first
            .checked_add(w.count)
            .is_none_or(|after| after > sectors)
    }) {
        return Err(format!(
            "the guest says it wrote {} sectors from sector {}, but the disk has {sectors}",
            w.count, w.first
        ));
    }
    let mut by_guest = 0;
    for (n, found) in (0u64..).zip(bytes.chunks_exact(SECTOR_BYTES)) {
        let last = wrote
            .iter()
            .rev()
            .find(|w| (w.first..w.first + w.count).contains(&n));
        by_guest += u64::from(last.is_some());
        let expected = sector(n, last.map_or(DISK_SEED, |w| w.seed));
        if let Some(at) = found.iter().zip(expected).position(|(a, b)| *a != b) {
            let at = at / 8 * 8;
            return Err(format!(
                "sector {n}, byte {at}: found {}, expected {} ({})",
                hex(&found[at..at + 8]),
                hex(&expected[at..at + 8]),
                if last.is_some() {
                    "the guest says it wrote this sector"
                } else {
                    "nobody announced a write to this sector"
                },
            ));
        }
    }
    Ok(by_guest)
}

fn hex(word: &[u8]) -> String {
    word.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("doorbell-{}-{name}.img", std::process::id()))
    }

    #[test]
    fn the_formula_is_the_documented_one() {
        let bytes = sector(3, 7);
        let word = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
        let expected = (3u64 * 64 + 2)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(7);
        assert_eq!(word, expected);
        assert_eq!(sector(0, DISK_SEED)[..8], DISK_SEED.to_le_bytes());
    }

    #[test]
    fn a_fresh_disk_passes_and_a_write_must_be_announced() {
        let path = temporary("check");
        create(&path).unwrap();
        assert_eq!(check(&path, &[]), Ok(0));

        let mut bytes = std::fs::read(&path).unwrap();
        bytes[5 * SECTOR_BYTES..6 * SECTOR_BYTES].copy_from_slice(&sector(5, 1));
        std::fs::write(&path, &bytes).unwrap();
        let wrote = Wrote {
            first: 5,
            count: 1,
            seed: 1,
        };
        assert_eq!(check(&path, &[wrote]), Ok(1));
        assert!(check(&path, &[]).unwrap_err().contains("sector 5"));
        // The last write to a sector is the one that counts.
        let other = Wrote { seed: 2, ..wrote };
        assert_eq!(check(&path, &[other, wrote]), Ok(1));
        assert!(check(&path, &[wrote, other]).is_err());
        let beyond = Wrote {
            first: u64::MAX,
            ..wrote
        };
        assert!(
            check(&path, &[beyond])
                .unwrap_err()
                .contains("but the disk has")
        );
        std::fs::remove_file(path).unwrap();
    }
}
