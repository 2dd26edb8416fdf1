//! Why an image cannot go on: what [`BootError`] tells `main`.

use core::fmt;

use crate::start_info::{IDENTITY_LIMIT, MAGIC, MAX_COMMAND_LINE, MAX_REGIONS, MemoryRegion};

/// Why the machine cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// A structure lies where this image cannot read.
    Unreadable {
        /// Which structure.
        what: &'static str,
        /// Its physical address.
        address: u64,
    },
    /// The start info does not begin with `XEN_HVM_START_MAGIC_VALUE`.
    BadMagic(u32),
    /// Version 0 of the start info has no memory map.
    VersionWithoutMemoryMap,
    /// The memory map has no entries, or no address.
    NoMemoryMap {
        /// `memmap_paddr`.
        address: u64,
        /// `memmap_entries`.
        entries: u32,
    },
    /// More than [`MAX_REGIONS`] entries.
    TooManyRegions(u32),
    /// An entry's end does not fit in 64 bits.
    RegionOverflows {
        /// Its physical address.
        base: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// RAM beyond [`IDENTITY_LIMIT`].
    RamOutOfReach(MemoryRegion),
    /// RAM that another entry claims as well.
    RegionsOverlap(MemoryRegion, MemoryRegion),
    /// No NUL within [`MAX_COMMAND_LINE`] bytes.
    CommandLineTooLong {
        /// `cmdline_paddr`.
        address: u64,
    },
    /// The command line is not UTF-8.
    CommandLineNotUtf8 {
        /// Index of the first bad byte.
        offset: usize,
    },
    /// The memory map has no RAM where the image was loaded.
    ImageOutsideRam {
        /// First byte of the image.
        start: u64,
        /// One past its last byte.
        end: u64,
    },
    /// The RAM behind the image is too small for the page tables.
    NoRoomForPageTables {
        /// Where that RAM ends.
        end: u64,
    },
    /// Two mappings claim one page: a mistake in this package.
    MappedTwice {
        /// The page's address.
        address: u64,
    },
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { what, address } => {
                write!(f, "the {what} at {address:#x} cannot be read")
            }
            Self::BadMagic(magic) => {
                write!(
                    f,
                    "the PVH start info begins with {magic:#x} instead of {MAGIC:#x}"
                )
            }
            Self::VersionWithoutMemoryMap => {
                write!(
                    f,
                    "the PVH start info has version 0, which has no memory map"
                )
            }
            Self::NoMemoryMap { address, entries } => write!(
                f,
                "the PVH start info has no memory map ({entries} entries at {address:#x})"
            ),
            Self::TooManyRegions(entries) => {
                write!(
                    f,
                    "the memory map has {entries} entries, more than {MAX_REGIONS}"
                )
            }
            Self::RegionOverflows { base, size } => {
                write!(
                    f,
                    "the memory map entry at {base:#x} with size {size:#x} overflows"
                )
            }
            Self::RamOutOfReach(region) => {
                write!(f, "the memory {region} ends beyond {IDENTITY_LIMIT:#x}")
            }
            Self::RegionsOverlap(a, b) => write!(f, "the memory {a} overlaps {b}"),
            Self::CommandLineTooLong { address } => write!(
                f,
                "the command line at {address:#x} is longer than {MAX_COMMAND_LINE} bytes"
            ),
            Self::CommandLineNotUtf8 { offset } => {
                write!(f, "the command line is not UTF-8 from byte {offset} on")
            }
            Self::ImageOutsideRam { start, end } => {
                write!(
                    f,
                    "the memory map has no RAM for the image at {start:#x}..{end:#x}"
                )
            }
            Self::NoRoomForPageTables { end } => write!(
                f,
                "the RAM behind the image, which ends at {end:#x}, is too small for page tables"
            ),
            Self::MappedTwice { address } => {
                write!(f, "the page at {address:#x} would be mapped twice")
            }
        }
    }
}

impl core::error::Error for BootError {}
