//! Which functions there are.

use core::fmt;
use core::ops::Range;

use pci_types::PciAddress;

use super::config::ConfigSpace;
use super::function::Function;
use super::walk::{BusRange, Followed, Numbering, Walk};

/// The functions of a machine, each after the bridge that leads to it, in
/// storage that the caller gives.
#[derive(Debug)]
pub struct Topology<'a> {
    pub(crate) functions: &'a mut [Function],
}

/// The storage holds fewer functions than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageTooSmall {
    /// Functions that there are.
    pub needed: usize,
    /// Functions that it holds.
    pub room: usize,
}

impl fmt::Display for StorageTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there are {} PCI functions, and room for {}",
            self.needed, self.room
        )
    }
}

impl core::error::Error for StorageTooSmall {}

/// The number of functions on the buses of `roots`, behind bridges that have bus
/// numbers: the storage that [`Topology::enumerate`] needs.
pub fn count(config: &(impl ConfigSpace + ?Sized), roots: &[BusRange]) -> usize {
    roots.iter().fold(0, |found, root| {
        // SAFETY: nothing is written.
        found + unsafe { Walk::new(config, *root, Numbering::Keep, 0) }.count()
    })
}

impl<'a> Topology<'a> {
    /// Reads all functions on the buses of `roots` into `storage`, behind bridges
    /// that have bus numbers ([`number_buses`](super::number_buses) gives them
    /// some), and sizes their BARs.
    ///
    /// # Errors
    ///
    /// [`StorageTooSmall`] says how much is needed.
    ///
    /// # Safety
    ///
    /// Configuration space is the caller's, and nobody uses a function: each
    /// decodes nothing while its BARs are sized. A host bridge goes on decoding.
    pub unsafe fn enumerate(
        config: &(impl ConfigSpace + ?Sized),
        roots: &[BusRange],
        storage: &'a mut [Function],
    ) -> Result<Self, StorageTooSmall> {
        Self::fill(config, roots, storage, |address| {
            // SAFETY: the caller's promise.
            unsafe { Function::read(config, address) }
        })
    }

    /// Looks again, when devices came or went while others are in use: as
    /// [`enumerate`](Self::enumerate), but what `known` says of a function that is
    /// still there is taken from there, and nothing is written to it. All others
    /// are new. The addresses that these come with do not count.
    ///
    /// [`assign`](super::assign) then gives addresses to what is new, and changes
    /// nothing of what was known but the windows of bridges. What is behind a
    /// bridge that is new is not found: it has no bus numbers.
    ///
    /// # Errors
    ///
    /// [`StorageTooSmall`] says how much is needed.
    ///
    /// # Safety
    ///
    /// Configuration space is the caller's. `known` is what was last enumerated and
    /// assigned, and nobody uses a function that is not in it, or that took the
    /// place of one that is.
    pub unsafe fn rescan(
        config: &(impl ConfigSpace + ?Sized),
        roots: &[BusRange],
        known: &[Function],
        storage: &'a mut [Function],
    ) -> Result<Self, StorageTooSmall> {
        let read = |address| {
            let before = known.iter().find(|function| function.address == address);
            if let Some(function) = before.filter(|function| function.is_still(config)) {
                return Function {
                    command: config.command(address),
                    known: true,
                    assigned: 0,
                    ..*function
                };
            }
            // SAFETY: the function is new, and by the caller's word not in use.
            let mut function = unsafe { Function::read(config, address) };
            function.forget();
            function
        };
        Self::fill(config, roots, storage, read)
    }

    fn fill(
        config: &(impl ConfigSpace + ?Sized),
        roots: &[BusRange],
        storage: &'a mut [Function],
        read: impl Fn(PciAddress) -> Function,
    ) -> Result<Self, StorageTooSmall> {
        let mut found = 0;
        for root in roots {
            // SAFETY: nothing is written.
            for one in unsafe { Walk::new(config, *root, Numbering::Keep, found) } {
                if let Some(place) = storage.get_mut(found) {
                    let mut function = read(one.address);
                    (function.parent, function.depth) = (one.parent, one.depth);
                    if let Some(bridge) = function.bridge_mut() {
                        bridge.unnumbered = match one.bridge {
                            Some(Followed::Not(why)) => Some(why),
                            _ => None,
                        };
                    }
                    *place = function;
                }
                found += 1;
            }
        }
        let room = storage.len();
        let functions = storage.get_mut(..found).ok_or(StorageTooSmall {
            needed: found,
            room,
        })?;
        Ok(Self { functions })
    }

    /// All functions, each after the bridge that leads to it.
    pub fn functions(&self) -> &[Function] {
        self.functions
    }

    /// The function at `address`, if there is one.
    pub fn find(&self, address: PciAddress) -> Option<&Function> {
        self.functions
            .iter()
            .find(|function| function.address == address)
    }

    /// The functions on the bus right behind the bridge with index `bridge`, or
    /// on the root buses, with their indices.
    pub fn children(&self, bridge: Option<usize>) -> impl Iterator<Item = (usize, &Function)> {
        let range = subtree(self.functions, bridge);
        let start = range.start;
        self.functions[range]
            .iter()
            .enumerate()
            .map(move |(index, function)| (start + index, function))
            .filter(move |(_, function)| function.parent == bridge)
    }
}

/// The indices of all functions behind a bridge, or of all there are.
pub(crate) fn subtree(functions: &[Function], bridge: Option<usize>) -> Range<usize> {
    let Some(bridge) = bridge else {
        return 0..functions.len();
    };
    let Some(top) = functions.get(bridge) else {
        return 0..0;
    };
    let behind = &functions[bridge + 1..];
    let end = behind
        .iter()
        .position(|function| function.depth <= top.depth);
    bridge + 1..bridge + 1 + end.unwrap_or(behind.len())
}

#[cfg(test)]
mod tests;
