//! The PVH start info: what the virtual machine monitor says about the machine.
//!
//! Layout: Xen's `public/arch-x86/hvm/start_info.h`. Nothing in it is trusted:
//! [`parse`] checks every field once and copies what it keeps, so that the
//! memory it was read from may be reused.

use core::fmt;
use core::ops::Range;

use crate::error::BootError;

/// `XEN_HVM_START_MAGIC_VALUE`.
pub(crate) const MAGIC: u32 = 0x336e_c578;
/// Bytes in a version 1 `hvm_start_info`. Version 0 ends before the memory map.
const START_INFO_SIZE: usize = 56;
/// Bytes in a `hvm_memmap_table_entry`.
const MEMMAP_ENTRY_SIZE: usize = 24;
/// Most memory map entries kept. E820 maps have about ten, and never over 128.
pub const MAX_REGIONS: usize = 128;
/// Longest command line kept, in bytes without the final NUL. Linux takes 2048.
pub const MAX_COMMAND_LINE: usize = 4095;
/// Identity mapping reaches the lower half of a 48-bit address space.
pub const IDENTITY_LIMIT: u64 = 1 << 47;

/// Field offsets in `hvm_start_info`, in bytes.
mod field {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 4;
    pub(super) const CMDLINE_PADDR: usize = 24;
    pub(super) const RSDP_PADDR: usize = 32;
    pub(super) const MEMMAP_PADDR: usize = 40;
    pub(super) const MEMMAP_ENTRIES: usize = 48;
}

/// Field offsets in `hvm_memmap_table_entry`, in bytes.
mod memmap_field {
    pub(super) const ADDR: usize = 0;
    pub(super) const SIZE: usize = 8;
    pub(super) const TYPE: usize = 16;
}

/// Physical memory as the parser sees it: the machine's, or a test's.
pub trait PhysicalMemory {
    /// Fills `buffer` from physical `address`; `false` if that cannot be read.
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool;
}

/// What a range of physical addresses is for (`XEN_HVM_MEMMAP_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Usable memory.
    Ram,
    /// Firmware, devices, or nothing.
    Reserved,
    /// ACPI tables; usable once they have been read.
    AcpiReclaimable,
    /// Memory that ACPI firmware keeps.
    AcpiNvs,
    /// Broken memory.
    Unusable,
    /// Memory that is switched off.
    Disabled,
    /// Persistent memory.
    Persistent,
    /// A type that start_info.h does not define.
    Other(u32),
}

impl From<u32> for RegionKind {
    fn from(value: u32) -> Self {
        match value {
            1 => Self::Ram,
            2 => Self::Reserved,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            6 => Self::Disabled,
            7 => Self::Persistent,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Ram => "RAM",
            Self::Reserved => "reserved",
            Self::AcpiReclaimable => "ACPI tables",
            Self::AcpiNvs => "ACPI NVS",
            Self::Unusable => "unusable",
            Self::Disabled => "disabled",
            Self::Persistent => "persistent",
            Self::Other(kind) => return write!(f, "type {kind}"),
        };
        f.pad(name)
    }
}

/// One entry of the memory map: `base..base + size`, in bytes.
///
/// In a parsed map `size` is not 0 and `base + size` does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// First physical address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
    /// What it is for.
    pub kind: RegionKind,
}

impl MemoryRegion {
    /// The physical addresses of the region.
    pub fn range(&self) -> Range<u64> {
        self.base..self.base + self.size
    }
}

impl fmt::Display for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:#x}..{:#x} ({})",
            self.base,
            self.base + self.size,
            self.kind
        )
    }
}

/// What the image was told about its machine, checked.
#[derive(Debug)]
pub struct BootInfo {
    command_line: [u8; MAX_COMMAND_LINE],
    command_line_length: usize,
    regions: [MemoryRegion; MAX_REGIONS],
    region_count: usize,
    rsdp: Option<u64>,
    pub(crate) image: Range<u64>,
}

impl BootInfo {
    /// The kernel command line; empty if there is none.
    pub fn command_line(&self) -> &str {
        // `parse` accepted these bytes as UTF-8 already.
        str::from_utf8(&self.command_line[..self.command_line_length]).unwrap_or_default()
    }

    /// The memory map, in the order of addresses. RAM overlaps nothing else.
    pub fn memory_map(&self) -> impl Iterator<Item = MemoryRegion> + Clone + '_ {
        self.regions[..self.region_count].iter().copied()
    }

    /// All RAM, in bytes.
    pub fn ram_size(&self) -> u64 {
        self.memory_map()
            .filter(|r| r.kind == RegionKind::Ram)
            .map(|r| r.size)
            .sum()
    }

    /// Physical address of the ACPI root pointer, if the start info has one.
    pub fn rsdp(&self) -> Option<u64> {
        self.rsdp
    }

    /// The physical bytes that the image takes: code, data, stack, page tables.
    pub fn image(&self) -> Range<u64> {
        self.image.clone()
    }
}

