//! The static resource templates in ACPI's byte code (ACPI 6.5, 6.4 and 20.2),
//! read without an interpreter.
//!
//! Firmware for virtual machines declares most resources as constants:
//! `Name (_CRS, ResourceTemplate () {...})`. That declaration has a fixed form in
//! byte code, and this finds it wherever it stands. What a method computes is
//! not seen.

use super::gsi::{Gsi, Polarity, Trigger};

/// The object that has a device's resources as they are (6.2.2).
pub(super) const CURRENT: [u8; 4] = *b"_CRS";

/// `NameOp` and `BufferOp` (20.2.5.1, 20.2.5.4).
const NAME: u8 = 0x08;
const BUFFER: u8 = 0x11;

/// A resource descriptor, as far as this kernel has a use for it. Lengths are in
/// bytes or ports, and are not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// Ports that the device answers at.
    Io {
        /// The first.
        base: u64,
        /// How many.
        len: u64,
    },
    /// Memory that the device answers at.
    Memory {
        /// The first byte.
        base: u64,
        /// How many.
        len: u64,
    },
    /// A range that a bridge hands on, or bus numbers.
    Window {
        /// Of which space.
        space: Space,
        /// The first address.
        base: u64,
        /// How many.
        len: u64,
    },
    /// An interrupt, or several to choose from.
    Interrupt {
        /// The first.
        gsi: Gsi,
        /// How many.
        choices: u8,
    },
}

/// What a window is of (6.4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Memory.
    Memory,
    /// Ports.
    Io,
    /// PCI bus numbers.
    Bus,
}

/// One template's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template<'a>(&'a [u8]);

/// All templates in a piece of byte code that are current resources, in order.
pub fn templates(code: &[u8]) -> impl Iterator<Item = Template<'_>> {
    declared(code, CURRENT)
}

/// All templates in a piece of byte code that have this name, in order.
pub(super) fn declared(code: &[u8], name: [u8; 4]) -> impl Iterator<Item = Template<'_>> {
    let [a, b, c, d] = name;
    let declaration = [NAME, a, b, c, d, BUFFER];
    let places = code.windows(declaration.len()).enumerate();
    places
        .filter(move |(_, window)| *window == declaration)
        .filter_map(move |(at, _)| buffer(&code[at + declaration.len()..]).map(Template))
}

/// The bytes of a buffer, whose package length comes first, then its size.
fn buffer(code: &[u8]) -> Option<&[u8]> {
    let (size, rest) = integer(package(code)?.0)?;
    rest.get(..usize::try_from(size).ok()?)
}

/// What a package length counts, and what comes after it (20.2.4). The length's
/// own bytes count too.
pub(super) fn package(code: &[u8]) -> Option<(&[u8], &[u8])> {
    let lead = *code.first()?;
    // The upper two bits say how many bytes follow.
    let follow = usize::from(lead >> 6);
    let mut length = usize::from(if follow == 0 {
        lead & 0x3f
    } else {
        lead & 0x0f
    });
    for (index, &byte) in code.get(1..=follow)?.iter().enumerate() {
        length |= usize::from(byte) << (4 + 8 * index);
    }
    Some((code.get(1 + follow..length)?, &code[length..]))
}

/// A constant integer, and what comes after it (20.2.3).
pub(super) fn integer(code: &[u8]) -> Option<(u64, &[u8])> {
    let (&prefix, rest) = code.split_first()?;
    let width = match prefix {
        0x00 => return Some((0, rest)),
        0x01 => return Some((1, rest)),
        0x0a => 1,
        0x0b => 2,
        0x0c => 4,
        _ => return None,
    };
    Some((field(rest, 0, width)?, &rest[width..]))
}

/// A little-endian field of `width` bytes.
fn field(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)),
    )
}

impl<'a> Template<'a> {
    /// The descriptors up to the end tag, or up to one that is cut off.
    pub fn descriptors(self) -> impl Iterator<Item = Descriptor> + 'a {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (item, after) = split_item(rest)?;
            rest = after;
            Some(item)
        })
        .filter_map(|(tag, body)| decode(tag, body))
    }

    /// Whether it has bus numbers: then it is a PCI host bridge's.
    pub fn is_host_bridge(self) -> bool {
        self.descriptors().any(|descriptor| {
            matches!(
                descriptor,
                Descriptor::Window {
                    space: Space::Bus,
                    ..
                }
            )
        })
    }
}

