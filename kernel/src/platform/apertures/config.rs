//! Where configuration space is, and which buses are root buses.

use alloc::vec::Vec;

use doorbell::pci::BusRange;

use crate::platform::acpi::{Acpi, EcamRegion};
use crate::platform::aml::{self, Descriptor, Space};

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

#[cfg(test)]
mod tests {
    use super::super::tests::{PC, bytes};
    use super::*;

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
}
