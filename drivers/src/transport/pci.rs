//! What both PCI interfaces share: which function is a virtio device, and where
//! its structures are (virtio 1.2, 4.1.2 and 4.1.4).

use core::fmt;

use pci_types::capability::PciCapabilityAddress;
use virtio_spec::pci::{CapCfgType, CapData};

use crate::mmio::MapError;
use crate::pci::capabilities::{self, CapabilityError, VENDOR_SPECIFIC};
use crate::pci::{Bar, BarKind, ConfigSpace, Function, Unassigned};
use crate::port::{IoRegion, IoSpace};
use crate::transport::TransportError;

/// The vendor ID of virtio devices.
const VENDOR: u16 = 0x1af4;

/// Transitional device IDs: such a device has a legacy interface, and its type
/// in the subsystem device ID.
const TRANSITIONAL: core::ops::RangeInclusive<u16> = 0x1000..=0x103f;

/// Device IDs that are 0x1040 + the device type.
const MODERN: core::ops::RangeInclusive<u16> = 0x1040..=0x107f;

/// The virtio device type of a PCI function; `None` if it is no virtio device.
/// Both ID ranges count, and any revision (4.1.2.2).
pub fn device_type(function: &Function) -> Option<u16> {
    match function.device {
        _ if function.vendor != VENDOR => None,
        id if MODERN.contains(&id) => Some(id - MODERN.start()),
        id if TRANSITIONAL.contains(&id) => Some(function.subsystem_device),
        _ => None,
    }
}

/// Whether the function's ID says that it may have a legacy interface (4.1.2.3).
pub fn is_transitional(function: &Function) -> bool {
    function.vendor == VENDOR && TRANSITIONAL.contains(&function.device)
}

/// Where a structure lies: a part of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Index of the BAR, 0 to 5.
    pub bar: u8,
    /// Offset in the BAR, in bytes.
    pub offset: u32,
    /// Length in bytes.
    pub length: u32,
}

/// A notification structure (4.1.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyStructure {
    /// Where it lies.
    pub at: Structure,
    /// What a queue's `queue_notify_off` is multiplied by, in bytes.
    pub multiplier: u32,
    /// Whether the BAR is in IO space.
    pub io: bool,
}

/// How many notification structures are remembered. Devices have one, or two
/// with one in IO space.
const MAX_NOTIFY: usize = 4;

/// Where a device's structures are, by its capability list.
#[derive(Clone, Copy, Debug)]
pub struct Structures {
    /// Common configuration (4.1.4.3).
    pub common: Option<Structure>,
    /// ISR status (4.1.4.5).
    pub isr: Option<Structure>,
    /// Device-specific configuration (4.1.4.6).
    pub device: Option<Structure>,
    /// Offset in configuration space of the configuration access capability
    /// (4.1.4.9).
    pub window: Option<u16>,
    notify: [Option<NotifyStructure>; MAX_NOTIFY],
}

impl Structures {
    /// Reads the capability list of `function`. Of each kind the first
    /// structure that is usable counts (4.1.4.1); for notification all are kept,
    /// in the device's order of preference. Reserved kinds and BARs, and
    /// structures in a BAR that does not exist or is too short, are passed over.
    ///
    /// # Errors
    ///
    /// [`CapabilityError`] if the list is broken.
    pub fn read<C: ConfigSpace + ?Sized>(
        config: &C,
        function: &Function,
    ) -> Result<Self, CapabilityError> {
        let mut structures = Self {
            common: None,
            isr: None,
            device: None,
            window: None,
            notify: [None; MAX_NOTIFY],
        };
        for capability in capabilities::standard(config, function.address) {
            let capability = capability?;
            if capability.id != VENDOR_SPECIFIC {
                continue;
            }
            let at = PciCapabilityAddress {
                address: function.address,
                offset: capability.offset,
            };
            if let Some(data) = CapData::read(at, config) {
                structures.add(function, capability.offset, &data);
            }
        }
        Ok(structures)
    }

    fn add(&mut self, function: &Function, offset: u16, data: &CapData) {
        if data.cfg_type == CapCfgType::Pci {
            self.window.get_or_insert(offset);
            return;
        }
        // These are 32 bits in all capabilities but the 64-bit ones, which none
        // of the structures below has.
        let (Ok(start), Ok(length)) = (
            u32::try_from(u64::from(data.offset)),
            u32::try_from(u64::from(data.length)),
        ) else {
            return;
        };
        let at = Structure {
            bar: data.bar,
            offset: start,
            length,
        };
        let Some(bar) = function
            .bars
            .get(usize::from(at.bar))
            .and_then(Option::as_ref)
        else {
            return;
        };
        if u64::from(at.offset) + u64::from(at.length) > bar.size {
            return;
        }
        let io = bar.kind == BarKind::Io;
        match data.cfg_type {
            // An ISR or configuration structure in IO space is allowed, but no
            // known device has one; this driver wants memory.
            CapCfgType::Common if !io => drop(self.common.get_or_insert(at)),
            CapCfgType::Isr if !io => drop(self.isr.get_or_insert(at)),
            CapCfgType::Device if !io => drop(self.device.get_or_insert(at)),
            CapCfgType::Notify => {
                let multiplier = data.notify_off_multiplier.map_or(0, u32::from);
                if let Some(slot) = self.notify.iter_mut().find(|slot| slot.is_none()) {
                    *slot = Some(NotifyStructure { at, multiplier, io });
                }
            }
            _ => {}
        }
    }

