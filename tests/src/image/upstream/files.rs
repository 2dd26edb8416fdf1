//! Upstream's 9P driver, which carries messages: a few of 9P2000.L, to read a file
//! that the host wrote, and to write one that it reads.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use doorbell_tests::{Outcome, Runner, Stop, ensure};
use virtio_drivers::device::virtio_9p::VirtIO9p;

use super::{Bench, Hal, Upstream};
use crate::pattern;

/// The virtio device type (5, "9P transport").
pub(super) const DEVICE_TYPE: u16 = 9;

type Driver<'t> = VirtIO9p<Hal, Upstream<'t>>;

/// What the host shares, the file that it wrote there, and what is in it.
const TAG: &str = "doorbell";
const FOLDER: &str = "folder";
const FILE: &str = "pattern.bin";
const SEED: u64 = 0xF11E_5EED;
const BYTES: u64 = 50_000;

/// Requests; an answer has the next number.
mod message {
    pub(super) const LERROR: u8 = 7;
    pub(super) const LOPEN: u8 = 12;
    pub(super) const LCREATE: u8 = 14;
    pub(super) const VERSION: u8 = 100;
    pub(super) const ATTACH: u8 = 104;
    pub(super) const WALK: u8 = 110;
    pub(super) const READ: u8 = 116;
    pub(super) const WRITE: u8 = 118;
    pub(super) const CLUNK: u8 = 120;
}

/// The dialect, the longest message, and how much data goes in one at most.
const DIALECT: &str = "9P2000.L";
const LONGEST: usize = 16 << 10;
const CHUNK: u64 = 4096;
/// Length, type and tag.
const HEADER: usize = 7;
/// No tag, and no file.
const NO_TAG: u16 = 0xffff;
const NO_FID: u32 = 0xffff_ffff;
/// Ours: the shared folder, and a file in it.
const ROOT: u32 = 1;
const OPEN: u32 = 2;
/// `O_RDONLY`, and `O_WRONLY`.
const READING: u32 = 0;
const WRITING: u32 = 1;

pub(super) fn open(transport: Upstream<'_>) -> virtio_drivers::Result<Driver<'_>> {
    VirtIO9p::new(transport)
}

pub(super) fn test<'t>(runner: &mut Runner<'_>, bench: &Bench<'t>, transport: Upstream<'t>) {
    let Some(driver) = bench.start(runner, transport, open) else {
        return;
    };
    let mut share = Share {
        driver: *driver,
        answer: vec![0; LONGEST],
    };
    bench.run(runner, "attaches", || share.attach());
    bench.run(runner, "reads what the host wrote", || share.reads());
    bench.run(runner, "the host reads what was written", || {
        share.writes(bench)
    });
    bench.show();
}

/// A request's fields, behind its header.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn number(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend(bytes.as_ref());
        self
    }

    fn u16(self, number: u16) -> Self {
        self.number(number.to_le_bytes())
    }

    fn u32(self, number: u32) -> Self {
        self.number(number.to_le_bytes())
    }

    fn u64(self, number: u64) -> Self {
        self.number(number.to_le_bytes())
    }

    fn text(self, text: &str) -> Self {
        self.u16(text.len() as u16).number(text)
    }
}

struct Share<'t> {
    driver: Driver<'t>,
    /// The last answer.
    answer: Vec<u8>,
}

impl Share<'_> {
    /// Sends a request, and returns what its answer has behind the header.
    fn request(&mut self, kind: u8, tag: u16, fields: Fields) -> Result<&[u8], Stop> {
        let len = (HEADER + fields.0.len()) as u32;
        let header = Fields::default().u32(len).number([kind]).u16(tag);
        let request = header.number(fields.0).0;
        let len = self.driver.request(&request, &mut self.answer)? as usize;
        let answer = self.answer.get(..len).unwrap_or_default();
        let Some((header, fields)) = answer.split_at_checked(HEADER) else {
            return Err(Stop::failed(format_args!("the answer has {len} bytes")));
        };
        ensure!(
            header[4] != message::LERROR,
            "request {kind} failed with the error {fields:02x?}"
        );
        ensure!(
            header[4] == kind + 1 && header[5..] == tag.to_le_bytes(),
            "the answer to {kind} begins with {header:02x?}"
        );
        Ok(fields)
    }

    fn attach(&mut self) -> Outcome {
        let tag = self.driver.mount_tag();
        ensure!(tag == TAG, "it shares {tag:?}");
        let version = Fields::default().u32(LONGEST as u32).text(DIALECT);
        let agreed = self.request(message::VERSION, NO_TAG, version)?;
        let expected = Fields::default().u32(LONGEST as u32).text(DIALECT).0;
        ensure!(agreed == expected, "it speaks {:?}", agreed.escape_ascii());
        let attach = Fields::default().u32(ROOT).u32(NO_FID).text("").text("");
        self.request(message::ATTACH, 0, attach.u32(0)).map(drop)
    }

    /// Opens a file, by its path in the share.
    fn walk(&mut self, path: &[&str]) -> Outcome {
        let walk = Fields::default().u32(ROOT).u32(OPEN);
        let walk = walk.u16(path.len() as u16);
        let walk = path.iter().fold(walk, |walk, name| walk.text(name));
        let answer = self.request(message::WALK, 1, walk)?;
        let found = answer.first().copied().unwrap_or_default();
        ensure!(
            usize::from(found) == path.len(),
            "{found} of {path:?} are there"
        );
        Ok(())
    }

    fn clunk(&mut self) -> Outcome {
        let clunk = Fields::default().u32(OPEN);
        self.request(message::CLUNK, 2, clunk).map(drop)
    }

    fn reads(&mut self) -> Outcome {
        self.walk(&[FOLDER, FILE])?;
        let open = Fields::default().u32(OPEN).u32(READING);
        self.request(message::LOPEN, 3, open)?;
        let mut at = 0;
        loop {
            let read = Fields::default().u32(OPEN).u64(at).u32(CHUNK as u32);
            let answer = self.request(message::READ, 4, read)?;
            let (count, data) = answer.split_at_checked(4).unwrap_or_default();
            ensure!(
                *count == (data.len() as u32).to_le_bytes(),
                "{count:02x?} is not the length of {} bytes",
                data.len()
            );
            if data.is_empty() {
                break;
            }
            pattern::check(at, SEED, data)?;
            at += data.len() as u64;
        }
        ensure!(at == BYTES, "the file has {at} bytes");
        self.clunk()
    }

    fn writes(&mut self, bench: &Bench<'_>) -> Outcome {
        let (seed, name) = (bench.seed(), format!("from-guest-{}", bench.number));
        self.walk(&[])?;
        let create = Fields::default().u32(OPEN).text(&name);
        let create = create.u32(WRITING).u32(0o600).u32(0);
        self.request(message::LCREATE, 5, create)?;
        for at in (0..BYTES).step_by(CHUNK as usize) {
            let mut data = vec![0; CHUNK.min(BYTES - at) as usize];
            pattern::fill(at, seed, &mut data);
            let write = Fields::default().u32(OPEN).u64(at);
            let write = write.u32(data.len() as u32).number(&data);
            let wrote = self.request(message::WRITE, 6, write)?;
            ensure!(
                *wrote == (data.len() as u32).to_le_bytes(),
                "it wrote {wrote:02x?} of {} bytes",
                data.len()
            );
        }
        self.clunk()?;
        let arguments = [
            ("name", name.as_str().into()),
            ("bytes", BYTES.into()),
            ("seed", seed.into()),
        ];
        bench.ask("file", arguments).map(drop)
    }
}
