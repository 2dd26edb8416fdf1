//! What PCI may use of the address spaces.
//!
//! A host bridge announces it in ACPI's name space, by a resource template that
//! also has its bus numbers. Where there is none, it is what nobody else claims.
//! From either is taken what memory, ECAM and other devices answer to.
//!
//! Where configuration space is can be in the name space as well: QEMU's microvm
//! has no MCFG, only an object `_CBA`.

use alloc::vec::Vec;
use core::ops::Range;

use doorbell::pci::{AddressRange, Apertures, BusRange};
use doorbell_boot::{BootInfo, RegionKind};

use super::acpi::{Acpi, EcamRegion};
use super::aml::{self, Descriptor, Space};
use crate::arch::cpu;

/// The end of what 32 bits address.
const BELOW_4G: u64 = 1 << 32;

/// Ports below belong to devices that came before PCI, and to PCI's own
/// configuration mechanism.
const FIRST_PCI_PORT: u64 = 0x1000;

/// Where memory for PCI ends below 4 GiB on a PC whose tables name no APIC: the
/// IO-APIC's customary address.
const IO_APIC: u64 = 0xfec0_0000;

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

/// Where configuration space is in memory: by the MCFG, else by the name space's
/// `_CBA` (PCI Firmware 3.3, 4.1.3), which is bus 0's address, for the buses of
/// the first host bridge.
pub fn ecam(acpi: &Acpi<'_>) -> Vec<EcamRegion> {
    if !acpi.ecam.is_empty() {
        return acpi.ecam.clone();
    }
    let buses = host_buses(acpi).next();
    let base = acpi.aml.iter().find_map(|code| config_base(code));
    let region = base
        .zip(buses)
        .map(|(base, (bus_start, bus_end))| EcamRegion {
            base,
            segment: 0,
            bus_start,
            bus_end,
        });
    region.into_iter().collect()
}

/// The root buses: those of the host bridges that the name space announces, as
/// far as configuration space is known; else the first of each ECAM, or bus 0.
///
/// Behind a root bus may be all numbers up to the next one. The last that is
/// announced does not count: QEMU announces no more for its expander bridges than
/// firmware has used.
pub fn roots(acpi: &Acpi<'_>) -> Vec<BusRange> {
    let mut reach: Vec<_> = ecam(acpi)
        .iter()
        .map(|region| (region.segment, region.bus_start, region.bus_end))
        .collect();
    if reach.is_empty() {
        reach.push((0, 0, u8::MAX));
    }
    let mut announced: Vec<_> = host_buses(acpi).map(|(first, _)| first).collect();
    announced.sort();
    announced.dedup();
    let mut roots = Vec::new();
    for (segment, first, last) in reach {
        // Templates do not say which segment they are of.
        let here = announced
            .iter()
            .filter(|bus| segment == 0 && (first..=last).contains(bus));
        let mut here: Vec<_> = here.copied().collect();
        if here.is_empty() {
            here.push(first);
        }
        let ends = here[1..].iter().map(|next| next - 1).chain([last]);
        let ranges = here.iter().zip(ends);
        roots.extend(ranges.map(|(&first, last)| BusRange {
            segment,
            first,
            last,
        }));
    }
    roots
}

/// The bus numbers of each host bridge that the name space announces.
fn host_buses(acpi: &Acpi<'_>) -> impl Iterator<Item = (u8, u8)> {
    let templates = acpi.aml.iter().flat_map(|code| aml::templates(code));
    templates
        .flat_map(aml::Template::descriptors)
        .filter_map(|descriptor| match descriptor {
            Descriptor::Window {
                space: Space::Bus,
                base,
                len,
            } => {
                let last = base.checked_add(len - 1)?;
                Some((u8::try_from(base).ok()?, u8::try_from(last).ok()?))
            }
            _ => None,
        })
}

