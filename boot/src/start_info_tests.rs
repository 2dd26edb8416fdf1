//! Start infos as they should be, and as they should not.

use super::*;
use std::format;
use std::vec;
use std::vec::Vec;

const START_INFO: u64 = 0x6000;
const MEMMAP: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x2_0000;

/// Physical memory made of pieces; what lies between them is unreadable.
struct Pieces(Vec<(u64, Vec<u8>)>);

impl PhysicalMemory for Pieces {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        let bytes = self.0.iter().find_map(|(base, bytes)| {
            let start = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes.get(start..start.checked_add(buffer.len())?)
        });
        if let Some(bytes) = bytes {
            buffer.copy_from_slice(bytes);
        }
        bytes.is_some()
    }
}

fn memmap(entries: &[(u64, u64, u32)]) -> Vec<u8> {
    let encode = |&(addr, size, kind): &(u64, u64, u32)| {
        [
            &addr.to_le_bytes()[..],
            &size.to_le_bytes(),
            &kind.to_le_bytes(),
            &[0; 4],
        ]
        .concat()
    };
    entries.iter().flat_map(encode).collect()
}

/// The start info that QEMU makes for 16 MiB, with one field overwritten.
fn start_info(offset: usize, value: &[u8], entries: u32) -> Vec<u8> {
    let mut bytes = vec![0; START_INFO_SIZE];
    let mut put = |offset: usize, value: &[u8]| {
        bytes[offset..offset + value.len()].copy_from_slice(value);
    };
    put(field::MAGIC, &MAGIC.to_le_bytes());
    put(field::VERSION, &1u32.to_le_bytes());
    put(field::CMDLINE_PADDR, &COMMAND_LINE.to_le_bytes());
    put(field::RSDP_PADDR, &0xf_59e0_u64.to_le_bytes());
    put(field::MEMMAP_PADDR, &MEMMAP.to_le_bytes());
    put(field::MEMMAP_ENTRIES, &entries.to_le_bytes());
    put(offset, value);
    bytes
}

const GOOD_MAP: [(u64, u64, u32); 3] = [
    (0, 0x9_fc00, 1),
    (0xf_0000, 0x1_0000, 2),
    (0x10_0000, 0xf0_0000, 1),
];

fn parse_with(start_info: Vec<u8>, map: Vec<u8>, text: &[u8]) -> Result<BootInfo, BootError> {
    let pieces = Pieces(vec![
        (START_INFO, start_info),
        (MEMMAP, map),
        (COMMAND_LINE, text.to_vec()),
    ]);
    parse(&pieces, START_INFO)
}

fn parse_field(offset: usize, value: &[u8]) -> Result<BootInfo, BootError> {
    parse_with(
        start_info(offset, value, 3),
        memmap(&GOOD_MAP),
        b"lspci; bench\0",
    )
}

fn parse_map(entries: &[(u64, u64, u32)]) -> Result<BootInfo, BootError> {
    let count = entries.len() as u32;
    parse_with(start_info(0, &[], count), memmap(entries), b"\0")
}

#[test]
fn a_good_start_info_is_copied() {
    let info = parse_field(0, &[]).unwrap();
    assert_eq!(info.command_line(), "lspci; bench");
    assert_eq!(info.rsdp(), Some(0xf_59e0));
    assert_eq!(info.ram_size(), 0x9_fc00 + 0xf0_0000);
    let map: Vec<_> = info
        .memory_map()
        .map(|region| (region.base, region.kind))
        .collect();
    assert_eq!(
        map,
        [
            (0, RegionKind::Ram),
            (0xf_0000, RegionKind::Reserved),
            (0x10_0000, RegionKind::Ram)
        ]
    );
}

#[test]
fn null_pointers_mean_none() {
    assert_eq!(
        parse_field(field::CMDLINE_PADDR, &[0; 8])
            .unwrap()
            .command_line(),
        ""
    );
    assert_eq!(
        parse_field(field::RSDP_PADDR, &[0; 8]).unwrap().rsdp(),
        None
    );
}

#[test]
fn magic_and_version_are_checked() {
    let error = parse_field(field::MAGIC, &[1, 2, 3, 4]).unwrap_err();
    assert_eq!(error, BootError::BadMagic(0x0403_0201));
    assert!(format!("{error}").contains("0x4030201"));
    let error = parse_field(field::VERSION, &[0]).unwrap_err();
    assert_eq!(error, BootError::VersionWithoutMemoryMap);
    assert!(parse_field(field::VERSION, &[2]).is_ok());
}

