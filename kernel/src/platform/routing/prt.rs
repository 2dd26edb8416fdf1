//! PCI routing tables in ACPI's byte code (ACPI 6.5, 6.2.13), as far as they are
//! constants: a package of packages, each of which says of a device and a pin
//! which interrupt it is, either by its number, or by naming a device (a link)
//! whose resources have it.
//!
//! A method `_PRT` that chooses between two such packages, one for the 8259s and
//! one for IO-APICs, is not run: both are found, and the one is taken that
//! leads to interrupts that only IO-APICs have.

use alloc::vec::Vec;

use crate::platform::aml::{self, Descriptor};
use crate::platform::gsi::{Gsi, Polarity, Trigger};

/// `PackageOp` and `VarPackageOp` (20.2.5.4).
const PACKAGE: u8 = 0x12;
const VAR_PACKAGE: u8 = 0x13;
/// `DeviceOp` (20.2.5.2).
const DEVICE: [u8; 2] = [0x5b, 0x82];
/// The object that has the resources that a device could have (6.2.12).
const POSSIBLE: [u8; 4] = *b"_PRS";
/// The inputs of the 8259s.
const ISA_INTERRUPTS: u32 = 16;

/// A name's last segment.
type Segment = [u8; 4];

/// A routing table, of the root bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prt(Vec<Entry>);

/// Where a device's pin leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    device: u8,
    pin: u8,
    gsi: Gsi,
}

impl Prt {
    /// Looks for a table that leads somewhere.
    pub(super) fn find(aml: &[&[u8]]) -> Option<Self> {
        let devices: Vec<_> = aml.iter().flat_map(|code| devices(code)).collect();
        let tables = aml.iter().flat_map(|code| tables(code));
        let tables = tables.map(|entries| {
            let routed = entries.iter().filter_map(|entry| {
                Some(Entry {
                    device: entry.device,
                    pin: entry.pin,
                    gsi: entry.source.resolve(&devices)?,
                })
            });
            Self(routed.collect())
        });
        tables
            .filter(|table| !table.0.is_empty())
            .max_by_key(|table| {
                let beyond = |entry: &&Entry| entry.gsi.number >= ISA_INTERRUPTS;
                (table.0.iter().filter(beyond).count(), table.0.len())
            })
    }

    /// Where pin 0 to 3 of a device on the root bus leads.
    pub(super) fn route(&self, device: u8, pin: u8) -> Option<Gsi> {
        let mut entries = self.0.iter();
        let entry = entries.find(|entry| (entry.device, entry.pin) == (device, pin))?;
        Some(entry.gsi)
    }
}

/// An entry, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    device: u8,
    pin: u8,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A global system interrupt.
    Number(u32),
    /// A link's name.
    Link(Segment),
}

impl Source {
    fn resolve(self, devices: &[(Segment, &[u8])]) -> Option<Gsi> {
        let name = match self {
            // As PCI has them.
            Self::Number(number) => {
                return Some(Gsi {
                    number,
                    trigger: Trigger::Level,
                    polarity: Polarity::Low,
                });
            }
            Self::Link(name) => name,
        };
        let (_, objects) = devices.iter().find(|(own, _)| *own == name)?;
        // Of several possible ones only a method says which it is.
        [aml::CURRENT, POSSIBLE]
            .into_iter()
            .find_map(|name| aml::declared(objects, name).next())?
            .descriptors()
            .find_map(|descriptor| match descriptor {
                Descriptor::Interrupt { gsi, choices: 1 } => Some(gsi),
                _ => None,
            })
    }
}

/// All packages that are routing tables: of one entry at least.
fn tables(code: &[u8]) -> impl Iterator<Item = Vec<Written>> {
    let places = code.iter().enumerate();
    places.filter_map(|(at, &byte)| match byte {
        PACKAGE | VAR_PACKAGE => table(&code[at..]),
        _ => None,
    })
}

fn table(code: &[u8]) -> Option<Vec<Written>> {
    let mut elements = elements(code)?.0;
    let mut entries = Vec::new();
    while !elements.is_empty() {
        let (entry, rest) = entry(elements)?;
        entries.push(entry);
        elements = rest;
    }
    (!entries.is_empty()).then_some(entries)
}

/// A package's elements, and what comes after it. How many it says that there are
/// comes before them: in one byte, or as an integer.
fn elements(code: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&kind, code) = code.split_first()?;
    let (body, rest) = aml::package(code)?;
    let elements = match kind {
        PACKAGE => body.split_first()?.1,
        VAR_PACKAGE => aml::integer(body)?.1,
        _ => return None,
    };
    Some((elements, rest))
}

/// An entry: the device's number, over 0xFFFF for all of its functions; the pin;
/// the source's name and index, or 0 and the interrupt's number.
fn entry(code: &[u8]) -> Option<(Written, &[u8])> {
    let (fields, rest) = elements(code)?;
    let (address, fields) = aml::integer(fields)?;
    let (pin, fields) = aml::integer(fields)?;
    let (name, fields) = match aml::integer(fields) {
        Some((0, fields)) => (None, fields),
        Some(_) => return None,
        None => {
            let (name, fields) = name(fields)?;
            (Some(name), fields)
        }
    };
    let (index, fields) = aml::integer(fields)?;
    let device = u8::try_from(address >> 16).ok()?;
    let valid = address & 0xffff == 0xffff && device < 32 && pin < 4 && fields.is_empty();
    let entry = Written {
        device,
        pin: pin as u8,
        source: match name {
            Some(name) => Source::Link(name),
            None => Source::Number(u32::try_from(index).ok()?),
        },
    };
    valid.then_some((entry, rest))
}

/// A name's last segment, and what comes after the name (20.2.2).
fn name(code: &[u8]) -> Option<(Segment, &[u8])> {
    const ROOT: u8 = b'\\';
    const PARENT: u8 = b'^';
    const DUAL: u8 = 0x2e;
    const MULTI: u8 = 0x2f;
    let prefix = code
        .iter()
        .take_while(|byte| matches!(**byte, ROOT | PARENT));
    let code = &code[prefix.count()..];
    let (segments, code) = match *code.first()? {
        DUAL => (2, &code[1..]),
        MULTI => (usize::from(*code.get(1)?), &code[2..]),
        _ => (1, code),
    };
    let last = code.get((segments.checked_sub(1)?) * 4..segments * 4)?;
    let starts = matches!(last[0], b'A'..=b'Z' | b'_');
    let goes_on = |byte: &u8| matches!(byte, b'A'..=b'Z' | b'_' | b'0'..=b'9');
    let valid = starts && last.iter().all(goes_on);
    let segment = *last.first_chunk()?;
    valid.then_some((segment, &code[segments * 4..]))
}

/// All devices, by the last segment of their names, and what is in them.
fn devices(code: &[u8]) -> impl Iterator<Item = (Segment, &[u8])> {
    let places = code.windows(DEVICE.len()).enumerate();
    places
        .filter(|(_, window)| *window == DEVICE)
        .filter_map(|(at, _)| name(aml::package(&code[at + DEVICE.len()..])?.0))
}
