//! What chipsets do with PCI interrupt pins: each leads to a "PIRQ" of the bridge
//! to ISA, and that to an interrupt.

use core::ops::RangeInclusive;

use doorbell::pci::{ConfigSpace, Function};

use super::{Origin, Route};
use crate::platform::acpi::Acpi;
use crate::platform::gsi::{Gsi, Polarity, Trigger};

const INTEL: u16 = 0x8086;
/// Bridges to ISA with PIIX3's registers: PIIX3's, and PIIX4's.
const PIIX: [(u16, u16); 2] = [(INTEL, 0x7000), (INTEL, 0x7110)];
/// ICH9's bridge to LPC, as QEMU has it.
const ICH9: (u16, u16) = (INTEL, 0x2918);

/// PIIX3's PIRQRCA# to PIRQRCD#, a byte each (PIIX3 datasheet, 2.3.8).
const PIRQ_ROUTE: u16 = 0x60;
/// In these: the PIRQ leads nowhere. Else the lower four bits are the ISA
/// interrupt that it leads to.
const NOT_ROUTED: u8 = 1 << 7;
/// The ISA interrupts that a PIRQ can lead to, a bit each: not the timer, the
/// keyboard, the cascade, the clock and the floating-point unit.
const POSSIBLE: u16 = 0b1101_1110_1111_1000;
/// Where the four lead if firmware does not care: ISA interrupts that no device of
/// a PC has.
const CHOICE: [u8; 4] = [10, 10, 11, 11];

/// ICH9's PIRQA# to PIRQH# have inputs of the IO-APIC to themselves (ICH9
/// datasheet, 5.9.2), from this one on.
const ICH9_FIRST_INPUT: u32 = 16;
/// The devices whose pins are wired on the board. The others are the chipset's
/// own, and have registers in memory.
const ICH9_BOARD: RangeInclusive<u8> = 0..=24;

/// How a chipset wires the root bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pirqs {
    /// The ISA interrupts of the four, and whether this kernel chose each.
    Piix([(u8, bool); 4]),
    Ich9,
}

impl Pirqs {
    /// Looks for a chipset that is known. What firmware left without a route gets
    /// one.
    ///
    /// # Safety
    ///
    /// The bridge to ISA is the caller's.
    pub(super) unsafe fn find(config: &dyn ConfigSpace, functions: &[Function]) -> Option<Self> {
        let on_root = functions
            .iter()
            .filter(|function| function.parent.is_none());
        let mut bridges = on_root.filter(|function| (function.class, function.subclass) == (6, 1));
        bridges.find_map(|function| match (function.vendor, function.device) {
            // SAFETY: the caller's promise.
            id if PIIX.contains(&id) => Some(unsafe { Self::piix(config, function) }),
            ICH9 => Some(Self::Ich9),
            _ => None,
        })
    }

    /// # Safety
    ///
    /// As for [`find`](Self::find).
    unsafe fn piix(config: &dyn ConfigSpace, bridge: &Function) -> Self {
        let mut pirqs = CHOICE.map(|irq| (irq, true));
        for (offset, pirq) in (PIRQ_ROUTE..).zip(&mut pirqs) {
            match routed(config.read8(bridge.address, offset)) {
                Some(irq) => *pirq = (irq, false),
                // SAFETY: the caller's promise; the register has no other effect.
                None => unsafe { config.write8(bridge.address, offset, pirq.0) },
            }
        }
        Self::Piix(pirqs)
    }

    /// Where pin 0 to 3 of a device on the root bus leads, on the board that QEMU
    /// models.
    pub(super) fn route(self, acpi: &Acpi<'_>, device: u8, pin: u8) -> Option<Route> {
        match self {
            Self::Piix(pirqs) => {
                // As on Intel's boards: device 1, the bridge itself, begins with
                // PIRQA#.
                let (irq, chosen) = pirqs[usize::from(device + 3 + pin) % 4];
                Some(Route {
                    gsi: acpi.isa(irq, Trigger::Level, Polarity::High),
                    origin: Origin::Piix { chosen },
                })
            }
            Self::Ich9 if ICH9_BOARD.contains(&device) => Some(Route {
                gsi: Gsi {
                    number: ICH9_FIRST_INPUT + 4 + u32::from(device + pin) % 4,
                    trigger: Trigger::Level,
                    polarity: Polarity::Low,
                },
                origin: Origin::Ich9,
            }),
            Self::Ich9 => None,
        }
    }
}

/// The ISA interrupt that a PIRQ's register routes it to.
fn routed(register: u8) -> Option<u8> {
    let irq = register & 0xf;
    (register & NOT_ROUTED == 0 && POSSIBLE & 1 << irq != 0).then_some(irq)
}