/// The constant that `_CBA` stands for: `Name (_CBA, constant)`, or a method that
/// only returns one.
fn config_base(code: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"_CBA";
    const NAME_OP: u8 = 0x08;
    const RETURN_OP: u8 = 0xa4;
    code.windows(NAME.len())
        .enumerate()
        .skip(1)
        .find_map(|(at, word)| {
            let after = code.get(at + NAME.len()..).filter(|_| word == NAME)?;
            match after {
                // After a method's name come its flags: no arguments.
                [flags, RETURN_OP, value @ ..] if code[at - 1] != NAME_OP && flags & 7 == 0 => {
                    constant(value)
                }
                value if code[at - 1] == NAME_OP => constant(value),
                _ => None,
            }
        })
}

/// A constant of 32 or 64 bits (ACPI 6.5, 20.2.3).
fn constant(code: &[u8]) -> Option<u64> {
    match code.split_first()? {
        (0x0c, value) => Some(u32::from_le_bytes(*value.first_chunk()?).into()),
        (0x0e, value) => Some(u64::from_le_bytes(*value.first_chunk()?)),
        _ => None,
    }
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
    let end = input
        .apics
        .iter()
        .copied()
        .filter(|&apic| apic < BELOW_4G)
        .min();
    add(&mut found.io, 0, 0x1_0000);
    add(&mut found.mem32, input.low_ram_end, end.unwrap_or(IO_APIC));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Input<'static> {
        Input {
            memory: [
                0..0x9_fc00,
                0x10_0000..0x400_0000,
                0xfffc_0000..0x1_0000_0000,
            ]
            .into(),
            ram_end: 0x400_0000,
            low_ram_end: 0x400_0000,
            ecam: [0xb000_0000..0xc000_0000].into(),
            apics: [0xfee0_0000, 0xfec0_0000].into(),
            ports: [0x600..0x604, 0xafe0..0xafe4].into(),
            aml: &[],
            address_limit: 1 << 40,
        }
    }

    fn pairs(ranges: &[AddressRange]) -> Vec<(u64, u64)> {
        ranges
            .iter()
            .map(|range| (range.first, range.last))
            .collect()
    }

    #[test]
    fn without_an_announcement_the_holes_count() {
        let found = compute(&machine());
        assert_eq!(pairs(&found.io), [(0x1000, 0x9fff), (0xb000, 0xffff)]);
        assert_eq!(
            pairs(&found.mem32),
            [(0x400_0000, 0xafff_ffff), (0xc000_0000, 0xfebf_ffff)]
        );
        assert_eq!(pairs(&found.mem64), [(0x1_0000_0000, (1 << 40) - 1)]);
    }

    /// A host bridge with bus numbers, IO 0xd00-0xffff and memory
    /// 0xc0000000-0xdfffffff; then a device with IO ports 0xae00-0xae17.
    fn code() -> Vec<u8> {
        let mut host = Vec::from([0x88, 13, 0, 2, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1]);
        host.extend([
            0x88, 13, 0, 1, 0, 0, 0, 0, 0x00, 0x0d, 0xff, 0xff, 0, 0, 0x00, 0xf3,
        ]);
        host.extend([0x87, 23, 0, 0, 0, 0]);
        for value in [0u32, 0xc000_0000, 0xdfff_ffff, 0, 0x2000_0000] {
            host.extend(value.to_le_bytes());
        }
        host.extend([0x79, 0]);
        let device = [0x47, 1, 0x00, 0xae, 0x00, 0xae, 1, 0x18, 0x79, 0];
        let mut code = Vec::new();
        for template in [&host[..], &device] {
            code.extend(b"\x08_CRS\x11");
            let length = template.len() + 4;
            code.extend([0x40 | (length & 0xf) as u8, (length >> 4) as u8]);
            code.extend([0x0a, template.len() as u8]);
            code.extend(template);
        }
        code
    }

    #[test]
    fn what_a_host_bridge_announces_counts_less_what_others_claim() {
        let code = code();
        let aml = [&code[..]];
        let found = compute(&Input {
            aml: &aml,
            ports: Vec::new(),
            ..machine()
        });
        assert_eq!(pairs(&found.io), [(0x1000, 0xadff), (0xae18, 0xffff)]);
        assert_eq!(pairs(&found.mem32), [(0xc000_0000, 0xdfff_ffff)]);
        assert_eq!(pairs(&found.mem64), []);
    }

    // Byte code of QEMU 7.2 with 64 MiB: the declarations of resources above port
    // 0x1000, as they stand in the DSDT.

    /// `q35`: ECAM, HPET, the host bridge.
    const Q35: &str = "\
        085f435253111f0a1c871700000c0100000000000000b0ffffffbf00000000000000107900085f43\
        525311110a0e860900000000d0fe000400007900085f435253114a0b0ab6880d00020c0000000000\
        ff00000000014701f80cf80c0108880d00010c0300000000f70c0000f80c880d00010c030000000d\
        ffff000000f3871700000c030000000000000a00ffff0b000000000000000200871700000c010000\
        000000000004ffffffaf00000000000000ac871700000c0100000000000000c0ffffbffe00000000\
        0000c03e8a2b00000c0300000000000000000000000001000000ffffffff08000000000000000000\
        000000000000080000007900";

    /// `pc`: HPET, CPU hot-plug, the host bridge, GPE0, PCI hot-plug.
    const PC: &str = "\
        085f43525311110a0e860900000000d0fe000400007900085f435253110d0a0a470100af00af010c\
        7900085f43525311400a0a9c880d00020c0000000000ff00000000014701f80cf80c0108880d0001\
        0c0300000000f70c0000f80c880d00010c030000000dffff000000f3871700000c03000000000000\
        0a00ffff0b000000000000000200871700000c010000000000000004ffffbffe000000000000c0fa\
        8a2b00000c0300000000000000000000000001000000ffffff7f0100000000000000000000000000\
        0080000000007900085f435253110d0a0a4701e0afe0af01047900085f435253110d0a0a470100ae\
        00ae01187900";

    /// `microvm` with `pcie=on`: `_CBA`, the host bridge, ECAM.
    const MICROVM: &str = "\
        140c5f43424100a40c000000e0085f435253114e050a5a880d00020c0000000000ff000000000187\
        1700000c0100000000000000c0ffffffdf00000000000000208a2b00000c01000000000000000000\
        000000c0000000ffffffffff000000000000000000000000000000400000007900085f4352531133\
        0a308a2b00000c010000000000000000000000e000000000ffffffef000000000000000000000000\
        00000010000000007900";

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn q35_as_it_announces_itself() {
        let code = bytes(Q35);
        let aml = [&code[..]];
        let ports = [0x600..0x604, 0x620..0x630].into();
        let input = Input {
            aml: &aml,
            ecam: Vec::new(),
            ports,
            ..machine()
        };
        let found = compute(&input);
        assert_eq!(pairs(&found.io), [(0x1000, 0xffff)]);
        assert_eq!(
            pairs(&found.mem32),
            [(0x400_0000, 0xafff_ffff), (0xc000_0000, 0xfebf_ffff)],
            "without ECAM, though no MCFG says so"
        );
        assert_eq!(pairs(&found.mem64), [(0x1_0000_0000, 0x8_ffff_ffff)]);
        let narrow = compute(&Input {
            address_limit: 1 << 33,
            ..input
        });
        assert_eq!(pairs(&narrow.mem64), [(0x1_0000_0000, 0x1_ffff_ffff)]);
    }

    #[test]
    fn pc_as_it_announces_itself() {
        let code = bytes(PC);
        let aml = [&code[..]];
        let found = compute(&Input {
            aml: &aml,
            ecam: Vec::new(),
            ..machine()
        });
        assert_eq!(pairs(&found.io), [(0x1000, 0x9fff), (0xb000, 0xffff)]);
        assert_eq!(pairs(&found.mem32), [(0x400_0000, 0xfebf_ffff)]);
        assert_eq!(pairs(&found.mem64), [(0x1_0000_0000, 0x1_7fff_ffff)]);
        // Without the FADT it is only what the name space says.
        let found = compute(&Input {
            aml: &aml,
            ports: Vec::new(),
            ..machine()
        });
        assert_eq!(
            pairs(&found.io),
            [
                (0x1000, 0xadff),
                (0xae18, 0xaeff),
                (0xaf0c, 0xafdf),
                (0xafe4, 0xffff),
            ]
        );
    }

    #[test]
    fn microvm_as_it_announces_itself() {
        let code = bytes(MICROVM);
        let acpi = Acpi {
            aml: [&code[..]].into(),
            ..Acpi::default()
        };
        let (bus_start, bus_end) = (0, 0xff);
        assert_eq!(
            ecam(&acpi),
            [EcamRegion {
                base: 0xe000_0000,
                segment: 0,
                bus_start,
                bus_end
            }]
        );
        let found = compute(&Input {
            aml: &acpi.aml,
            ecam: Vec::new(),
            ..machine()
        });
        assert_eq!(pairs(&found.io), []);
        assert_eq!(pairs(&found.mem32), [(0xc000_0000, 0xdfff_ffff)]);
        assert_eq!(pairs(&found.mem64), [(0xc0_0000_0000, 0xff_ffff_ffff)]);
    }

    #[test]
    fn root_buses_are_the_host_bridges_in_reach() {
        let all = |segment| BusRange {
            segment,
            first: 0,
            last: 0xff,
        };
        assert_eq!(roots(&Acpi::default()), [all(0)]);
        let mut code = bytes(PC);
        let at = code
            .windows(3)
            .position(|bytes| bytes == [0x88, 13, 0])
            .unwrap();
        // Buses 0 to 0x3f, and before it the same bridge again with 0x40 alone.
        (code[at + 10], code[at + 14], code[at + 15]) = (0x3f, 0x40, 0);
        let mut second = code.clone();
        (second[at + 8], second[at + 10], second[at + 14]) = (0x40, 0x40, 1);
        let region = |segment, bus_start, bus_end| EcamRegion {
            base: 1 << 32,
            segment,
            bus_start,
            bus_end,
        };
        let mut acpi = Acpi {
            aml: [&second[..], &code].into(),
            ..Acpi::default()
        };
        let range = |first, last| BusRange {
            segment: 0,
            first,
            last,
        };
        assert_eq!(roots(&acpi), [range(0, 0x3f), range(0x40, 0xff)]);
        acpi.ecam = [region(0, 0, 0x7f), region(1, 0, 0xff)].into();
        assert_eq!(roots(&acpi), [range(0, 0x3f), range(0x40, 0x7f), all(1)]);
        acpi.ecam = [region(0, 0x10, 0x1f)].into();
        assert_eq!(roots(&acpi), [range(0x10, 0x1f)], "none of it announced");
    }

    #[test]
    fn a_configuration_base_is_a_constant() {
        assert_eq!(
            config_base(b"\x08_CBA\x0e\0\0\0\0\x01\0\0\0"),
            Some(0x1_0000_0000)
        );
        assert_eq!(config_base(b"\x08_CBA\x0c\0\0"), None, "cut off");
        assert_eq!(
            config_base(b"\x14\x0c_CBA\x01\xa4\x0c\0\0\0\xe0"),
            None,
            "an argument"
        );
        assert_eq!(config_base(b"_CBA"), None);
        assert_eq!(config_base(b""), None);
    }

    #[test]
    fn taking_out_of_the_middle_leaves_both_ends() {
        let mut ranges = Vec::new();
        add(&mut ranges, 10, 20);
        take(&mut ranges, 0..5);
        take(&mut ranges, 14..16);
        take(&mut ranges, 15..15);
        assert_eq!(pairs(&ranges), [(10, 13), (16, 19)]);
        take(&mut ranges, 0..u64::MAX);
        assert_eq!(pairs(&ranges), []);
    }
}
