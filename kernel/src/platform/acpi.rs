//! What firmware's ACPI tables say about the machine.
//!
//! The tables' layouts come from crate `acpi`. Its own walk through them is not
//! used: it maps whatever address and length a table names, and cannot report
//! failure. Here each is checked before it is followed (section numbers: ACPI
//! 6.5), and a bad table costs its own contents only.

use alloc::vec::Vec;
use core::fmt;
use core::mem::size_of;

use acpi::mcfg::McfgEntry;
use acpi::rsdp::Rsdp;
use acpi::sdt::SdtHeader;

use super::fadt;
pub use super::fadt::{IoBlock, PmTimer};
pub use super::madt::{IoApic, IsaOverride};
use super::mapping::MapError;
use super::memory::map_firmware;

/// Bytes in a version 1 root pointer, and in the later ones (5.2.5.3).
const RSDP_LENGTHS: [usize; 2] = [20, 36];
/// Bytes in the header that all tables share (5.2.6).
pub(super) const HEADER: usize = size_of::<SdtHeader>();
/// Longest table accepted. A DSDT has some ten KiB; this is the sign of a bad
/// length, not of a big machine.
const MAX_TABLE: usize = 1 << 20;
/// Most tables followed.
const MAX_TABLES: usize = 256;
/// Bytes before the entries of an MCFG.
const MCFG_FIXED: usize = HEADER + 8;
/// Where a BIOS may leave the root pointer without announcing it (5.2.5.1):
/// its read-only memory, or the extended BIOS data area. The pointer to the
/// latter lies in page 0, which stays unmapped; this is its usual place.
const BIOS_AREAS: [(u64, usize); 2] = [(0xe_0000, 0x2_0000), (0x9_fc00, 0x400)];

/// Memory that holds firmware's tables: the machine's, or a test's.
pub trait FirmwareMemory {
    /// The `length` bytes at physical `address`.
    ///
    /// # Errors
    /// When they are not memory that this implementation can read.
    fn bytes(&self, address: u64, length: usize) -> Result<&[u8], MapError>;
}

/// The machine's own memory, mapped as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct MappedMemory;

impl FirmwareMemory for MappedMemory {
    fn bytes(&self, address: u64, length: usize) -> Result<&[u8], MapError> {
        map_firmware(address, length)
    }
}

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// No root pointer was announced, and none is where a BIOS leaves it.
    NoRootPointer,
    /// The root pointer's signature, length or checksum is wrong.
    BadRootPointer {
        /// Its physical address.
        address: u64,
    },
    /// A table lies where it cannot be read.
    Unreadable(MapError),
    /// A table's length cannot be right.
    BadLength {
        /// The table's physical address.
        address: u64,
        /// Its signature.
        signature: [u8; 4],
        /// Its length in bytes, as it says.
        length: u32,
    },
    /// A table's checksum, signature or names are wrong.
    BadTable {
        /// The table's physical address.
        address: u64,
        /// Its signature.
        signature: [u8; 4],
    },
    /// A table has an entry that is shorter than its type requires, or longer
    /// than the table.
    BadEntry {
        /// The table's signature.
        signature: [u8; 4],
        /// Where the entry begins, in bytes from the table's start.
        offset: usize,
    },
    /// More tables than anyone has.
    TooManyTables(usize),
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRootPointer => f.write_str("the machine has no ACPI root pointer"),
            Self::BadRootPointer { address } => {
                write!(f, "the ACPI root pointer at {address:#x} is damaged")
            }
            Self::Unreadable(error) => write!(f, "an ACPI table cannot be read: {error}"),
            Self::BadLength {
                address,
                signature,
                length,
            } => {
                let signature = signature.escape_ascii();
                write!(
                    f,
                    "the ACPI table {signature} at {address:#x} has a length of {length}"
                )
            }
            Self::BadTable { address, signature } => {
                let signature = signature.escape_ascii();
                write!(f, "the ACPI table {signature} at {address:#x} is damaged")
            }
            Self::BadEntry { signature, offset } => {
                let signature = signature.escape_ascii();
                write!(
                    f,
                    "the ACPI table {signature} has a bad entry at offset {offset}"
                )
            }
            Self::TooManyTables(count) => write!(f, "ACPI lists {count} tables"),
        }
    }
}