#[test]
fn pointers_that_lead_nowhere_are_named() {
    let nowhere = 0xffff_ffff_ffff_fff0_u64;
    let unreadable = |what, address| BootError::Unreadable { what, address };
    let error = parse(&Pieces(vec![]), START_INFO).unwrap_err();
    assert_eq!(error, unreadable("PVH start info", START_INFO));
    let error = parse_field(field::MEMMAP_PADDR, &nowhere.to_le_bytes()).unwrap_err();
    assert_eq!(error, unreadable("memory map", nowhere));
    let error = parse_field(field::CMDLINE_PADDR, &nowhere.to_le_bytes()).unwrap_err();
    assert_eq!(error, unreadable("command line", nowhere));
}

#[test]
fn a_map_needs_a_plausible_number_of_entries() {
    let error = parse_field(field::MEMMAP_PADDR, &[0; 8]).unwrap_err();
    assert_eq!(
        error,
        BootError::NoMemoryMap {
            address: 0,
            entries: 3
        }
    );
    let error = parse_field(field::MEMMAP_ENTRIES, &[0; 4]).unwrap_err();
    assert_eq!(
        error,
        BootError::NoMemoryMap {
            address: MEMMAP,
            entries: 0
        }
    );
    let error = parse_field(field::MEMMAP_ENTRIES, &u32::MAX.to_le_bytes()).unwrap_err();
    assert_eq!(error, BootError::TooManyRegions(u32::MAX));
    // More entries than there is memory.
    let error = parse_field(field::MEMMAP_ENTRIES, &4u32.to_le_bytes()).unwrap_err();
    assert!(matches!(
        error,
        BootError::Unreadable {
            what: "memory map",
            ..
        }
    ));
}

#[test]
fn regions_are_sorted_and_empty_ones_left_out() {
    let info = parse_map(&[(0x10_0000, 0x1000, 1), (0x5000, 0, 1), (0, 0x1000, 9)]).unwrap();
    let map: Vec<_> = info.memory_map().collect();
    assert_eq!(map.len(), 2);
    assert_eq!(map[0].kind, RegionKind::Other(9));
    assert_eq!(map[1].range(), 0x10_0000..0x10_1000);
}

#[test]
fn regions_that_cannot_be_are_errors() {
    let error = parse_map(&[(u64::MAX - 1, 4, 2)]).unwrap_err();
    assert_eq!(
        error,
        BootError::RegionOverflows {
            base: u64::MAX - 1,
            size: 4
        }
    );
    let error = parse_map(&[(IDENTITY_LIMIT - 0x1000, 0x2000, 1)]).unwrap_err();
    assert!(matches!(error, BootError::RamOutOfReach(region) if region.size == 0x2000));
    // Nobody uses reserved addresses, so they may lie anywhere.
    assert!(parse_map(&[(u64::MAX - 4, 4, 2)]).is_ok());
}

#[test]
fn overlapping_ram_is_an_error() {
    let overlap = |a, b| matches!(parse_map(&[a, b]), Err(BootError::RegionsOverlap(..)));
    assert!(overlap((0, 0x2000, 1), (0x1000, 0x1000, 2)));
    assert!(overlap((0x1000, 0x1000, 1), (0, 0x1001, 2)));
    assert!(overlap((0x1000, 0x1000, 1), (0x1000, 0x1000, 1)));
    assert!(!overlap((0, 0x1000, 1), (0x1000, 0x1000, 1)));
    assert!(!overlap((0, 0x2000, 2), (0x1000, 0x1000, 3)));
    // A small region between the two that overlap.
    let three = parse_map(&[(0, 0x9000, 2), (0x1000, 0x1000, 2), (0x8000, 0x1000, 1)]);
    assert!(matches!(three, Err(BootError::RegionsOverlap(..))));
}

#[test]
fn the_command_line_is_bounded_and_utf8() {
    let parse_text = |text: &[u8]| parse_with(start_info(0, &[], 3), memmap(&GOOD_MAP), text);
    let longest = [vec![b'x'; MAX_COMMAND_LINE], vec![0]].concat();
    assert_eq!(
        parse_text(&longest).unwrap().command_line().len(),
        MAX_COMMAND_LINE
    );
    let error = parse_text(&[b'x'; MAX_COMMAND_LINE + 1]).unwrap_err();
    assert_eq!(
        error,
        BootError::CommandLineTooLong {
            address: COMMAND_LINE
        }
    );
    let error = parse_text(b"ab\xffc\0").unwrap_err();
    assert_eq!(error, BootError::CommandLineNotUtf8 { offset: 2 });
    // What follows the NUL may be unreadable, what precedes it may not.
    assert_eq!(parse_text(b"\0").unwrap().command_line(), "");
    assert!(matches!(
        parse_text(b"ab"),
        Err(BootError::Unreadable { .. })
    ));
}

/// A boot info with this memory map, for the tests of other modules.
pub(crate) fn info_with_map(entries: &[(u64, u64, u32)]) -> BootInfo {
    parse_map(entries).expect("the map is good")
}
