//! Where PCI interrupt pins lead (INTA# to INTD#): to which global system
//! interrupt.
//!
//! A pin on a bus behind a bridge is a pin of the bridge, turned by the device's
//! number. Several can say where a pin on the first root bus leads, and the first
//! that does is believed: ACPI's routing table (`prt`), the chipset (`pirq`),
//! and the function's register Interrupt Line, where firmware notes it.

mod pirq;
mod prt;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;

use doorbell::pci::{ConfigSpace, Function};

use self::pirq::Pirqs;
use self::prt::Prt;
use super::acpi::Acpi;
use super::gsi::{Gsi, Polarity, Trigger};

/// How it is known where a pin leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By ACPI's routing table.
    Prt,
    /// By the registers of a PIIX3 or PIIX4.
    Piix {
        /// Whether firmware had left some unset, so that this kernel chose.
        chosen: bool,
    },
    /// By the inputs that an ICH9 has for it.
    Ich9,
    /// By what firmware noted in the function.
    InterruptLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prt => "ACPI's _PRT",
            Self::Piix { chosen: false } => "PIIX's routing registers",
            Self::Piix { chosen: true } => "PIIX's routing registers, set by this kernel",
            Self::Ich9 => "ICH9's fixed inputs",
            Self::InterruptLine => "the register Interrupt Line",
        })
    }
}

/// Where a function's pin leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The interrupt.
    pub gsi: Gsi,
    /// Who says so.
    pub origin: Origin,
}

/// Why a function has no wired interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// It uses no pin.
    NoPin,
    /// Its Interrupt Pin register has a value that means nothing.
    BadPin(u8),
    /// It is behind another root bus than the first. Of that, only the register
    /// Interrupt Line would say something, and for QEMU's expander bridges SeaBIOS
    /// writes what is not so.
    OtherRoot {
        /// The root bus.
        bus: u8,
    },
    /// Nothing says where the pin leads.
    Unknown {
        /// The device on the root bus: the function's own, or the bridge above it.
        device: u8,
        /// Its pin, 0 for INTA# to 3 for INTD#.
        pin: u8,
        /// The function's own Interrupt Line register.
        line: u8,
    },
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoPin => f.write_str("the function uses no interrupt pin"),
            Self::BadPin(pin) => write!(f, "the function's interrupt pin is {pin}"),
            Self::OtherRoot { bus } => write!(
                f,
                "where interrupt pins lead is known of root bus 00, not of {bus:02x}"
            ),
            Self::Unknown { device, pin, line } => write!(
                f,
                "neither ACPI nor the chipset says where INT{} of device 00:{device:02x} leads, \
                 and the function's Interrupt Line is {line:#04x}",
                pin_name(pin)
            ),
        }
    }
}

impl core::error::Error for RouteError {}

/// The letter of pin 0 to 3.
pub fn pin_name(pin: u8) -> char {
    char::from(b'A' + pin % 4)
}

/// Where each function's pin leads, in the order of `functions`.
///
/// On a PIIX, PIRQs that lead nowhere are routed.
///
/// # Safety
///
/// The bridge to ISA is the caller's, and `functions` are those of its machine.
pub unsafe fn routes(
    acpi: &Acpi<'_>,
    config: &dyn ConfigSpace,
    functions: &[Function],
) -> Vec<Result<Route, RouteError>> {
    let prt = Prt::find(&acpi.aml);
    // SAFETY: the caller's promise.
    let pirqs = unsafe { Pirqs::find(config, functions) };
    let route = |function: &Function| {
        let pin = match function.interrupt_pin {
            0 => return Err(RouteError::NoPin),
            pin @ 1..=4 => pin - 1,
            other => return Err(RouteError::BadPin(other)),
        };
        let (root, pin) = on_root_bus(functions, function, pin);
        let (bus, device) = (root.address.bus(), root.address.device());
        if root.address.segment() != 0 || bus != 0 {
            return Err(RouteError::OtherRoot { bus });
        }
        let by_prt = || {
            let gsi = prt.as_ref()?.route(device, pin)?;
            let origin = Origin::Prt;
            Some(Route { gsi, origin })
        };
        let line = function.interrupt_line;
        by_prt()
            .or_else(|| pirqs?.route(acpi, device, pin))
            .or_else(|| by_line(acpi, line))
            .ok_or(RouteError::Unknown { device, pin, line })
    };
    functions.iter().map(route).collect()
}

/// By the register Interrupt Line, which on a PC has the 8259s' input. Input 0 has
/// always been the timer's, and 0xFF is none.
fn by_line(acpi: &Acpi<'_>, line: u8) -> Option<Route> {
    (1..16).contains(&line).then(|| Route {
        gsi: acpi.isa(line, Trigger::Level, Polarity::High),
        origin: Origin::InterruptLine,
    })
}

/// What a pin is on the root bus: whose, and which. At each bridge it becomes
/// the bridge's pin of the sum of the pin's and the device's number (PCI-to-PCI
/// Bridge 1.2, 9.1).
fn on_root_bus<'f>(
    functions: &'f [Function],
    function: &'f Function,
    pin: u8,
) -> (&'f Function, u8) {
    let (mut function, mut pin) = (function, pin);
    while let Some(bridge) = function.parent.and_then(|index| functions.get(index)) {
        pin = (pin + function.address.device()) % 4;
        function = bridge;
    }
    (function, pin)
}