impl core::error::Error for AcpiError {}

impl From<MapError> for AcpiError {
    fn from(error: MapError) -> Self {
        Self::Unreadable(error)
    }
}

/// A window of PCI Express configuration space (PCI Firmware 3.3, 4.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcamRegion {
    /// Physical address of bus 0's configuration space, even if `bus_start`
    /// is higher.
    pub base: u64,
    /// PCI segment group.
    pub segment: u16,
    /// First bus decoded.
    pub bus_start: u8,
    /// Last bus decoded.
    pub bus_end: u8,
}

/// What the tables say.
#[derive(Debug, Default)]
pub struct Acpi<'m> {
    /// The signatures of all good tables, in the order found.
    pub tables: Vec<[u8; 4]>,
    /// MCFG: where PCI Express configuration space is.
    pub ecam: Vec<EcamRegion>,
    /// APIC table: physical address of the local APIC's registers.
    pub local_apic: Option<u64>,
    /// APIC table: the IO-APICs.
    pub io_apics: Vec<IoApic>,
    /// APIC table: ISA interrupts that are not what they are by default.
    pub isa_overrides: Vec<IsaOverride>,
    /// FADT: the port ranges that belong to ACPI hardware.
    pub io_blocks: Vec<IoBlock>,
    /// FADT: the power management timer.
    pub pm_timer: Option<PmTimer>,
    /// The byte code of the DSDT, then of each SSDT, without their headers.
    pub aml: Vec<&'m [u8]>,
    /// What was wrong with the tables that are missing above.
    pub problems: Vec<AcpiError>,
}

/// Reads the tables, from the announced root pointer or the one that a BIOS
/// left.
///
/// # Errors
/// When the root pointer or the root table cannot be used. A fault in another
/// table is put in [`Acpi::problems`].
pub fn discover<M: FirmwareMemory>(memory: &M, rsdp: Option<u64>) -> Result<Acpi<'_>, AcpiError> {
    let (root, entry_size) = match rsdp {
        Some(address) => read_rsdp(memory, address)?,
        None => search_rsdp(memory)?,
    };
    let root = read_table(memory, root)?;
    let entries = root[HEADER..].chunks_exact(entry_size);
    if entries.len() > MAX_TABLES {
        return Err(AcpiError::TooManyTables(entries.len()));
    }
    let mut found = Acpi::default();
    for entry in entries {
        let mut address = [0; 8];
        address[..entry_size].copy_from_slice(entry);
        let result = read_table(memory, u64::from_le_bytes(address))
            .and_then(|table| found.add(memory, table));
        if let Err(error) = result {
            found.problems.push(error);
        }
    }
    Ok(found)
}

/// The root table's address, and the size of its entries in bytes.
fn read_rsdp(memory: &impl FirmwareMemory, address: u64) -> Result<(u64, usize), AcpiError> {
    let bad = AcpiError::BadRootPointer { address };
    let [short, long] = RSDP_LENGTHS;
    let mut bytes = [0; size_of::<Rsdp>()];
    bytes[..short].copy_from_slice(memory.bytes(address, short)?);
    // Revision at offset 15. Only revisions above 0 have the second part.
    if bytes[15] != 0 {
        bytes.copy_from_slice(memory.bytes(address, long)?);
    }
    // SAFETY: packed integers and byte arrays, for which all bits are valid.
    let rsdp: Rsdp = unsafe { bytes.as_ptr().cast::<Rsdp>().read_unaligned() };
    // `validate` sums as many bytes as the structure says it has.
    if rsdp.revision() > 0 && rsdp.length() as usize != long {
        return Err(bad);
    }
    rsdp.validate().map_err(|_| bad)?;
    match rsdp.revision() {
        0 => Ok((rsdp.rsdt_address().into(), 4)),
        _ if rsdp.xsdt_address() == 0 => Ok((rsdp.rsdt_address().into(), 4)),
        _ => Ok((rsdp.xsdt_address(), 8)),
    }
}