    /// The notification structures, in the device's order of preference.
    pub fn notify(&self) -> impl Iterator<Item = NotifyStructure> {
        self.notify.into_iter().flatten()
    }
}

/// The BAR with this index, if it is in IO space or not as `io` says, and its
/// address.
///
/// # Errors
///
/// [`PciError`] if there is no such BAR, or it has no address.
pub fn assigned(function: &Function, index: u8, io: bool) -> Result<(Bar, u64), PciError> {
    let bar = function.bars.get(usize::from(index)).copied().flatten();
    let bar = bar
        .filter(|bar| (bar.kind == BarKind::Io) == io)
        .ok_or(PciError::NoBar { bar: index })?;
    let address = bar.address.ok_or(PciError::Unassigned {
        bar: index,
        reason: bar.reason,
    })?;
    Ok((bar, address))
}

/// The ports of a structure that lies in an IO BAR, which has to hold all of it.
///
/// # Errors
///
/// [`PciError`] if the BAR is not one, has no address, or does not hold it.
///
/// # Safety
///
/// The function is the caller's, and its BARs are as `function` says.
pub unsafe fn ports<S: IoSpace>(
    function: &Function,
    at: Structure,
    kind: &'static str,
    io: S,
) -> Result<IoRegion<S>, PciError> {
    let (bar, address) = assigned(function, at.bar, true)?;
    let malformed = PciError::Malformed { kind, at };
    if u64::from(at.offset) + u64::from(at.length) > bar.size {
        return Err(malformed);
    }
    let base = u16::try_from(address + u64::from(at.offset)).map_err(|_| malformed)?;
    let len = u16::try_from(at.length).map_err(|_| malformed)?;
    // SAFETY: inside a BAR of a function that is the caller's.
    unsafe { IoRegion::new(io, base, len) }.ok_or(malformed)
}

/// Why a PCI function cannot be driven by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PciError {
    /// The function is no virtio device.
    NotVirtio {
        /// Its vendor ID.
        vendor: u16,
        /// Its device ID.
        device: u16,
    },
    /// The device has no legacy interface.
    NotTransitional {
        /// Its vendor ID.
        vendor: u16,
        /// Its device ID.
        device: u16,
    },
    /// The device has no such structure, or none that is usable.
    NoStructure {
        /// Which one, by the specification's name.
        kind: &'static str,
    },
    /// A BAR that is needed does not exist or is of the wrong kind.
    NoBar {
        /// Its index.
        bar: u8,
    },
    /// A BAR that is needed has no address.
    Unassigned {
        /// Its index.
        bar: u8,
        /// Why not.
        reason: Option<Unassigned>,
    },
    /// A structure is too short for what it holds, or misaligned.
    Malformed {
        /// Which one, by the specification's name.
        kind: &'static str,
        /// Where it lies.
        at: Structure,
    },
    /// The chosen notification structure does not exist.
    NoNotify {
        /// What was chosen, and what there is instead.
        wanted: &'static str,
    },
    /// The capability list is broken.
    Capabilities(CapabilityError),
    /// A BAR could not be mapped.
    Map(MapError),
    /// The registers are not as they have to be.
    Transport(TransportError),
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotVirtio { vendor, device } => {
                write!(f, "{vendor:04x}:{device:04x} is no virtio device")
            }
            Self::NotTransitional { vendor, device } => write!(
                f,
                "{vendor:04x}:{device:04x} is not transitional: it has no legacy interface"
            ),
            Self::NoStructure { kind } => write!(f, "the device has no usable {kind}"),
            Self::NoBar { bar } => write!(f, "BAR{bar} is not there, or not of the kind needed"),
            Self::Unassigned { bar, reason: None } => write!(f, "BAR{bar} has no address"),
            Self::Unassigned {
                bar,
                reason: Some(reason),
            } => write!(f, "BAR{bar} has no address: {reason}"),
            Self::Malformed { kind, at } => write!(
                f,
                "{kind} at BAR{}+{:#x}, {} bytes, is too short or misaligned",
                at.bar, at.offset, at.length
            ),
            Self::NoNotify { wanted } => {
                write!(f, "the device has no doorbell of the kind {wanted}")
            }
            Self::Capabilities(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PciError {}

impl From<CapabilityError> for PciError {
    fn from(error: CapabilityError) -> Self {
        Self::Capabilities(error)
    }
}

impl From<TransportError> for PciError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl From<MapError> for PciError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

#[cfg(test)]
pub(crate) mod tests;
