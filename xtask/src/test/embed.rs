//! Somebody else's kernel with our drivers in it (`tests/embed/`): what it did to its
//! disk and its network, as the host sees them, and how much it took to connect the two.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::World;
use super::report::Report;
use crate::disk::SECTOR_BYTES;
use crate::image;
use crate::qemu::devices::{Doorbells, Network};
use crate::qemu::input::Input;
use crate::qemu::launch::{Echo, Ended, Launch, launch};
use crate::qemu::{self, Accelerator, Files, Firmware, Machine, Options};

/// What [`CASES`] can be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Case {
    /// The source is looked at.
    Glue,
    /// The kernel is booted.
    Boot(Machine),
}

/// All cases.
pub(crate) const CASES: [Case; 3] = [
    Case::Glue,
    Case::Boot(Machine::Q35),
    Case::Boot(Machine::Pc),
];

/// The kernel's sources, and the one that knows our traits.
const SOURCES: &str = "tests/embed";
const GLUE: &str = "src/kernel/glue.rs";
/// How many lines of code the glue may have, without empty ones and comments.
const GLUE_LINES: usize = 119;
/// What the kernel must not depend on.
const OURS: [&str; 3] = ["doorbell-boot", "doorbell-kernel", "doorbell-tests"];

/// How long the kernel may take: many times what it does.
const PATIENCE: Duration = Duration::from_secs(60);
/// The status that QEMU ends with if the kernel is content.
const CONTENT: i32 = 85;
/// MiB.
const MEMORY: u32 = 64;

/// Sectors of the disk, that which the kernel reads, and where it writes the same bytes
/// backwards (tests/embed/src/kernel/disk.rs).
const SECTORS: usize = 64;
const FROM: usize = 7;
const TO: usize = 21;

/// The kernel's address in the network, and the router's in QEMU's.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x65, 0x6d, 0x62];
const ROUTER: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

impl Case {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Glue => "glue",
            Self::Boot(machine) => machine.name(),
        }
    }

    /// Whether it needs the kernel's image.
    pub(crate) fn boots(self) -> bool {
        matches!(self, Self::Boot(_))
    }
}

/// Runs a case.
pub(super) fn run(case: Case, world: &World, folder: &Path) -> Result<Report> {
    let mut report = Report::default();
    match (case, &world.embed) {
        (Case::Glue, _) => glue(&image::workspace().join(SOURCES), &mut report)?,
        (Case::Boot(_), Err(why)) => report.fail("", why.as_str()),
        (Case::Boot(machine), Ok(image)) => {
            boot(machine, &image.path, &world.qemu, folder, &mut report)?;
        }
    }
    Ok(report)
}