/// Reads and checks the start info at physical `address`.
///
/// A version over 1 is read as version 1, which it extends. Entries of size 0
/// say nothing and are left out.
///
/// # Errors
/// A [`BootError`] that names the first value that cannot be used.
pub fn parse(memory: &impl PhysicalMemory, address: u64) -> Result<BootInfo, BootError> {
    let mut start_info = [0; START_INFO_SIZE];
    read(memory, "PVH start info", address, &mut start_info)?;
    let magic = u32_at(&start_info, field::MAGIC);
    if magic != MAGIC {
        return Err(BootError::BadMagic(magic));
    }
    if u32_at(&start_info, field::VERSION) == 0 {
        return Err(BootError::VersionWithoutMemoryMap);
    }

    let empty = MemoryRegion {
        base: 0,
        size: 0,
        kind: RegionKind::Reserved,
    };
    let mut info = BootInfo {
        command_line: [0; MAX_COMMAND_LINE],
        command_line_length: 0,
        regions: [empty; MAX_REGIONS],
        region_count: 0,
        rsdp: Some(u64_at(&start_info, field::RSDP_PADDR)).filter(|&rsdp| rsdp != 0),
        image: 0..0,
    };
    info.region_count = read_memory_map(
        memory,
        u64_at(&start_info, field::MEMMAP_PADDR),
        u32_at(&start_info, field::MEMMAP_ENTRIES),
        &mut info.regions,
    )?;
    let command_line = u64_at(&start_info, field::CMDLINE_PADDR);
    if command_line != 0 {
        info.command_line_length = read_command_line(memory, command_line, &mut info.command_line)?;
    }
    Ok(info)
}

/// Fills `regions` in the order of addresses and returns how many there are.
fn read_memory_map(
    memory: &impl PhysicalMemory,
    address: u64,
    entries: u32,
    regions: &mut [MemoryRegion; MAX_REGIONS],
) -> Result<usize, BootError> {
    if address == 0 || entries == 0 {
        return Err(BootError::NoMemoryMap { address, entries });
    }
    if entries as usize > MAX_REGIONS {
        return Err(BootError::TooManyRegions(entries));
    }
    let mut count = 0;
    for index in 0..u64::from(entries) {
        let mut entry = [0; MEMMAP_ENTRY_SIZE];
        let entry_address = address.saturating_add(index * MEMMAP_ENTRY_SIZE as u64);
        read(memory, "memory map", entry_address, &mut entry)?;
        let region = MemoryRegion {
            base: u64_at(&entry, memmap_field::ADDR),
            size: u64_at(&entry, memmap_field::SIZE),
            kind: u32_at(&entry, memmap_field::TYPE).into(),
        };
        let MemoryRegion { base, size, kind } = region;
        let Some(end) = base.checked_add(size) else {
            return Err(BootError::RegionOverflows { base, size });
        };
        if kind == RegionKind::Ram && end > IDENTITY_LIMIT {
            return Err(BootError::RamOutOfReach(region));
        }
        if size != 0 {
            regions[count] = region;
            count += 1;
        }
    }
    let regions = &mut regions[..count];
    regions.sort_unstable_by_key(|region| region.base);
    for (index, a) in regions.iter().enumerate() {
        // Sorted, so that only regions which begin inside `a` can overlap it.
        for b in regions[index + 1..]
            .iter()
            .take_while(|b| b.base < a.base + a.size)
        {
            if a.kind == RegionKind::Ram || b.kind == RegionKind::Ram {
                return Err(BootError::RegionsOverlap(*a, *b));
            }
        }
    }
    Ok(count)
}

/// Copies the NUL-terminated text at `address` and returns its length.
fn read_command_line(
    memory: &impl PhysicalMemory,
    address: u64,
    text: &mut [u8; MAX_COMMAND_LINE],
) -> Result<usize, BootError> {
    // Byte by byte: what lies behind the NUL may be unreadable.
    for length in 0..=MAX_COMMAND_LINE {
        let mut byte = [0];
        read(
            memory,
            "command line",
            address.saturating_add(length as u64),
            &mut byte,
        )?;
        if byte[0] == 0 {
            return match str::from_utf8(&text[..length]) {
                Ok(_) => Ok(length),
                Err(error) => Err(BootError::CommandLineNotUtf8 {
                    offset: error.valid_up_to(),
                }),
            };
        }
        match text.get_mut(length) {
            Some(slot) => *slot = byte[0],
            None => break,
        }
    }
    Err(BootError::CommandLineTooLong { address })
}

fn read(
    memory: &impl PhysicalMemory,
    what: &'static str,
    address: u64,
    buffer: &mut [u8],
) -> Result<(), BootError> {
    if memory.read(address, buffer) {
        Ok(())
    } else {
        Err(BootError::Unreadable { what, address })
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(core::array::from_fn(|i| bytes[offset + i]))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|i| bytes[offset + i]))
}

#[cfg(test)]
#[path = "start_info_tests.rs"]
pub(crate) mod tests;
