//! What drivers of different times ask of a PCI device before they touch its registers.
//!
//! - In 2013 Linux's `virtio_pci` took device IDs 0x1000 to 0x103F and revision 0 (its
//!   ABI version). `pci_enable_device` refused a device of which any BAR, used or not,
//!   had no address. The registers are in BAR 0, "in the first I/O region" (4.1.4.10);
//!   Linux itself would have mapped one in memory as well, which no device had.
//! - A modern driver goes by the capabilities (virtio 1.2, 4.1.4), for both ranges of IDs
//!   and any revision (4.1.2.2). Of several notification structures it takes the first
//!   that it can use.
//! - Since Linux 4.0 a driver does both: the modern interface if there is one, or else
//!   the legacy one, by the same rules as before, but with BAR 0 alone in its hands.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use doorbell::pci::{Bar, BarKind, CapabilityError, Function};
use doorbell::transport::Interface;
use doorbell::transport::pci::{NotifyStructure, PciError, Structures, assigned};

/// The revision of a device that a legacy driver knows.
const ABI_VERSION: u8 = 0;
/// The device IDs that a legacy driver knows.
const LEGACY_IDS: core::ops::RangeInclusive<u16> = 0x1000..=0x103f;

/// A guest's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A guest of 2013.
    Legacy2013,
    /// The modern interface only.
    Modern,
    /// The modern interface if there is one, else the legacy one.
    Dual,
}

/// An interface on PCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// The legacy one.
    Legacy,
    /// That of virtio 1.0 and later.
    Modern,
}

impl Face {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

impl Policy {
    /// All policies.
    pub const ALL: [Self; 3] = [Self::Legacy2013, Self::Modern, Self::Dual];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Legacy2013 => "legacy-2013",
            Self::Modern => "modern",
            Self::Dual => "dual",
        }
    }

    /// The one of this name.
    ///
    /// # Errors
    ///
    /// A sentence with the names there are.
    pub fn parse(name: Option<&str>) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        let known = all.find(|known| name == Some(known.name()));
        known.ok_or_else(|| "it wants legacy-2013, modern or dual".to_string())
    }

    /// The interfaces on PCI that it tries, in order.
    pub fn faces(self) -> &'static [Face] {
        match self {
            Self::Legacy2013 => &[Face::Legacy],
            Self::Modern => &[Face::Modern],
            Self::Dual => &[Face::Modern, Face::Legacy],
        }
    }

    /// Whether it takes a virtio-mmio device of this version: until Linux 4.0 there was
    /// version 1 alone.
    ///
    /// # Errors
    ///
    /// [`Obstacle::MmioVersion`].
    pub fn takes_mmio(self, interface: Interface) -> Result<(), Obstacle> {
        let wanted = match self {
            Self::Legacy2013 => Interface::MmioV1,
            Self::Modern => Interface::MmioV2,
            Self::Dual => return Ok(()),
        };
        match interface == wanted {
            true => Ok(()),
            false => Err(Obstacle::MmioVersion { interface }),
        }
    }

    /// Whether it takes a function's legacy interface.
    ///
    /// # Errors
    ///
    /// The first [`Obstacle`].
    pub fn takes_legacy(self, function: &Function) -> Result<(), Obstacle> {
        if !LEGACY_IDS.contains(&function.device) {
            return Err(Obstacle::DeviceId(function.device));
        }
        if function.revision != ABI_VERSION {
            return Err(Obstacle::Revision(function.revision));
        }
        let bar = function.bars[0].ok_or(Obstacle::NoBar0)?;
        if bar.kind != BarKind::Io {
            return Err(Obstacle::Bar0InMemory);
        }
        let needed = if self == Self::Legacy2013 { 6 } else { 1 };
        let mut needed = function.bars[..needed].iter().flatten();
        match needed.find(|bar| bar.address.is_none()) {
            None => Ok(()),
            Some(bar) => Err(Obstacle::Unassigned {
                io: bar.kind == BarKind::Io,
                error: PciError::Unassigned {
                    bar: bar.index,
                    reason: bar.reason,
                },
            }),
        }
    }
}

/// The interfaces that a function has, whether or not they can be used.
pub fn offers(function: &Function, structures: Option<&Structures>) -> Vec<Face> {
    let in_io = |bar: Option<Bar>| bar.is_some_and(|bar| bar.kind == BarKind::Io);
    let legacy = LEGACY_IDS.contains(&function.device) && in_io(function.bars[0]);
    let modern = structures.is_some_and(|own| own.common.is_some());
    let both = [(Face::Legacy, legacy), (Face::Modern, modern)];
    let has = both.into_iter().filter(|(_, has)| *has);
    has.map(|(face, _)| face).collect()
}

/// A notification structure that a device offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Where it lies.
    pub notify: NotifyStructure,
    /// Whether it can be used; if not, why.
    pub usable: Result<(), Obstacle>,
}