/// Counts the lines that connect the kernel with the library, and looks for what of ours
/// it has no business with.
fn glue(sources: &Path, report: &mut Report) -> Result<()> {
    let read = |name: &str| {
        let path = sources.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let text = read(GLUE)?;
    let lines = code_lines(&text);
    report.note(format!("{SOURCES}/{GLUE} has {lines} lines of code"));
    report.check("lines", within(lines));
    report.check("traits", implementers(sources, &text)?);
    let manifest = read("Cargo.toml")?;
    let dependencies = manifest.lines().filter(|line| !line.starts_with('#'));
    let shared = dependencies
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .find(|name| OURS.contains(name));
    report.check(
        "shares nothing",
        match shared {
            None => Ok(()),
            Some(name) => Err(format!("{SOURCES}/Cargo.toml depends on {name}")),
        },
    );
    Ok(())
}

/// The lines that are neither empty nor comments.
fn code_lines(text: &str) -> usize {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

fn within(lines: usize) -> Result<(), String> {
    if (1..=GLUE_LINES).contains(&lines) {
        return Ok(());
    }
    Err(format!(
        "it has {lines} lines of code, and may have {GLUE_LINES}"
    ))
}

/// Whether the library's traits are implemented in the glue, and nowhere else.
fn implementers(sources: &Path, glue: &str) -> Result<Result<(), String>> {
    const TRAITS: [&str; 3] = ["impl Dma for", "impl MapMmio for", "impl Wait for"];
    if let Some(missing) = TRAITS.iter().find(|words| !glue.contains(**words)) {
        return Ok(Err(format!("the glue has no `{missing}`")));
    }
    let folder = sources.join(GLUE);
    let folder = folder.parent().unwrap_or(sources);
    for entry in std::fs::read_dir(folder).context("cannot list the kernel's sources")? {
        let path = entry.context("cannot list the kernel's sources")?.path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let found = TRAITS.iter().find(|words| text.contains(**words));
        if let (Some(words), false) = (found, sources.join(GLUE) == path) {
            return Ok(Err(format!("`{words}` is in {}", path.display())));
        }
    }
    Ok(Ok(()))
}

/// Boots the kernel, and compares.
fn boot(
    machine: Machine,
    kernel: &Path,
    qemu: &Path,
    folder: &Path,
    report: &mut Report,
) -> Result<()> {
    let files = Files::new(folder.to_owned())?;
    let (disk, capture) = (files.disk(0), folder.join("net.pcap"));
    let before = disk_image();
    std::fs::write(&disk, &before).with_context(|| format!("cannot write {}", disk.display()))?;
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    let devices = [
        format!("if=none,id=disk,format=raw,file={}", path(&disk)?),
        "virtio-blk-pci,drive=disk".to_owned(),
        "user,id=net,restrict=on".to_owned(),
        format!("virtio-net-pci,netdev=net,mac={mac}"),
        format!("filter-dump,id=dump,netdev=net,file={}", path(&capture)?),
    ];
    let options = ["-drive", "-device", "-netdev", "-device", "-object"];
    let pairs = options.into_iter().zip(devices);
    let options = Options {
        machine,
        // It is firmware that gives PCI its addresses: this kernel does not.
        firmware: Firmware::Seabios,
        accelerator: Accelerator::Tcg,
        memory: MEMORY,
        groups: vec![],
        doorbells: Doorbells::Direct,
        network: Network::Closed,
        mmio_version: 2,
        packed: false,
        extra: pairs
            .flat_map(|(option, device)| [option.to_owned(), device])
            .collect(),
    };
    let command = qemu::command_line(qemu, Some(kernel), &options, &files, "", false)?;
    let ended = launch(
        &Launch {
            command: &command,
            files: &files,
            firmware: None,
            silence: Some(PATIENCE),
            total: Some(PATIENCE),
            input: Input::Nothing,
            echo: Echo::Nobody,
        },
        &mut |_, _| None,
    )?;
    report.check("", content(&ended));
    let after = std::fs::read(&disk).with_context(|| format!("cannot read {}", disk.display()))?;
    report.check("disk", compare(&before, &after));
    let frames =
        std::fs::read(&capture).with_context(|| format!("cannot read {}", capture.display()))?;
    report.check("network", asked(&frames));
    Ok(())
}

/// A path inside QEMU's options.
fn path(path: &Path) -> Result<String> {
    let text = path.to_str();
    text.map(qemu::escape)
        .with_context(|| format!("the path {} is not UTF-8", path.display()))
}

fn content(ended: &Ended) -> Result<(), String> {
    if ended.cut.is_none() && ended.status == Some(CONTENT) {
        return Ok(());
    }
    let (cut, status, line) = (ended.cut, ended.status, &ended.last_line);
    let said = ended.qemu_said();
    Err(format!(
        "QEMU ended with {status:?} ({cut:?}), expected {CONTENT}; the kernel said last: {line}{said}"
    ))
}

/// Random bytes; the sector that is read ends with the sum of its others, which the
/// kernel checks.
fn disk_image() -> Vec<u8> {
    let mut bytes = vec![0; SECTORS * SECTOR_BYTES];
    fastrand::fill(&mut bytes);
    let sector = &mut bytes[FROM * SECTOR_BYTES..][..SECTOR_BYTES];
    let (summed, sum) = sector.split_at_mut(SECTOR_BYTES - 4);
    let total = summed.iter().fold(0u32, |sum, &byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    sum.copy_from_slice(&total.to_le_bytes());
    bytes
}

/// Whether the disk holds what it did, but for one sector, which is another backwards.
fn compare(before: &[u8], after: &[u8]) -> Result<(), String> {
    let mut expected = before.to_vec();
    let mut sector = before[FROM * SECTOR_BYTES..][..SECTOR_BYTES].to_vec();
    sector.reverse();
    expected[TO * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(&sector);
    if after.len() != expected.len() {
        let (now, then) = (after.len(), expected.len());
        return Err(format!("it has {now} bytes, and had {then}"));
    }
    let sectors = |bytes| <[u8]>::chunks(bytes, SECTOR_BYTES);
    match sectors(after)
        .zip(sectors(&expected))
        .position(|(a, b)| a != b)
    {
        None => Ok(()),
        Some(n) => Err(format!("sector {n} does not hold what it should")),
    }
}

/// Whether a capture (libpcap's file format) has our ARP request for the router's
/// address, and its reply to us behind it.
fn asked(capture: &[u8]) -> Result<(), String> {
    /// Bytes of the file's header, and of the one before each frame, with the frame's
    /// length as captured 8 bytes into it.
    const FILE: usize = 24;
    const FRAME: usize = 16;
    let mut rest = capture.get(FILE..).ok_or("the capture has no header")?;
    let mut waiting_for = arp(1, MAC);
    let mut answered = false;
    while let Some((head, tail)) = rest.split_at_checked(FRAME) {
        let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let (frame, next) = tail.split_at_checked(len).ok_or("the capture is cut off")?;
        if frame.get(12..28).is_some_and(|found| found == waiting_for) {
            if waiting_for == arp(2, ROUTER) {
                answered = frame.starts_with(&MAC);
                break;
            }
            waiting_for = arp(2, ROUTER);
        }
        rest = next;
    }
    if answered {
        Ok(())
    } else {
        Err("the capture lacks the kernel's ARP request, or the reply to it".to_owned())
    }
}

/// Ethernet's type and the first fields of ARP (RFC 826), to the sender's address.
fn arp(operation: u8, sender: [u8; 6]) -> [u8; 16] {
    let mut bytes = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation, 0, 0, 0, 0, 0, 0];
    bytes[10..].copy_from_slice(&sender);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_counted() {
        assert_eq!(
            code_lines("//! A\n\nuse a; // why\n  /// B\nfn b() {\n}\n"),
            3
        );
        assert_eq!(within(GLUE_LINES), Ok(()));
        assert!(within(GLUE_LINES + 1).is_err() && within(0).is_err());
    }

    #[test]
    fn the_disk_must_hold_what_was_asked_for_and_nothing_else() {
        let before = disk_image();
        let mut after = before.clone();
        let mut sector = before[FROM * SECTOR_BYTES..][..SECTOR_BYTES].to_vec();
        assert_eq!(
            compare(&before, &after).unwrap_err(),
            "sector 21 does not hold what it should"
        );
        sector.reverse();
        after[TO * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(&sector);
        assert_eq!(compare(&before, &after), Ok(()));
        after[0] ^= 1;
        assert!(
            compare(&before, &after)
                .unwrap_err()
                .starts_with("sector 0")
        );
        assert!(compare(&before, &after[1..]).is_err());
    }

    #[test]
    fn a_question_alone_is_no_conversation() {
        let frame = |to: [u8; 6], arp: [u8; 16]| {
            let mut frame = vec![0; 16];
            frame[8] = 42;
            frame.extend(to);
            frame.extend([0; 6]);
            frame.extend(arp);
            frame.resize(16 + 42, 0);
            frame
        };
        let (question, answer) = (frame([0xff; 6], arp(1, MAC)), frame(MAC, arp(2, ROUTER)));
        let capture = |frames: &[&[u8]]| [&[0; 24][..], &frames.concat()].concat();
        assert_eq!(asked(&capture(&[&question, &answer])), Ok(()));
        assert!(asked(&capture(&[&question])).is_err());
        assert!(asked(&capture(&[&answer, &question])).is_err());
        let elsewhere = frame([2; 6], arp(2, ROUTER));
        assert!(asked(&capture(&[&question, &elsewhere])).is_err());
        assert!(asked(&capture(&[&question, &answer[..30]])).is_err());
        assert!(asked(&[]).is_err());
    }

    #[test]
    fn the_glue_alone_knows_the_traits() {
        let mut report = Report::default();
        glue(&image::workspace().join(SOURCES), &mut report).unwrap();
        assert_eq!(report.total(), "3 passed, 0 failed, 0 skipped");
        let sources = image::workspace().join(SOURCES);
        assert!(implementers(&sources, "").unwrap().is_err());
    }
}
