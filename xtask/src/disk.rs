//! The disk images: what the host writes before a run, and what it expects to
//! find in between and afterwards.
//!
//! A disk is full of one [`pattern`] whose stream begins with its
//! first sector, made with [`SEED`] by the host. A guest that writes uses
//! a seed of its own, and announces the sectors and the seed in a `wrote` record,
//! or sectors that it made zeros of in a `zeroed` one. What a disk grows by is
//! zeros too.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

use crate::pattern;

/// Bytes in a sector, as virtio-blk counts them.
pub(crate) const SECTOR_BYTES: usize = 512;
/// The seed of what the host writes.
pub(crate) const SEED: u64 = 0xD00D_BE11_D00D_BE11;
/// How much is read or written at once.
const CHUNK: usize = 1 << 20;

/// What sectors hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// The pattern of this seed.
    Pattern(u64),
    Zeroes,
}

impl Contents {
    /// Where `bytes`, from byte `at` of the disk on, are something else: the place,
    /// what is there, and what should be.
    fn difference(self, at: u64, bytes: &[u8]) -> Option<(u64, u8, u8)> {
        match self {
            Self::Pattern(seed) => pattern::difference(at, seed, bytes),
            Self::Zeroes => {
                let place = bytes.iter().position(|byte| *byte != 0)?;
                Some((at + place as u64, bytes[place], 0))
            }
        }
    }
}

/// Sectors that a guest says it wrote: `count` from `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wrote {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) contents: Contents,
}

impl Wrote {
    /// The sector after the last.
    ///
    /// # Errors
    /// When the disk has not so many.
    fn end(&self, sectors: u64) -> Result<u64, String> {
        let end = self.first.checked_add(self.count);
        end.filter(|end| *end <= sectors).ok_or_else(|| {
            format!(
                "the guest speaks of {} sectors from sector {}, but the disk has {sectors}",
                self.count, self.first
            )
        })
    }
}

/// Writes a fresh disk image of so many bytes, whole sectors.
///
/// # Errors
/// Whatever the file system says, with the path.
pub(crate) fn create(path: &Path, bytes: u64) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        while at < bytes {
            let length = (bytes - at).min(CHUNK as u64) as usize;
            pattern::fill(at, SEED, &mut chunk[..length]);
            file.write_all(&chunk[..length])?;
            at += length as u64;
        }
        Ok(())
    };
    write().with_context(|| cannot("write", path))
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} the disk image {}", path.display())
}

/// A disk image that is looked at.
struct Image {
    file: File,
    sectors: u64,
}

impl Image {
    fn open(path: &Path) -> Result<Self, String> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|error| format!("{}: {error}", cannot("read", path)))?;
        Ok(Self {
            file,
            sectors: bytes / SECTOR_BYTES as u64,
        })
    }

    /// Whether the sectors from `first` to before `end` hold `contents`; if not,
    /// a sentence about the first wrong byte.
    fn compare(&mut self, first: u64, end: u64, contents: Contents) -> Result<(), String> {
        let read = |error: std::io::Error| format!("cannot read sector {first}: {error}");
        let (mut at, end) = (first * SECTOR_BYTES as u64, end * SECTOR_BYTES as u64);
        self.file.seek(SeekFrom::Start(at)).map_err(read)?;
        let mut chunk = vec![0; CHUNK];
        while at < end {
            let length = (end - at).min(CHUNK as u64) as usize;
            self.file.read_exact(&mut chunk[..length]).map_err(read)?;
            if let Some((at, found, expected)) = contents.difference(at, &chunk[..length]) {
                let (sector, byte) = (at / SECTOR_BYTES as u64, at % SECTOR_BYTES as u64);
                return Err(format!(
                    "sector {sector}, byte {byte}: found {found:#04x}, expected {expected:#04x} ({})",
                    match contents {
                        Contents::Pattern(SEED) =>
                            "the host's own, which nobody announced to write",
                        Contents::Pattern(_) => "the guest says it wrote this sector",
                        Contents::Zeroes => "zeros",
                    }
                ));
            }
            at += length as u64;
        }
        Ok(())
    }
}

/// Looks at some sectors, now.
///
/// # Errors
/// A sentence about the first wrong byte.
pub(crate) fn holds(path: &Path, wrote: Wrote) -> Result<(), String> {
    let mut image = Image::open(path)?;
    let end = wrote.end(image.sectors)?;
    image.compare(wrote.first, end, wrote.contents)
}

