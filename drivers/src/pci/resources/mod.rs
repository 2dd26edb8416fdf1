//! Assignment of what firmware left unassigned: bus numbers, then the windows of
//! bridges and the BARs.
//!
//! - `walk` (beside this folder) numbers buses while it follows the bridges.
//! - `plan` works out all addresses on the table of functions; `items` says what
//!   needs addresses, `free` what is free, `decode` what is switched on.
//! - `write` puts the plan into the registers.

mod decode;
mod free;
mod items;
mod plan;
#[cfg(test)]
mod tests;
mod write;

use super::config::ConfigSpace;
use super::enumerate::Topology;
use super::range::AddressRange;
use super::walk::{BusRange, Followed, Numbering, Walk};

/// What PCI may use of the machine's address spaces, with everything taken out
/// that something else answers to.
#[derive(Clone, Copy, Debug)]
pub struct Apertures<'a> {
    /// IO ports.
    pub io: &'a [AddressRange],
    /// Memory below 4 GiB.
    pub mem32: &'a [AddressRange],
    /// Memory from 4 GiB up.
    pub mem64: &'a [AddressRange],
}

/// What [`number_buses`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusNumbers {
    /// Bridges that kept their numbers.
    pub kept: usize,
    /// Bridges that were given numbers.
    pub assigned: usize,
    /// Bridges for which there was no number left.
    pub without: usize,
}

/// What [`assign`] did, counted in BARs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// BARs that kept their address.
    pub kept: usize,
    /// BARs that were given one.
    pub assigned: usize,
    /// BARs that have none; each says why.
    pub without: usize,
}

/// Gives bus numbers to the bridges that have none of their own, within the
/// ranges of `roots`; the others keep theirs. Some firmware (qboot) numbers the
/// bridges on the root bus alone, and leaves no numbers for those behind: where
/// one remains without, all bridges of its root are numbered anew. A bridge for
/// which there is no number even so is closed, and [`Topology::enumerate`] will
/// say so.
///
/// # Safety
///
/// Configuration space is the caller's, and nobody uses a function behind a
/// bridge.
pub unsafe fn number_buses(config: &(impl ConfigSpace + ?Sized), roots: &[BusRange]) -> BusNumbers {
    let mut numbers = BusNumbers::default();
    for root in roots {
        // SAFETY: the caller's promise.
        let mut of_root = unsafe { number_root(config, *root, Numbering::Assign) };
        if of_root.kept > 0 && of_root.without > 0 {
            // SAFETY: as above.
            of_root = unsafe { number_root(config, *root, Numbering::Renew) };
        }
        numbers.kept += of_root.kept;
        numbers.assigned += of_root.assigned;
        numbers.without += of_root.without;
    }
    numbers
}

/// # Safety
///
/// As for [`number_buses`].
unsafe fn number_root(
    config: &(impl ConfigSpace + ?Sized),
    root: BusRange,
    numbering: Numbering,
) -> BusNumbers {
    let mut numbers = BusNumbers::default();
    // SAFETY: the caller's promise.
    let walk = unsafe { Walk::new(config, root, numbering, 0) };
    for bridge in walk.filter_map(|found| found.bridge) {
        match bridge {
            Followed::Kept => numbers.kept += 1,
            Followed::Assigned => numbers.assigned += 1,
            Followed::Not(_) => numbers.without += 1,
        }
    }
    numbers
}

/// Gives addresses out of `apertures` to the BARs that have none, and to the
/// windows that lead to them. What has a valid address keeps it. As many BARs as
/// fit get one; each of the others says why not.
///
/// Afterwards a function decodes memory or IO if all of its BARs there have an
/// address, and bridges forward what their windows hold. A function that was
/// switched on for it may also access memory (bus master), as its driver will
/// want.
///
/// With what is left, empty slots that support hot-plug get windows of 2 MiB for a
/// device to come. One of IO, or a larger one, is opened once such a device is
/// there ([`Topology::rescan`]), if it can be had then. Behind a switch it cannot,
/// where the switch's own windows are in use and full.
///
/// # Safety
///
/// Configuration space is the caller's, nobody uses a function, and nothing but
/// PCI answers to the addresses in `apertures`. After [`Topology::rescan`] those
/// that were known may be in use; but a bridge forwards nothing while its windows
/// change, so nobody accesses one of them now that has a bridge above it which a
/// new function or an empty slot has above it too.
pub unsafe fn assign(
    config: &(impl ConfigSpace + ?Sized),
    topology: &mut Topology<'_>,
    apertures: &Apertures<'_>,
) -> Assignment {
    plan::plan(topology.functions, apertures);
    // SAFETY: the caller's promise; the plan gives each address once.
    unsafe { write::write(config, topology.functions) };
    let mut assignment = Assignment::default();
    for function in topology.functions.iter() {
        for bar in function.bars.iter().flatten() {
            *match bar.address {
                None => &mut assignment.without,
                Some(_) if function.assigned & 1 << bar.index != 0 => &mut assignment.assigned,
                Some(_) => &mut assignment.kept,
            } += 1;
        }
    }
    assignment
}
