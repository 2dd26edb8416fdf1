//! What PCI may use of the address spaces.
//!
//! A host bridge announces it in ACPI's name space, by a resource template that
//! also has its bus numbers. Where there is none, it is what nobody else claims.
//! From either is taken what memory, ECAM and other devices answer to.
//!
//! Where configuration space is can be in the name space as well: QEMU's microvm
//! has no MCFG, only an object `_CBA`.

mod config;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::ops::Range;

use doorbell::pci::{AddressRange, Apertures};
use doorbell_boot::{BootInfo, RegionKind};

use super::acpi::{Acpi, IoApic};
use super::aml::{self, Descriptor, Space};
use crate::arch::cpu;

pub use config::{ecam, roots};

/// The end of what 32 bits address.
const BELOW_4G: u64 = 1 << 32;

/// Ports below belong to devices that came before PCI, and to PCI's own
/// configuration mechanism.
const FIRST_PCI_PORT: u64 = 0x1000;

/// Memory that VGA has answered to on every PC.
const VGA: Range<u64> = 0xa_0000..0xc_0000;

/// A bridge's window of IO has this granularity; so has what is kept clear
/// around ports that ACPI hardware answers to, since its tables do not name all.
const IO_GRANULARITY: u64 = 0x1000;

/// Buses of configuration space take this much of an ECAM each.
const ECAM_BUS: u64 = 1 << 20;

/// The ranges that are left for PCI, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    io: Vec<AddressRange>,
    mem32: Vec<AddressRange>,
    mem64: Vec<AddressRange>,
}

impl Found {
    /// The form in which the driver library takes them.
    pub fn as_apertures(&self) -> Apertures<'_> {
        Apertures {
            io: &self.io,
            mem32: &self.mem32,
            mem64: &self.mem64,
        }
    }
}

/// What firmware says of the address spaces.
struct Input<'a> {
    /// The memory map: all of it, of whatever kind.
    memory: Vec<Range<u64>>,
    /// The end of the highest RAM.
    ram_end: u64,
    /// The end of the highest RAM below 4 GiB.
    low_ram_end: u64,
    /// ECAM, as physical addresses.
    ecam: Vec<Range<u64>>,
    /// Physical addresses of APICs.
    apics: Vec<u64>,
    /// Ports that ACPI hardware answers to.
    ports: Vec<Range<u64>>,
    /// ACPI's byte code.
    aml: &'a [&'a [u8]],
    /// The end of what the CPU can address.
    address_limit: u64,
}

/// Works out what PCI may use.
pub fn apertures(boot: &BootInfo, acpi: &Acpi<'_>) -> Found {
    let ram = || {
        let ram = boot
            .memory_map()
            .filter(|region| region.kind == RegionKind::Ram);
        ram.map(|region| region.range())
    };
    let low_ram = ram().filter(|range| range.start < BELOW_4G);
    let ecam = ecam(acpi);
    let ecam = ecam.iter().map(|region| {
        let bus = |number: u64| region.base.saturating_add(number * ECAM_BUS);
        bus(region.bus_start.into())..bus(u64::from(region.bus_end) + 1)
    });
    let ports = acpi.io_blocks.iter();
    compute(&Input {
        memory: boot.memory_map().map(|region| region.range()).collect(),
        ram_end: ram().map(|range| range.end).max().unwrap_or(0),
        low_ram_end: low_ram
            .map(|range| range.end.min(BELOW_4G))
            .max()
            .unwrap_or(0),
        ecam: ecam.collect(),
        apics: acpi
            .io_apics
            .iter()
            .map(|apic| apic.address)
            .chain(acpi.local_apic)
            .collect(),
        ports: ports
            .map(|block| u64::from(block.base)..u64::from(block.base) + u64::from(block.length))
            .collect(),
        aml: &acpi.aml,
        address_limit: cpu::physical_address_limit(),
    })
}

