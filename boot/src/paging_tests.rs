//! The tables are built in the test's memory and read back by another walker.

use super::*;
use crate::start_info::tests::info_with_map;
use std::vec;
use std::vec::Vec;
use x86_64::structures::paging::Translate;
use x86_64::structures::paging::mapper::TranslateResult;

const RAM: u32 = 1;
const RESERVED: u32 = 2;

fn layout() -> Layout {
    Layout {
        text: 0x10_0000..0x10_4000,
        rodata: 0x10_4000..0x10_6000,
        data: 0x10_6000..0x10_9000,
        guard: 0x10_9000..0x10_a000,
        stack: 0x10_a000..0x11_0000,
    }
}

/// Stands for the physical memory behind the image, where the tables go.
struct Arena {
    words: Vec<[u64; 512]>,
}

impl Arena {
    const FIRST: u64 = 0x11_0000;

    fn new(pages: usize) -> Self {
        // Dirty, as memory is.
        Self {
            words: vec![[u64::MAX; 512]; pages + 1],
        }
    }

    /// What to add to a physical address to get the arena's.
    fn offset(&mut self) -> u64 {
        let start = self.words.as_mut_ptr().expose_provenance() as u64;
        start.next_multiple_of(4096) - Self::FIRST
    }
}

struct Built {
    arena: Arena,
    root: u64,
    image: Range<u64>,
}

fn build_map(map: &[(u64, u64, u32)], nx: bool) -> Result<Built, BootError> {
    let mut info = info_with_map(map);
    let mut arena = Arena::new(64);
    // SAFETY: the arena stands for the RAM behind the image; no test needs
    // more tables than it has room for.
    let root = unsafe { build(&mut info, &layout(), arena.offset(), nx)? };
    Ok(Built {
        arena,
        root,
        image: info.image(),
    })
}

impl Built {
    /// Page size and flags at a virtual address, which must be mapped to itself.
    fn at(&mut self, address: u64) -> Option<(u64, PageTableFlags)> {
        let offset = self.arena.offset();
        // SAFETY: `build` made these tables in the arena.
        let tables = unsafe {
            OffsetPageTable::new(
                &mut *((self.root + offset) as *mut PageTable),
                VirtAddr::new(offset),
            )
        };
        match tables.translate(VirtAddr::new(address)) {
            TranslateResult::Mapped {
                frame,
                offset,
                flags,
            } => {
                assert_eq!(frame.start_address().as_u64() + offset, address);
                Some((frame.size(), flags))
            }
            _ => None,
        }
    }

    fn rights(&mut self, address: u64) -> &'static str {
        let Some((_, flags)) = self.at(address) else {
            return "-";
        };
        let writable = flags.contains(PageTableFlags::WRITABLE);
        match (writable, flags.contains(PageTableFlags::NO_EXECUTE)) {
            (false, false) => "rx",
            (false, true) => "r",
            (true, true) => "rw",
            (true, false) => "rwx",
        }
    }
}

const SMALL: [(u64, u64, u32); 3] = [
    (0, 0x9_fc00, RAM),
    (0xf_0000, 0x1_0000, RESERVED),
    (0x10_0000, 0xf0_0000, RAM),
];

#[test]
fn each_part_has_its_rights_and_no_more() {
    let mut built = build_map(&SMALL, true).unwrap();
    for (address, rights) in [
        (0, "-"),
        (0xfff, "-"),
        (0x1000, "rw"),
        (0x9_efff, "rw"),
        (0x9_f000, "-"), // the region ends within this page
        (0xf_0000, "-"),
        (0x10_0000, "rx"),
        (0x10_3fff, "rx"),
        (0x10_4000, "r"),
        (0x10_6000, "rw"),
        (0x10_9000, "-"), // the guard page
        (0x10_9fff, "-"),
        (0x10_a000, "rw"),
        (0x11_0000, "rw"),
        (0xff_ffff, "rw"),
        (0x100_0000, "-"),
        (0xfee0_0000, "-"),
    ] {
        assert_eq!(built.rights(address), rights, "at {address:#x}");
    }
}

#[test]
fn large_pages_are_used_and_memory_above_4_gib_is_mapped() {
    let map = [(0x10_0000, 0x7ff0_0000, RAM), (1 << 32, 0x8030_0000, RAM)];
    let mut built = build_map(&map, true).unwrap();
    assert_eq!(built.at(0x10_0000).unwrap().0, Size4KiB::SIZE);
    assert_eq!(built.at(0x20_0000).unwrap().0, Size2MiB::SIZE);
    assert_eq!(built.at(0x7fff_ffff).unwrap().0, Size2MiB::SIZE);
    assert_eq!(built.at(0x8000_0000), None);
    assert_eq!(built.at(0x1_8000_0000).unwrap().0, Size2MiB::SIZE);
    assert_eq!(built.at(0x1_8020_0000).unwrap().0, Size4KiB::SIZE);
    assert_eq!(built.at(0x1_8030_0000), None);
}

#[test]
fn the_image_ends_behind_its_tables() {
    let built = build_map(&SMALL, true).unwrap();
    assert_eq!(built.image.start, 0x10_0000);
    assert_eq!(built.root, 0x11_0000);
    // Root, and one table each of the three levels below.
    assert_eq!(built.image.end, 0x11_0000 + 4 * 0x1000);
}

#[test]
fn without_the_no_execute_bit_it_is_not_set() {
    let mut built = build_map(&SMALL, false).unwrap();
    assert_eq!(built.rights(0x10_6000), "rwx");
    assert_eq!(built.rights(0x10_4000), "rx");
}

#[test]
fn an_image_outside_ram_is_an_error() {
    let outside = BootError::ImageOutsideRam {
        start: 0x10_0000,
        end: 0x11_0000,
    };
    assert_eq!(build_map(&[(0, 0x9_fc00, RAM)], true).err(), Some(outside));
    assert_eq!(
        build_map(&[(0x10_0000, 0xffff, RAM)], true).err(),
        Some(outside)
    );
    assert_eq!(
        build_map(&[(0x10_0000, 0x20_0000, RESERVED)], true).err(),
        Some(outside)
    );
}

#[test]
fn too_little_ram_behind_the_image_is_an_error() {
    for pages in 0..4 {
        let end = 0x11_0000 + pages * 0x1000;
        let error = build_map(&[(0x10_0000, end - 0x10_0000, RAM)], true).err();
        assert_eq!(
            error,
            Some(BootError::NoRoomForPageTables { end }),
            "{pages} pages"
        );
    }
    assert!(build_map(&[(0x10_0000, 0x1_4000, RAM)], true).is_ok());
}