/// An item's tag and body.
type Item<'a> = (u8, &'a [u8]);

/// The first item, and what comes after it (6.4.2, 6.4.3).
fn split_item(bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    const END_TAG: u8 = 0x78;
    let lead = *bytes.first()?;
    let (tag, header, length) = if lead & 0x80 == 0 {
        (lead & 0x78, 1, usize::from(lead & 7))
    } else {
        (lead, 3, field(bytes, 1, 2)? as usize)
    };
    if tag == END_TAG {
        return None;
    }
    let body = bytes.get(header..header + length)?;
    Some(((tag, body), &bytes[header + length..]))
}

fn decode(tag: u8, body: &[u8]) -> Option<Descriptor> {
    let io = |base, len| (len > 0).then_some(Descriptor::Io { base, len });
    let memory = |base, len| (len > 0).then_some(Descriptor::Memory { base, len });
    match tag {
        // IO port: information, minimum, maximum, alignment, length.
        0x40 => io(field(body, 1, 2)?, field(body, 6, 1)?),
        // Fixed IO port: base, length.
        0x48 => io(field(body, 0, 2)? & 0x3ff, field(body, 2, 1)?),
        // 24-bit memory, in units of 256 bytes.
        0x81 => memory(field(body, 1, 2)? << 8, field(body, 7, 2)? << 8),
        // 32-bit memory: information, minimum, maximum, alignment, length.
        0x85 => memory(field(body, 1, 4)?, field(body, 13, 4)?),
        // Fixed 32-bit memory: information, base, length.
        0x86 => memory(field(body, 1, 4)?, field(body, 5, 4)?),
        // Word, doubleword and quadword address space.
        0x88 => window(body, 3, 2),
        0x87 => window(body, 3, 4),
        0x8a => window(body, 3, 8),
        // Extended address space: revision and a reserved byte come first.
        0x8b => window(body, 5, 8),
        0x20 => irq(body),
        0x89 => interrupt(body),
        _ => None,
    }
}

/// An IRQ descriptor (6.4.2.1): a bit for each ISA interrupt, and flags. It
/// may end before them, and then means an ISA device's.
fn irq(body: &[u8]) -> Option<Descriptor> {
    let mask = field(body, 0, 2)? as u16;
    let flags = body.get(2).copied().unwrap_or(0x01);
    let gsi = Gsi {
        number: mask.trailing_zeros(),
        trigger: trigger(flags & 0x01 != 0),
        polarity: polarity(flags & 0x08 != 0),
    };
    let choices = mask.count_ones() as u8;
    (choices > 0).then_some(Descriptor::Interrupt { gsi, choices })
}

/// An extended interrupt descriptor (6.4.3.6): flags, how many, the numbers.
fn interrupt(body: &[u8]) -> Option<Descriptor> {
    let (flags, choices) = (*body.first()?, *body.get(1)?);
    let gsi = Gsi {
        number: field(body, 2, 4)? as u32,
        trigger: trigger(flags & 0x02 != 0),
        polarity: polarity(flags & 0x04 != 0),
    };
    (choices > 0).then_some(Descriptor::Interrupt { gsi, choices })
}

fn trigger(edge: bool) -> Trigger {
    if edge { Trigger::Edge } else { Trigger::Level }
}

fn polarity(low: bool) -> Polarity {
    if low { Polarity::Low } else { Polarity::High }
}

