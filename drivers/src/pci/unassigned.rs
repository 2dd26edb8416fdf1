//! Why a BAR has no address, and a bridge no bus.

use core::fmt;

use pci_types::PciAddress;

use super::range::{AddressRange, Bytes};

/// What an address is an address of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// IO ports.
    Io,
    /// Memory.
    Memory,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "IO",
            Self::Memory => "memory",
        })
    }
}

/// Why a BAR has no address. Sizes are in bytes or ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what `Display` prints")]
#[non_exhaustive]
pub enum Unassigned {
    /// Its register holds no address that could be its own, and nobody assigned
    /// one since: [`assign`](super::assign) did not run.
    Unset { raw: u64 },
    /// The machine gives PCI none of that space.
    NoAperture { space: Space, size: u64 },
    /// Nothing free in `within` is large enough for it.
    NoSpace {
        space: Space,
        size: u64,
        within: AddressRange,
    },
    /// A bridge on the way needs a window of `size` with it, for which nothing
    /// free in `within` (a window of the bridge `of`, or the root's apertures) is
    /// large enough.
    NoWindowSpace {
        space: Space,
        size: u64,
        bridge: PciAddress,
        within: AddressRange,
        of: Option<PciAddress>,
    },
    /// It does not fit into what is free of its bridge's window, which holds
    /// others that keep their place.
    WindowFull {
        space: Space,
        size: u64,
        bridge: PciAddress,
        window: AddressRange,
    },
    /// A bridge on the way does not forward that space.
    NoWindow { space: Space, bridge: PciAddress },
    /// The function decodes all of its BARs of a space or none, and another one,
    /// `because`, has no address.
    DecodingOff { space: Space, because: u8 },
    /// Bits 1 and 2 of the register are a memory type that PCI reserves.
    ReservedType { bits: u8 },
    /// The bits that can be written do not make a size that is a power of two.
    BadSize { mask: u64 },
    /// It is 64 bits wide, in the last register.
    NoUpperHalf { index: u8 },
}

impl fmt::Display for Unassigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unset { raw: 0 } => f.write_str("not assigned"),
            Self::Unset { raw } => write!(f, "not assigned: {raw:#x} is no address for it"),
            Self::NoAperture { space, size } => {
                write!(
                    f,
                    "no {space} space: PCI has none here, and it needs {}",
                    Bytes(size)
                )
            }
            Self::NoSpace {
                space,
                size,
                within,
            } => {
                write!(
                    f,
                    "no {space} space left: {} do not fit in {within}",
                    Bytes(size)
                )
            }
            Self::NoWindowSpace {
                space,
                size,
                bridge,
                within,
                of,
            } => {
                write!(
                    f,
                    "no {space} space left: {} window for bridge {bridge} does not fit in {within}",
                    Bytes(size)
                )?;
                match of {
                    Some(of) => write!(f, ", the window of bridge {of}"),
                    None => Ok(()),
                }
            }
            Self::WindowFull {
                space,
                size,
                bridge,
                window,
            } => write!(
                f,
                "no {space} space left: {} do not fit in the window {window} of bridge {bridge}",
                Bytes(size)
            ),
            Self::NoWindow { space, bridge } => {
                write!(f, "no {space} space: bridge {bridge} does not forward any")
            }
            Self::DecodingOff { space, because } => {
                write!(
                    f,
                    "{space} decoding is off, because BAR {because} has no address"
                )
            }
            Self::ReservedType { bits } => {
                write!(f, "its memory type {bits:#04b} is reserved")
            }
            Self::BadSize { mask } => {
                write!(
                    f,
                    "its size is no power of two: bits {mask:#x} can be written"
                )
            }
            Self::NoUpperHalf { index } => {
                write!(
                    f,
                    "it is 64 bits wide, and there is no register after BAR {index}"
                )
            }
        }
    }
}

/// Why the buses behind a bridge were not searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unnumbered {
    /// Its bus numbers are unset, or not its own: outside of the numbers that
    /// lead to it, or taken by another bridge.
    Invalid {
        /// The secondary bus number.
        secondary: u8,
        /// The subordinate bus number.
        subordinate: u8,
    },
    /// There is no number left for its secondary bus.
    NoneLeft {
        /// The bus it is on; the numbers after it...
        bus: u8,
        /// ...up to this one lead to it, and are all taken.
        last: u8,
    },
}

impl fmt::Display for Unnumbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Invalid {
                secondary,
                subordinate,
            } => write!(
                f,
                "bus numbers {secondary:#04x}-{subordinate:#04x} are not its own or unset"
            ),
            Self::NoneLeft { bus, last } if bus >= last => {
                write!(f, "no bus number left: none after {bus:#04x} leads to it")
            }
            Self::NoneLeft { bus, last } => {
                write!(f, "no bus number left in {:#04x}-{last:#04x}", bus + 1)
            }
        }
    }
}
