//! What the host sees of that kernel's work: its disk, a capture of its network, and
//! QEMU's trace of the IOMMU.

use std::collections::BTreeSet;

use crate::disk::SECTOR_BYTES;

/// Sectors of the disk, that which the kernel reads, and where it writes the same bytes
/// backwards (tests/embed/src/kernel/disk.rs).
const SECTORS: usize = 64;
const FROM: usize = 7;
const TO: usize = 21;

/// QEMU's trace event of a translation, and where devices see physical address 0
/// (tests/embed/src/kernel/iommu.rs).
pub(super) const TRANSLATION: &str = "vtd_dmar_translate";
const IOMMU_OFFSET: u64 = 1 << 38;

/// The kernel's address in the network, and the router's in QEMU's.
pub(super) const MAC: [u8; 6] = [0x52, 0x54, 0, 0x65, 0x6d, 0x62];
const ROUTER: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

/// Random bytes; the sector that is read ends with the sum of its others, which the
/// kernel checks.
pub(super) fn disk_image() -> Vec<u8> {
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
pub(super) fn compare(before: &[u8], after: &[u8]) -> Result<(), String> {
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
pub(super) fn asked(capture: &[u8]) -> Result<(), String> {
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

/// Whether two devices had their accesses translated, all of them to the RAM that is
/// seen at the offset.
pub(super) fn translated(trace: &str) -> Result<(), String> {
    let mut devices = BTreeSet::new();
    for line in trace.lines().filter(|line| line.contains(TRANSLATION)) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |name| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1).copied()
        };
        let number = |name| {
            let digits = after(name)?.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        };
        let (Some(device), Some(from), Some(to)) = (after("dev"), number("iova"), number("gpa"))
        else {
            return Err(format!("QEMU's trace has the line {line:?}"));
        };
        if from.checked_sub(IOMMU_OFFSET) != Some(to) {
            return Err(format!("{device} got {to:#x} for {from:#x}"));
        }
        devices.insert(device);
    }
    match devices.len() {
        2 => Ok(()),
        n => Err(format!("the IOMMU translated for {n} devices, expected 2")),
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
    fn both_devices_must_go_through_the_iommu() {
        let line = |device: &str, from: u64, to: u64| {
            format!("{TRANSLATION} dev {device} iova {from:#x} -> gpa {to:#x} mask 0x1fffff\n")
        };
        let disk = line("00:01.00", IOMMU_OFFSET + 0x20_0000, 0x20_0000);
        let network = line("00:02.00", IOMMU_OFFSET, 0);
        assert_eq!(translated(&format!("{disk}other\n{network}")), Ok(()));
        assert!(translated(&disk).is_err());
        assert!(translated(&(disk + &line("00:02.00", 0x1000, 0x1000))).is_err());
        assert!(translated(&format!("{TRANSLATION} and nothing more")).is_err());
    }
}
