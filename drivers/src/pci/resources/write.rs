//! The plan's way into the registers.

use pci_types::CommandRegister;

use crate::pci::bars::BarKind;
use crate::pci::bridge::WindowKind;
use crate::pci::config::ConfigSpace;
use crate::pci::function::Function;
use crate::pci::registers;

/// Writes what changed. All functions concerned stop decoding first, so that at
/// no time two answer to one address.
///
/// # Safety
///
/// As for [`assign`](super::assign), and no two functions have the same address.
pub(super) unsafe fn write(config: &(impl ConfigSpace + ?Sized), functions: &mut [Function]) {
    let off = CommandRegister::IO_ENABLE | CommandRegister::MEMORY_ENABLE;
    for function in functions.iter().filter(|function| is_changed(function)) {
        let command = config.command(function.address);
        if command.intersects(off) {
            // SAFETY: the caller's promise.
            unsafe { config.set_command(function.address, command - off) };
        }
    }
    for function in functions {
        if is_changed(function) {
            // SAFETY: the caller's promise; the function decodes nothing.
            unsafe { write_addresses(config, function) };
        }
        if config.command(function.address) != function.command {
            // SAFETY: what it decodes now are the addresses that it was given.
            unsafe { config.set_command(function.address, function.command) };
        }
    }
}

fn is_changed(function: &Function) -> bool {
    let windows = || {
        function
            .bridge()
            .is_some_and(|bridge| bridge.windows.iter().any(|w| w.changed))
    };
    function.changed || windows()
}

/// # Safety
///
/// As for [`write`]; the function decodes nothing.
unsafe fn write_addresses(config: &(impl ConfigSpace + ?Sized), function: &mut Function) {
    let address = function.address;
    // A malformed BAR is left as it was found.
    let bars = function.bars.iter().flatten().filter(|bar| bar.size != 0);
    for bar in bars.filter(|_| function.changed) {
        let offset = registers::BAR0 + 4 * u16::from(bar.index);
        let value = bar.address.unwrap_or(0);
        // SAFETY: the caller's promise.
        unsafe {
            config.write(address, offset, value as u32);
            if bar.kind == BarKind::Memory64 {
                config.write(address, offset + 4, (value >> 32) as u32);
            }
        }
    }
    function.changed = false;
    if let Some(bridge) = function.bridge_mut() {
        for kind in WindowKind::ALL {
            if core::mem::take(&mut bridge.window_mut(kind).changed) {
                // SAFETY: the caller's promise.
                unsafe { bridge.write_window(config, address, kind) };
            }
        }
    }
}
