//! A function's capability lists.
//!
//! The links are the device's, so each list ends: an offset that was visited
//! before, or that lies outside of the list's part of configuration space, is an
//! error item, and the last one.

use core::fmt;

use pci_types::PciAddress;

use super::config::ConfigSpace;
use super::registers;

/// Capability ID of PCI Express (7.5.3).
pub const PCI_EXPRESS: u16 = 0x10;
/// Capability ID of MSI-X.
pub const MSI_X: u16 = 0x11;
/// Capability ID of a vendor-specific capability, virtio's.
pub const VENDOR_SPECIFIC: u16 = 0x09;

/// Status register: the function has a capability list.
const STATUS_CAPABILITY_LIST: u16 = 1 << 4;

/// One entry of a capability list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is: 8 bits in the standard list, 16 in the extended one. The two
    /// lists number their capabilities independently.
    pub id: u16,
    /// The version of an extended capability; 0 for a standard one.
    pub version: u8,
    /// Offset of its first byte in configuration space.
    pub offset: u16,
    /// Where the list's part of configuration space ends.
    end: u16,
}

impl Capability {
    /// The offset in configuration space of its byte `at`; `None` if `width`
    /// bytes there are not aligned or not inside the list's part of
    /// configuration space.
    pub fn register(&self, at: u16, width: u16) -> Option<u16> {
        let offset = self.offset.checked_add(at)?;
        let inside = offset.checked_add(width)? <= self.end;
        (inside && offset.is_multiple_of(width)).then_some(offset)
    }

    /// The byte at `at` bytes from the capability's start; `None` if it is not
    /// in configuration space.
    pub fn read8(
        &self,
        config: &(impl ConfigSpace + ?Sized),
        address: PciAddress,
        at: u16,
    ) -> Option<u8> {
        Some(config.read8(address, self.register(at, 1)?))
    }

    /// As [`read8`](Self::read8), 16 bits wide; also `None` if not aligned.
    pub fn read16(
        &self,
        config: &(impl ConfigSpace + ?Sized),
        address: PciAddress,
        at: u16,
    ) -> Option<u16> {
        Some(config.read16(address, self.register(at, 2)?))
    }

    /// As [`read16`](Self::read16), 32 bits wide.
    pub fn read32(
        &self,
        config: &(impl ConfigSpace + ?Sized),
        address: PciAddress,
        at: u16,
    ) -> Option<u32> {
        Some(config.read32(address, self.register(at, 4)?))
    }
}

/// What ends a capability list before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what `Display` prints")]
#[non_exhaustive]
pub enum CapabilityError {
    /// An entry links to one that came before it, or to itself.
    Loop { address: PciAddress, offset: u16 },
    /// An entry or the header links to somewhere that is no place for one.
    OutOfRange { address: PciAddress, offset: u16 },
    /// The entry reads as all ones: the function no longer answers.
    Gone { address: PciAddress, offset: u16 },
}

impl fmt::Display for CapabilityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Loop { address, offset } => {
                write!(
                    f,
                    "the capability list of {address} comes back to offset {offset:#05x}"
                )
            }
            Self::OutOfRange { address, offset } => {
                write!(
                    f,
                    "the capability list of {address} leads to offset {offset:#05x}, outside of it"
                )
            }
            Self::Gone { address, offset } => {
                write!(
                    f,
                    "the capability of {address} at offset {offset:#05x} reads as all ones"
                )
            }
        }
    }
}

impl core::error::Error for CapabilityError {}

/// Iterator over one of the lists.
#[derive(Clone)]
pub struct Capabilities<'c, C: ?Sized> {
    config: &'c C,
    address: PciAddress,
    list: List,
    /// The next entry's offset; 0 at the end.
    next: u16,
    /// A bit for each dword of the 4 KiB that an entry began in.
    visited: [u64; 16],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Standard,
    Extended,
}