/// Whether a modern driver takes a function's structures: the notification structures in
/// the device's order, each with what makes it useless, if anything does. `io` is whether
/// IO accesses reach the function.
///
/// # Errors
///
/// The first [`Obstacle`] before that.
pub fn doorbells(
    function: &Function,
    structures: &Structures,
    io: bool,
) -> Result<Vec<Offered>, Obstacle> {
    let common = structures.common.ok_or(Obstacle::NoCapabilities)?;
    let missing = |kind| Obstacle::Pci(PciError::NoStructure { kind });
    let isr = structures.isr.ok_or(missing("ISR status"))?;
    let reaches = |bar, in_io| match assigned(function, bar, in_io) {
        Ok(_) if in_io && !io => Err(Obstacle::IoOff),
        Ok(_) => Ok(()),
        Err(error @ PciError::Unassigned { .. }) => Err(Obstacle::Unassigned { io: in_io, error }),
        Err(error) => Err(Obstacle::Pci(error)),
    };
    let needed = [Some(common), Some(isr), structures.device];
    for structure in needed.into_iter().flatten() {
        reaches(structure.bar, false)?;
    }
    let offered = structures.notify().map(|notify| Offered {
        notify,
        usable: reaches(notify.at.bar, notify.io),
    });
    Ok(offered.collect())
}

/// What stops a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A legacy driver does not know the device ID.
    DeviceId(u16),
    /// Or the revision.
    Revision(u8),
    /// There is no BAR 0.
    NoBar0,
    /// BAR 0 is in memory.
    Bar0InMemory,
    /// A BAR that is needed has no address; `io` if it is in IO space.
    Unassigned {
        /// Whether it is in IO space.
        io: bool,
        /// Which one, and why.
        error: PciError,
    },
    /// IO decoding is off.
    IoOff,
    /// Nothing answers: registers read as all ones. `io_off` if IO decoding is, and they
    /// are in IO space.
    NoAnswer {
        /// Whether that explains it.
        io_off: bool,
    },
    /// There are no virtio capabilities.
    NoCapabilities,
    /// The capability list is broken.
    Capabilities(CapabilityError),
    /// No notification structure is usable.
    NoDoorbell,
    /// A structure is missing.
    Pci(PciError),
    /// virtio-mmio of a version that the policy does not know.
    MmioVersion {
        /// The version.
        interface: Interface,
    },
    /// This kernel has no driver for such a device.
    NoDriver,
    /// It is in use, by whom the sentence says.
    InUse(String),
    /// The device was taken, and did not work.
    Failed(String),
}

impl Obstacle {
    /// Whether the device broke a promise: it does not do what its registers say.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::NoAnswer { io_off: false })
    }

    /// Its name in records.
    pub fn code(&self) -> &'static str {
        match self {
            Self::DeviceId(_) => "device-id",
            Self::Revision(_) => "revision",
            Self::NoBar0 => "no-bar0",
            Self::Bar0InMemory => "bar0-in-memory",
            Self::Unassigned { io: true, .. } => "no-io-address",
            Self::Unassigned { io: false, .. } => "no-memory-address",
            Self::IoOff | Self::NoAnswer { io_off: true } => "io-off",
            Self::NoAnswer { io_off: false } => "no-answer",
            Self::NoCapabilities => "no-capabilities",
            Self::Capabilities(_) => "bad-capabilities",
            Self::NoDoorbell => "no-doorbell",
            Self::Pci(_) => "bad-structure",
            Self::MmioVersion { .. } => "mmio-version",
            Self::NoDriver => "no-driver",
            Self::InUse(_) => "in-use",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceId(id) => write!(
                f,
                "device ID {id:#06x} is not in {:#06x}-{:#06x}",
                LEGACY_IDS.start(),
                LEGACY_IDS.end()
            ),
            Self::Revision(revision) => write!(f, "revision {revision}, not {ABI_VERSION}"),
            Self::NoBar0 => f.write_str("there is no BAR0"),
            Self::Bar0InMemory => f.write_str("BAR0 is not an IO BAR"),
            Self::Unassigned { error, .. } => error.fmt(f),
            Self::IoOff => f.write_str("IO decoding is off"),
            Self::NoAnswer { io_off: true } => {
                f.write_str("IO decoding is off: the registers read as all ones, no device answers")
            }
            Self::NoAnswer { io_off: false } => {
                f.write_str("the registers read as all ones: no device answers")
            }
            Self::NoCapabilities => f.write_str("there are no virtio capabilities"),
            Self::Capabilities(error) => error.fmt(f),
            Self::NoDoorbell => f.write_str("no notification structure is usable"),
            Self::Pci(error) => error.fmt(f),
            Self::MmioVersion { interface } => write!(f, "it is {interface}"),
            Self::NoDriver => f.write_str("this version has no driver for it"),
            Self::InUse(reason) | Self::Failed(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests;
