//! PCI and PCI Express: configuration space, discovery, and the assignment of
//! what firmware left unassigned.
//!
//! - [`config`]: the [`ConfigSpace`] trait; [`ecam`] and [`cam`] implement it.
//! - [`enumerate`]: the [`Topology`], a list of each [`Function`] with its
//!   [`Bar`]s and windows, in the caller's storage.
//! - [`resources`]: bus numbers ([`number_buses`]), then windows and BARs
//!   ([`assign`]).
//! - [`capabilities`]: both capability lists, bounded.
//! - [`msix`]: a function's message-signalled interrupts.
//! - [`hotplug`]: a PCI Express port's slot, which devices come and go by.

pub mod bars;
pub mod bridge;
pub mod cam;
pub mod capabilities;
pub mod config;
pub mod ecam;
pub mod enumerate;
#[cfg(any(test, feature = "test-utils"))]
pub mod fake;
pub mod function;
pub mod hotplug;
pub mod msix;
pub mod range;
mod registers;
pub mod resources;
pub mod unassigned;
mod walk;

pub use bars::{Bar, BarKind};
pub use bridge::{Bridge, Window, WindowKind, WindowWidth};
pub use cam::Cam;
pub use capabilities::{Capability, CapabilityError};
pub use config::ConfigSpace;
pub use ecam::{Ecam, EcamError, EcamWindow};
pub use enumerate::{StorageTooSmall, Topology, count};
pub use function::{Function, Header, PortType};
pub use hotplug::{Slot, SlotError, SlotEvents};
pub use msix::{Message, MsiX, MsiXError};
pub use pci_types::{CommandRegister, ConfigRegionAccess, PciAddress};
pub use range::{AddressRange, Bytes};
pub use resources::{Apertures, Assignment, BusNumbers, assign, number_buses};
pub use unassigned::{Space, Unassigned, Unnumbered};
pub use walk::BusRange;