/// The standard list (PCI 3.0, 6.7), in configuration space's first 256 bytes.
pub fn standard<C: ConfigSpace + ?Sized>(config: &C, address: PciAddress) -> Capabilities<'_, C> {
    let status = config.read16(address, registers::COMMAND + 2);
    let header = config.read8(address, registers::HEADER_TYPE + 2) & 0x7f;
    let next = if status == 0xffff || status & STATUS_CAPABILITY_LIST == 0 {
        0
    } else if header == 2 {
        config.read8(address, registers::CARDBUS_CAPABILITIES)
    } else {
        config.read8(address, registers::CAPABILITIES)
    };
    Capabilities::new(config, address, List::Standard, u16::from(next))
}

/// The first capability of the standard list with this ID; `None` if there is
/// none.
///
/// # Errors
///
/// [`CapabilityError`] if the list breaks off before one is found.
pub fn find(
    config: &(impl ConfigSpace + ?Sized),
    address: PciAddress,
    id: u16,
) -> Result<Option<Capability>, CapabilityError> {
    standard(config, address)
        .find(|entry| entry.map_or(true, |capability| capability.id == id))
        .transpose()
}

/// The extended list (PCI Express 7.6) from offset 0x100; empty where the
/// mechanism does not reach it.
///
/// Only a PCI Express function has one. A conventional function reads there as
/// all ones or zeros, and its list is empty as well.
pub fn extended<C: ConfigSpace + ?Sized>(config: &C, address: PciAddress) -> Capabilities<'_, C> {
    let first = if config.size() > 0x100 {
        config.read32(address, 0x100)
    } else {
        0
    };
    let next = if first == 0 || first == !0 { 0 } else { 0x100 };
    Capabilities::new(config, address, List::Extended, next)
}

impl<'c, C: ConfigSpace + ?Sized> Capabilities<'c, C> {
    fn new(config: &'c C, address: PciAddress, list: List, next: u16) -> Self {
        Self {
            config,
            address,
            list,
            next,
            visited: [0; 16],
        }
    }
}