/// An address space descriptor: its fields, of `width` bytes each, are
/// granularity, minimum, maximum, translation and length.
fn window(body: &[u8], fields: usize, width: usize) -> Option<Descriptor> {
    let space = match body.first()? {
        0 => Space::Memory,
        1 => Space::Io,
        2 => Space::Bus,
        _ => return None,
    };
    let base = field(body, fields + width, width)?;
    let len = field(body, fields + 4 * width, width)?;
    (len > 0).then_some(Descriptor::Window { space, base, len })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// A declaration of the template `bytes`, as a compiler writes it.
    pub(crate) fn declare(bytes: &[u8]) -> Vec<u8> {
        let mut code = b"\x08_CRS\x11".to_vec();
        let length = bytes.len() + 4;
        assert!(length < 0x1000);
        code.extend([0x40 | (length & 0xf) as u8, (length >> 4) as u8]);
        code.extend([0x0a, u8::try_from(bytes.len()).unwrap()]);
        code.extend(bytes);
        code
    }

    const BUS: [u8; 16] = [0x88, 13, 0, 2, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1];
    const IO: [u8; 8] = [0x47, 1, 0x00, 0xae, 0x00, 0xae, 1, 0x18];
    const END: [u8; 2] = [0x79, 0];

    #[test]
    fn descriptors_are_read_up_to_the_end_tag() {
        let memory = [0x86, 9, 0, 1, 0, 0x0e, 0xb0, 0xfe, 0, 2, 0, 0];
        let interrupt = [0x89, 6, 0, 1, 1, 12, 0, 0, 0];
        let low = [0x89, 10, 0, 0b111, 2, 5, 0, 0, 0, 10, 0, 0, 0];
        let isa = [0x22, 0x00, 0x02];
        let shared = [0x23, 0x20, 0x04, 0x18];
        let irqs = [&interrupt[..], &low, &isa, &shared].concat();
        let bytes = [&IO[..], &memory, &irqs, &END, &IO].concat();
        let gsi = |number, trigger, polarity| Gsi {
            number,
            trigger,
            polarity,
        };
        let one = |gsi| Descriptor::Interrupt { gsi, choices: 1 };
        let two = |gsi| Descriptor::Interrupt { gsi, choices: 2 };
        let code = declare(&bytes);
        let found: Vec<_> = templates(&code).flat_map(Template::descriptors).collect();
        assert_eq!(
            found,
            [
                Descriptor::Io {
                    base: 0xae00,
                    len: 0x18
                },
                Descriptor::Memory {
                    base: 0xfeb0_0e00,
                    len: 0x200
                },
                one(gsi(12, Trigger::Level, Polarity::High)),
                two(gsi(5, Trigger::Edge, Polarity::Low)),
                one(gsi(9, Trigger::Edge, Polarity::High)),
                two(gsi(5, Trigger::Level, Polarity::Low)),
            ]
        );
    }

    #[test]
    fn bus_numbers_make_a_host_bridge() {
        let code = [
            declare(&[&BUS[..], &END].concat()),
            declare(&[&IO[..], &END].concat()),
        ]
        .concat();
        let hosts: Vec<_> = templates(&code).map(Template::is_host_bridge).collect();
        assert_eq!(hosts, [true, false]);
        let bus = templates(&code).next().unwrap().descriptors().next();
        assert_eq!(
            bus,
            Some(Descriptor::Window {
                space: Space::Bus,
                base: 0,
                len: 256
            })
        );
    }

    #[test]
    fn quadword_windows_are_read() {
        let mut window = [0x8a, 43, 0, 0, 0, 0].to_vec();
        for value in [0u64, 0x1_0000_0000, 0x1_ffff_ffff, 0, 0x1_0000_0000] {
            window.extend(value.to_le_bytes());
        }
        let code = declare(&[&window[..], &END].concat());
        let found = templates(&code).flat_map(Template::descriptors).next();
        let (base, len) = (0x1_0000_0000, 0x1_0000_0000);
        assert_eq!(
            found,
            Some(Descriptor::Window {
                space: Space::Memory,
                base,
                len
            })
        );
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        let code = declare(&[&IO[..], &BUS, &END].concat());
        for length in 0..code.len() {
            // Whatever is there, it must not panic, and never find more.
            assert!(
                templates(&code[..length])
                    .flat_map(Template::descriptors)
                    .count()
                    <= 2
            );
        }
        let short = declare(&IO[..5]);
        assert_eq!(templates(&short).flat_map(Template::descriptors).count(), 0);
    }
}
