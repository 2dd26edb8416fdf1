//! The Multiple APIC Description Table (ACPI 6.5, 5.2.12), which has the
//! signature `APIC`: the interrupt controllers, and how ISA's interrupts reach
//! them.

use core::mem::size_of;

use acpi::madt::{InterruptSourceOverrideEntry, IoApicEntry, LocalApicAddressOverrideEntry};

use super::acpi::{Acpi, AcpiError, HEADER, bad_entry, entries_behind};
use super::gsi::{Gsi, Polarity, Trigger};

/// Bytes before the entries.
pub(super) const FIXED: usize = HEADER + 8;

/// Entry types (table 5-45).
const IO_APIC: u8 = 1;
const INTERRUPT_SOURCE_OVERRIDE: u8 = 2;
const LOCAL_APIC_ADDRESS_OVERRIDE: u8 = 5;

/// The only bus that overrides are for.
const ISA: u8 = 0;

/// An IO-APIC (5.2.12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Its APIC ID.
    pub id: u8,
    /// Physical address of its registers.
    pub address: u64,
    /// The global system interrupt of its first input.
    pub gsi_base: u32,
}

impl IoApic {
    /// Where every PC has its first one.
    pub const CUSTOMARY: Self = Self {
        id: 0,
        address: 0xfec0_0000,
        gsi_base: 0,
    };
}

/// An ISA interrupt that is not what it is by default (5.2.12.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsaOverride {
    /// Its number on the bus: the 8259s' input.
    irq: u8,
    /// Its global number.
    gsi: u32,
    /// Its trigger, if that is not the bus's.
    trigger: Option<Trigger>,
    /// Its polarity, if that is not the bus's.
    polarity: Option<Polarity>,
}

impl IsaOverride {
    /// `None` if the flags have a value that is reserved (table 5-50).
    fn new(entry: InterruptSourceOverrideEntry) -> Option<Self> {
        let flags = entry.flags;
        Some(Self {
            irq: entry.irq,
            gsi: entry.global_system_interrupt,
            polarity: match flags & 0b11 {
                0b00 => None,
                0b01 => Some(Polarity::High),
                0b11 => Some(Polarity::Low),
                _ => return None,
            },
            trigger: match flags >> 2 & 0b11 {
                0b00 => None,
                0b01 => Some(Trigger::Edge),
                0b11 => Some(Trigger::Level),
                _ => return None,
            },
        })
    }
}

impl Acpi<'_> {
    /// An ISA interrupt's global one. Where firmware does not say how it is wired,
    /// it is as given.
    pub fn isa(&self, irq: u8, trigger: Trigger, polarity: Polarity) -> Gsi {
        let mut overrides = self.isa_overrides.iter();
        match overrides.find(|entry| entry.irq == irq) {
            Some(entry) => Gsi {
                number: entry.gsi,
                trigger: entry.trigger.unwrap_or(trigger),
                polarity: entry.polarity.unwrap_or(polarity),
            },
            None => Gsi {
                number: irq.into(),
                trigger,
                polarity,
            },
        }
    }

    pub(super) fn add_madt(&mut self, table: &[u8]) -> Result<(), AcpiError> {
        let mut entries = entries_behind(table, FIXED)?;
        let address = [
            table[HEADER],
            table[HEADER + 1],
            table[HEADER + 2],
            table[HEADER + 3],
        ];
        self.local_apic = Some(u32::from_le_bytes(address).into());
        while !entries.is_empty() {
            let bad = bad_entry(table, table.len() - entries.len());
            // Each begins with its type and its length in bytes.
            let &[kind, length, ..] = entries else {
                return Err(bad);
            };
            if length < 2 {
                return Err(bad);
            }
            let (entry, rest) = entries.split_at_checked(length.into()).ok_or(bad)?;
            match kind {
                IO_APIC => {
                    let entry: IoApicEntry = read_entry(entry).ok_or(bad)?;
                    self.io_apics.push(IoApic {
                        id: entry.io_apic_id,
                        address: entry.io_apic_address.into(),
                        gsi_base: entry.global_system_interrupt_base,
                    });
                }
                INTERRUPT_SOURCE_OVERRIDE => {
                    let entry: InterruptSourceOverrideEntry = read_entry(entry).ok_or(bad)?;
                    if entry.bus == ISA {
                        let entry = IsaOverride::new(entry).ok_or(bad)?;
                        self.isa_overrides.push(entry);
                    }
                }
                LOCAL_APIC_ADDRESS_OVERRIDE => {
                    let entry: LocalApicAddressOverrideEntry = read_entry(entry).ok_or(bad)?;
                    self.local_apic = Some(entry.local_apic_address);
                }
                _ => {}
            }
            entries = rest;
        }
        Ok(())
    }
}

/// The entry types that are read.
///
/// # Safety
/// All bits must be valid for the type.
unsafe trait Entry: Sized {}
// SAFETY: packed integers.
unsafe impl Entry for IoApicEntry {}
// SAFETY: packed integers.
unsafe impl Entry for InterruptSourceOverrideEntry {}
// SAFETY: packed integers.
unsafe impl Entry for LocalApicAddressOverrideEntry {}

/// `None` if the bytes are too few. Later versions may append fields.
fn read_entry<T: Entry>(bytes: &[u8]) -> Option<T> {
    // SAFETY: enough bytes, and `Entry` says that any will do.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