fn search_rsdp(memory: &impl FirmwareMemory) -> Result<(u64, usize), AcpiError> {
    for (start, length) in BIOS_AREAS {
        let Ok(area) = memory.bytes(start, length) else {
            continue;
        };
        for (offset, candidate) in (0..).step_by(16).zip(area.chunks_exact(16)) {
            if candidate.starts_with(b"RSD PTR ")
                && let Ok(found) = read_rsdp(memory, start + offset)
            {
                return Ok(found);
            }
        }
    }
    Err(AcpiError::NoRootPointer)
}

/// The whole table at `address`, header included: at least [`HEADER`] bytes,
/// exactly as many as its header says, with a good checksum.
fn read_table<M: FirmwareMemory>(memory: &M, address: u64) -> Result<&[u8], AcpiError> {
    let header = memory.bytes(address, HEADER)?;
    let signature = signature_of(header);
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if !(HEADER..=MAX_TABLE).contains(&(length as usize)) {
        return Err(AcpiError::BadLength {
            address,
            signature,
            length,
        });
    }
    let table = memory.bytes(address, length as usize)?;
    let checksum = table.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    if checksum == 0 {
        Ok(table)
    } else {
        Err(AcpiError::BadTable { address, signature })
    }
}

fn signature_of(table: &[u8]) -> [u8; 4] {
    table.first_chunk().copied().unwrap_or_default()
}

impl<'m> Acpi<'m> {
    /// Adds what `table`, whole and with a good checksum, says.
    fn add<M: FirmwareMemory>(&mut self, memory: &'m M, table: &'m [u8]) -> Result<(), AcpiError> {
        let signature = signature_of(table);
        match &signature {
            b"MCFG" => self.add_mcfg(table)?,
            b"APIC" => self.add_madt(table)?,
            b"SSDT" => self.aml.push(&table[HEADER..]),
            b"FACP" => {
                let fadt = fadt::read(table);
                self.io_blocks = fadt.io_blocks;
                self.pm_timer = fadt.pm_timer;
                self.add_dsdt(memory, fadt.dsdt)?;
            }
            _ => {}
        }
        self.tables.push(signature);
        Ok(())
    }

    fn add_dsdt<M: FirmwareMemory>(
        &mut self,
        memory: &'m M,
        address: u64,
    ) -> Result<(), AcpiError> {
        let table = read_table(memory, address)?;
        let signature = signature_of(table);
        if &signature != b"DSDT" {
            return Err(AcpiError::BadTable { address, signature });
        }
        self.tables.push(signature);
        // First, wherever the FADT stood among the SSDTs.
        self.aml.insert(0, &table[HEADER..]);
        Ok(())
    }

    fn add_mcfg(&mut self, table: &[u8]) -> Result<(), AcpiError> {
        let entries = entries_behind(table, MCFG_FIXED)?;
        let mut entries = entries.chunks_exact(size_of::<McfgEntry>());
        for entry in entries.by_ref() {
            // SAFETY: packed integers, for which all bits are valid; the
            // chunk has the entry's size.
            let entry: McfgEntry = unsafe { entry.as_ptr().cast::<McfgEntry>().read_unaligned() };
            self.ecam.push(EcamRegion {
                base: entry.base_address,
                segment: entry.pci_segment_group,
                bus_start: entry.bus_number_start,
                bus_end: entry.bus_number_end,
            });
        }
        match entries.remainder() {
            [] => Ok(()),
            rest => Err(bad_entry(table, table.len() - rest.len())),
        }
    }
}

pub(super) fn entries_behind(table: &[u8], fixed: usize) -> Result<&[u8], AcpiError> {
    table.get(fixed..).ok_or_else(|| bad_entry(table, HEADER))
}

pub(super) fn bad_entry(table: &[u8], offset: usize) -> AcpiError {
    AcpiError::BadEntry {
        signature: signature_of(table),
        offset,
    }
}

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