fn compute(input: &Input<'_>) -> Found {
    let mut found = announced(input).unwrap_or_else(|| unclaimed(input));
    let templates = || input.aml.iter().flat_map(|code| aml::templates(code));
    let others = || {
        let others = templates().filter(|template| !template.is_host_bridge());
        others.flat_map(aml::Template::descriptors)
    };

    take(&mut found.io, 0..FIRST_PCI_PORT);
    for ports in &input.ports {
        let start = ports.start / IO_GRANULARITY * IO_GRANULARITY;
        take(
            &mut found.io,
            start..ports.end.next_multiple_of(IO_GRANULARITY),
        );
    }
    // A device that is no host bridge reserves with any kind of descriptor.
    for descriptor in others() {
        if let Descriptor::Io { base, len }
        | Descriptor::Window {
            space: Space::Io,
            base,
            len,
        } = descriptor
        {
            take(&mut found.io, base..base.saturating_add(len));
        }
    }

    let memory = input.memory.iter().chain(&input.ecam).cloned();
    let apics = input
        .apics
        .iter()
        .map(|&apic| apic..apic.saturating_add(0x1000));
    let devices = others().filter_map(|descriptor| match descriptor {
        Descriptor::Memory { base, len }
        | Descriptor::Window {
            space: Space::Memory,
            base,
            len,
        } => Some(base..base.saturating_add(len)),
        _ => None,
    });
    for range in memory.chain(apics).chain(devices).chain([VGA]) {
        take(&mut found.mem32, range.clone());
        take(&mut found.mem64, range);
    }
    found
}

/// The windows that host bridges announce; `None` where none does.
fn announced(input: &Input<'_>) -> Option<Found> {
    let templates = input.aml.iter().flat_map(|code| aml::templates(code));
    let mut hosts = templates
        .filter(|template| template.is_host_bridge())
        .peekable();
    hosts.peek()?;
    let mut found = Found::default();
    for descriptor in hosts.flat_map(aml::Template::descriptors) {
        match descriptor {
            Descriptor::Window {
                space: Space::Io,
                base,
                len,
            } => {
                add(&mut found.io, base, base.saturating_add(len).min(0x1_0000));
            }
            Descriptor::Window {
                space: Space::Memory,
                base,
                len,
            } => {
                let end = base.saturating_add(len);
                add(&mut found.mem32, base, end.min(BELOW_4G));
                add(
                    &mut found.mem64,
                    base.max(BELOW_4G),
                    end.min(input.address_limit),
                );
            }
            _ => {}
        }
    }
    Some(found)
}

/// What nobody claims: the hole between RAM and the APICs, and what is above all
/// RAM.
fn unclaimed(input: &Input<'_>) -> Found {
    let mut found = Found::default();
    // A PC whose tables name no APIC has one all the same.
    let end = input
        .apics
        .iter()
        .copied()
        .filter(|&apic| apic < BELOW_4G)
        .min();
    add(&mut found.io, 0, 0x1_0000);
    add(
        &mut found.mem32,
        input.low_ram_end,
        end.unwrap_or(IoApic::CUSTOMARY.address),
    );
    let above = input.ram_end.max(BELOW_4G).next_multiple_of(1 << 30);
    add(&mut found.mem64, above, input.address_limit);
    found
}

/// Adds a range, if it is one, and keeps the ranges in order and apart.
fn add(ranges: &mut Vec<AddressRange>, start: u64, end: u64) {
    if start >= end {
        return;
    }
    take(ranges, start..end);
    ranges.extend(AddressRange::new(start, end - 1));
    ranges.sort();
}

/// Takes a range out.
fn take(ranges: &mut Vec<AddressRange>, hole: Range<u64>) {
    if hole.is_empty() {
        return;
    }
    let outside = |range: &AddressRange| {
        let below = hole
            .start
            .checked_sub(1)
            .map(|last| (range.first, range.last.min(last)));
        let above = (range.first.max(hole.end), range.last);
        below.into_iter().chain([above]).collect::<Vec<_>>()
    };
    *ranges = ranges
        .iter()
        .flat_map(outside)
        .filter_map(|(first, last)| AddressRange::new(first, last))
        .collect();
}