/// Checks every sector of a disk that was made with `made` bytes and has `now`:
/// those in `wrote` hold what the guest says (the last counts), the others what
/// they did before. Returns how many sectors the guest wrote.
///
/// # Errors
/// A sentence about the first wrong byte.
pub(crate) fn check(path: &Path, made: u64, now: u64, wrote: &[Wrote]) -> Result<u64, String> {
    let mut image = Image::open(path)?;
    let (made, sectors) = (made / SECTOR_BYTES as u64, now / SECTOR_BYTES as u64);
    if image.sectors != sectors {
        return Err(format!(
            "the disk has {} sectors, not {sectors}",
            image.sectors
        ));
    }
    // The sectors at which contents can change, so that between two of them all is
    // alike.
    let mut edges = vec![0, made.min(sectors), sectors];
    for wrote in wrote {
        edges.extend([wrote.first, wrote.end(sectors)?]);
    }
    edges.sort_unstable();
    edges.dedup();
    let mut by_guest = 0;
    for edge in edges.windows(2) {
        let (first, end) = (edge[0], edge[1]);
        let last = wrote
            .iter()
            .rfind(|wrote| (wrote.first..wrote.first + wrote.count).contains(&first));
        let untouched = if first < made {
            Contents::Pattern(SEED)
        } else {
            Contents::Zeroes
        };
        image.compare(first, end, last.map_or(untouched, |wrote| wrote.contents))?;
        by_guest += last.map_or(0, |_| end - first);
    }
    Ok(by_guest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 1 << 20;

    fn temporary(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("doorbell-{}-{name}.img", std::process::id()))
    }

    fn wrote(first: u64, contents: Contents) -> Wrote {
        Wrote {
            first,
            count: 1,
            contents,
        }
    }

    /// Puts other bytes into a sector.
    fn overwrite(path: &Path, n: usize, seed: u64) {
        let mut bytes = std::fs::read(path).unwrap();
        let sector = &mut bytes[n * SECTOR_BYTES..][..SECTOR_BYTES];
        pattern::fill((n * SECTOR_BYTES) as u64, seed, sector);
        std::fs::write(path, &bytes).unwrap();
    }

    #[test]
    fn a_sector_begins_with_its_own_words() {
        let path = temporary("words");
        create(&path, BYTES).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, BYTES);
        assert_eq!(bytes[..8], SEED.to_le_bytes());
        let word = (3u64 * 64 + 2)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(SEED);
        assert_eq!(
            bytes[3 * SECTOR_BYTES + 16..][..8],
            word.to_le_bytes(),
            "the formula of the guest"
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_fresh_disk_passes_and_a_write_must_be_announced() {
        let path = temporary("check");
        let check = |wrote: &[Wrote]| check(&path, BYTES, BYTES, wrote);
        create(&path, BYTES).unwrap();
        assert_eq!(check(&[]), Ok(0));

        overwrite(&path, 5, 1);
        let right = wrote(5, Contents::Pattern(1));
        assert_eq!(check(&[right]), Ok(1));
        assert!(check(&[]).unwrap_err().contains("sector 5, byte 0"));
        // The last write to a sector is the one that counts.
        let other = wrote(5, Contents::Pattern(2));
        assert_eq!(check(&[other, right]), Ok(1));
        assert!(check(&[right, other]).is_err());
        let wide = Wrote { count: 2, ..right };
        assert!(check(&[wide]).unwrap_err().contains("sector 6"));
        let zeroes = wrote(5, Contents::Zeroes);
        assert!(check(&[zeroes]).unwrap_err().contains("zeros"));
        let beyond = Wrote {
            first: u64::MAX,
            ..right
        };
        assert!(check(&[beyond]).unwrap_err().contains("but the disk has"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_disk_that_grew_has_zeros_behind_its_old_end() {
        let path = temporary("grew");
        create(&path, BYTES).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(2 * BYTES))
            .unwrap();
        assert_eq!(check(&path, BYTES, 2 * BYTES, &[]), Ok(0));
        assert!(check(&path, BYTES, BYTES, &[]).is_err());
        assert!(check(&path, 2 * BYTES, 2 * BYTES, &[]).is_err());
        overwrite(&path, 3000, 9);
        assert!(check(&path, BYTES, 2 * BYTES, &[]).is_err());
        let right = wrote(3000, Contents::Pattern(9));
        assert_eq!(check(&path, BYTES, 2 * BYTES, &[right]), Ok(1));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn sectors_are_looked_at_in_between() {
        let path = temporary("holds");
        create(&path, BYTES).unwrap();
        overwrite(&path, 7, 4);
        assert_eq!(holds(&path, wrote(7, Contents::Pattern(4))), Ok(()));
        assert_eq!(holds(&path, wrote(8, Contents::Pattern(SEED))), Ok(()));
        let two = Wrote {
            count: 2,
            ..wrote(7, Contents::Pattern(4))
        };
        assert!(holds(&path, two).unwrap_err().contains("sector 8, byte 0"));
        assert!(holds(&path, wrote(7, Contents::Zeroes)).is_err());
        assert!(holds(&path, wrote(BYTES, Contents::Zeroes)).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