impl<C: ConfigSpace + ?Sized> Iterator for Capabilities<'_, C> {
    type Item = Result<Capability, CapabilityError>;

    fn next(&mut self) -> Option<Self::Item> {
        // The two low bits of a link are reserved.
        let offset = core::mem::take(&mut self.next) & !3;
        if offset == 0 {
            return None;
        }
        let address = self.address;
        let (first, end) = match self.list {
            List::Standard => (0x40, 0x100),
            List::Extended => (0x100, self.config.size()),
        };
        if offset < first || offset >= end {
            return Some(Err(CapabilityError::OutOfRange { address, offset }));
        }
        let (word, bit) = (usize::from(offset / 256), 1 << (offset / 4 % 64));
        if self.visited[word] & bit != 0 {
            return Some(Err(CapabilityError::Loop { address, offset }));
        }
        self.visited[word] |= bit;
        let header = self.config.read32(address, offset);
        if header == !0 {
            return Some(Err(CapabilityError::Gone { address, offset }));
        }
        let (id, version, next) = match self.list {
            List::Standard => (header & 0xff, 0, header >> 8 & 0xff),
            List::Extended => (header & 0xffff, header >> 16 & 0xf, header >> 20),
        };
        self.next = next as u16;
        Some(Ok(Capability {
            id: id as u16,
            version: version as u8,
            offset,
            end,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::pci::fake::{FakeFunction, FakePci};

    const ADDRESS: fn() -> PciAddress = || PciAddress::new(0, 0, 1, 0);

    fn machine(function: FakeFunction) -> FakePci {
        FakePci::new().with(1, 0, function)
    }

    #[test]
    fn each_capability_is_listed_once_in_the_lists_order() {
        let function = FakeFunction::endpoint(1, 2)
            .capability(9, &[8, 1, 2, 3, 4, 5])
            .capability(0x11, &[]);
        let pci = machine(function);
        let list: Result<Vec<_>, _> = standard(&pci, ADDRESS()).collect();
        let list = list.unwrap();
        let heads: Vec<_> = list.iter().map(|entry| (entry.id, entry.offset)).collect();
        assert_eq!(heads, [(9, 0x40), (0x11, 0x48)]);
        assert_eq!(list[0].read8(&pci, ADDRESS(), 3), Some(1));
        assert_eq!(list[0].read16(&pci, ADDRESS(), 4), Some(0x0302));
        assert_eq!(list[0].read16(&pci, ADDRESS(), 3), None, "not aligned");
        assert_eq!(list[0].read32(&pci, ADDRESS(), 0xbc), Some(0));
        assert_eq!(
            list[0].read32(&pci, ADDRESS(), 0xc0),
            None,
            "beyond 256 bytes"
        );
        assert_eq!(list[0].read8(&pci, ADDRESS(), u16::MAX), None);
    }

    #[test]
    fn a_list_without_a_status_bit_is_empty() {
        let function = FakeFunction::endpoint(1, 2)
            .register(0x34, 0x40)
            .register(0x40, 0x11);
        assert_eq!(standard(&machine(function), ADDRESS()).count(), 0);
        assert_eq!(
            standard(&FakePci::new(), ADDRESS()).count(),
            0,
            "nobody answers"
        );
    }

    #[test]
    fn a_loop_ends_with_an_error_that_names_the_offset() {
        let function = FakeFunction::endpoint(1, 2)
            .capability(9, &[])
            .capability(0x11, &[])
            .register(0x44, 0x0000_4011);
        let list: Vec<_> = standard(&machine(function), ADDRESS()).collect();
        assert_eq!(list.len(), 3);
        let error = list[2].unwrap_err();
        assert_eq!(
            std::format!("{error}"),
            "the capability list of 0000:00:01.0 comes back to offset 0x040"
        );
    }

    #[test]
    fn links_out_of_the_list_and_ones_are_errors() {
        let pci = machine(
            FakeFunction::endpoint(1, 2)
                .capability(9, &[])
                .register(0x40, 0x1009),
        );
        let last = standard(&pci, ADDRESS()).last().unwrap();
        assert_eq!(
            last,
            Err(CapabilityError::OutOfRange {
                address: ADDRESS(),
                offset: 0x10
            })
        );
        let pci = machine(
            FakeFunction::endpoint(1, 2)
                .capability(9, &[])
                .register(0x40, !0),
        );
        let last = standard(&pci, ADDRESS()).last().unwrap();
        assert_eq!(
            last,
            Err(CapabilityError::Gone {
                address: ADDRESS(),
                offset: 0x40
            })
        );
    }

    #[test]
    fn the_longest_lists_end() {
        // Each dword links to the next: 48 entries, and the last leads to 0.
        let mut function = FakeFunction::endpoint(1, 2).capability(1, &[]);
        for offset in (0x40..0x100u16).step_by(4) {
            function = function.register(offset, u32::from((offset + 4) & 0xff) << 8 | 1);
        }
        for offset in (0x100..0x1000u16).step_by(4) {
            function = function.register(offset, u32::from((offset + 4) & 0xfff) << 20 | 0x1_0003);
        }
        let pci = machine(function);
        assert_eq!(
            standard(&pci, ADDRESS())
                .filter(|entry| entry.is_ok())
                .count(),
            48
        );
        let list: Vec<_> = extended(&pci, ADDRESS()).collect();
        assert_eq!(list.len(), 960);
        let first = list[0].unwrap();
        assert_eq!((first.id, first.version, first.offset), (3, 1, 0x100));
        assert_eq!(first.register(0xefc, 4), Some(0xffc));
    }

    #[test]
    fn an_extended_list_that_loops_ends() {
        let function = FakeFunction::endpoint(1, 2).register(0x100, 0x1001_0003);
        let list: Vec<_> = extended(&machine(function), ADDRESS()).collect();
        assert_eq!(
            list[1],
            Err(CapabilityError::Loop {
                address: ADDRESS(),
                offset: 0x100
            })
        );
        assert_eq!(list.len(), 2);
    }
}
