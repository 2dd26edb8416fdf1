//! What a function decodes once it has its addresses.

use pci_types::CommandRegister;

use super::items::Slot;
use crate::pci::function::{Function, Header};
use crate::pci::unassigned::{Space, Unassigned};

/// The command register's bit for a space.
pub(super) fn decoding(space: Space) -> CommandRegister {
    match space {
        Space::Io => CommandRegister::IO_ENABLE,
        Space::Memory => CommandRegister::MEMORY_ENABLE,
    }
}

/// Decides what a function decodes.
///
/// There is one bit for all BARs of a space. While one of them has no address
/// the bit stays off, and the others have no use of theirs: at 0 that BAR would
/// answer to what is meant for main memory. Two exceptions: what firmware
/// switched on stays on, and a bridge has to forward.
pub(super) fn decode(function: &mut Function) {
    let mut command = function.command;
    match function.header {
        Header::Bridge(bridge) => {
            if bridge.unnumbered.is_none() {
                command |= CommandRegister::BUS_MASTER_ENABLE;
            }
            for slot in Slot::ALL {
                if let Some((space, _)) = function.occupied(slot) {
                    command |= decoding(space);
                }
            }
        }
        // What its driver made of one that was known before stays.
        Header::Endpoint if !function.is_host_bridge() && !function.known => {
            for space in [Space::Io, Space::Memory] {
                command.set(decoding(space), decodes(function, space));
            }
            // What firmware left off has not been told to access memory since
            // reset, so it will not before its driver tells it to.
            if command != function.command {
                command |= CommandRegister::BUS_MASTER_ENABLE;
            }
        }
        _ => {}
    }
    function.command = command;
}

/// Whether an endpoint can decode a space; if it cannot, its BARs there say so.
fn decodes(function: &mut Function, space: Space) -> bool {
    let bit = decoding(space);
    let on = function.command.contains(bit);
    let assigned = function.assigned;
    let own = function
        .bars
        .iter()
        .flatten()
        .filter(|bar| bar.kind.space() == space);
    let placed = |kept: bool| {
        own.clone()
            .filter(|bar| bar.address.is_some())
            .any(|bar| !kept || assigned & 1 << bar.index == 0)
    };
    // A BAR that is malformed cannot be assigned by anyone, and is ignored.
    let missing = own
        .clone()
        .find(|bar| bar.address.is_none() && bar.size != 0);
    let Some(because) = missing.map(|bar| bar.index) else {
        return on || placed(false);
    };
    if on && placed(true) {
        return true;
    }
    for index in 0..6 {
        let useless = function.bars[index]
            .is_some_and(|bar| bar.kind.space() == space && bar.address.is_some());
        if useless {
            function.refuse(index, Unassigned::DecodingOff { space, because });
        }
    }
    false
}
