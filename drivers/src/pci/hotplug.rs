//! Native hot-plug of a PCI Express slot (PCI Express 6.7): the slot registers
//! of a root port or of a switch's downstream port (7.5.3.9 to 7.5.3.11).
//!
//! A person, or the machine's monitor, presses the attention button to ask that
//! a device be removed, or that one that was put in be used. Then:
//!
//! - To remove it: the drivers let go of what is behind the port, and
//!   [`Slot::power_off`] says that it may be taken out. When it was, presence
//!   detect has changed, and [`Slot::is_occupied`] is false.
//! - To use one: [`Slot::power_on`], and what is behind the port is found by
//!   [`Topology::rescan`](super::Topology::rescan) and gets its addresses.
//!
//! QEMU's ports do this: `device_del` presses the button, and the device is gone
//! when [`Slot::power_off`] returns; `device_add` presses it too, and presence
//! detect has changed. On q35 ACPI does it instead, unless the machine has `-global
//! ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off`: the slots then look the
//! same, but no event ever comes, and presence detect stays as it is.

use core::fmt;

use bitflags::bitflags;
use pci_types::PciAddress;

use super::capabilities::{self, CapabilityError, PCI_EXPRESS};
use super::config::ConfigSpace;
use super::function::{Function, PortType};
use crate::virtio::Wait;

/// Offsets in the PCI Express capability, with their width in bits.
mod register {
    /// PCI Express capabilities, 16.
    pub(super) const EXPRESS: u16 = 0x02;
    /// Slot capabilities, 32.
    pub(super) const CAPABILITIES: u16 = 0x14;
    /// Slot control, 16. Any write is a command.
    pub(super) const CONTROL: u16 = 0x18;
    /// Slot status, 16.
    pub(super) const STATUS: u16 = 0x1a;
}

/// PCI Express capabilities: the port has a slot (7.5.3.2).
const SLOT_IMPLEMENTED: u16 = 1 << 8;
/// Slot status: presence detect state (7.5.3.11).
const PRESENCE_DETECT_STATE: u16 = 1 << 6;

bitflags! {
    /// What a slot has (slot capabilities, 7.5.3.9).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SlotCapabilities: u32 {
        /// An attention button.
        const ATTENTION_BUTTON = 1 << 0;
        /// Power can be switched by software.
        const POWER_CONTROLLER = 1 << 1;
        /// An attention indicator.
        const ATTENTION_INDICATOR = 1 << 3;
        /// A power indicator.
        const POWER_INDICATOR = 1 << 4;
        /// A device may be taken out without notice.
        const HOT_PLUG_SURPRISE = 1 << 5;
        /// It supports hot-plug.
        const HOT_PLUG_CAPABLE = 1 << 6;
        /// It does not report that a command is completed: each is at once.
        const NO_COMMAND_COMPLETED = 1 << 18;
    }
}

bitflags! {
    /// What happened at a slot (slot status, 7.5.3.11).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SlotEvents: u16 {
        /// The attention button was pressed: someone asks for a device to be
        /// removed, or used.
        const ATTENTION_BUTTON_PRESSED = 1 << 0;
        /// The power controller detected a fault.
        const POWER_FAULT_DETECTED = 1 << 1;
        /// The retention latch was opened or closed.
        const MRL_SENSOR_CHANGED = 1 << 2;
        /// A device was put in or taken out.
        const PRESENCE_DETECT_CHANGED = 1 << 3;
        /// A command is completed.
        const COMMAND_COMPLETED = 1 << 4;
        /// The link came up or went down.
        const DATA_LINK_LAYER_STATE_CHANGED = 1 << 8;
    }
}

bitflags! {
    /// Slot control (7.5.3.10).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Control: u16 {
        const ATTENTION_INDICATOR = 3 << 6;
        const POWER_INDICATOR = 3 << 8;
        const POWER_INDICATOR_ON = 1 << 8;
        const POWER_INDICATOR_OFF = 3 << 8;
        const POWER_OFF = 1 << 10;
        const _ = !0;
    }
}

/// What an indicator shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the specification's names")]
pub enum Indicator {
    On,
    Blink,
    Off,
    /// A value that PCI Express reserves.
    Reserved,
}

impl Indicator {
    fn of(bits: u16) -> Self {
        match bits & 3 {
            1 => Self::On,
            2 => Self::Blink,
            3 => Self::Off,
            _ => Self::Reserved,
        }
    }
}

/// The slot of a port. Reading it is harmless; what it is told to do is not.
#[derive(Clone, Copy, Debug)]
pub struct Slot<C> {
    config: C,
    port: PciAddress,
    /// Offset of the PCI Express capability in configuration space.
    express: u16,
    capabilities: SlotCapabilities,
}

impl<C: ConfigSpace> Slot<C> {
    /// The slot of the port `function`; `None` if it is no port, or has no slot.
    ///
    /// # Errors
    ///
    /// [`SlotError`] if the capability list is broken, or the slot's registers
    /// are not in configuration space.
    pub fn new(function: &Function, config: C) -> Result<Option<Self>, SlotError> {
        let port = function.address;
        if !matches!(
            function.port,
            Some(PortType::RootPort | PortType::DownstreamPort)
        ) {
            return Ok(None);
        }
        let Some(express) = capabilities::find(&config, port, PCI_EXPRESS)? else {
            return Ok(None);
        };
        let kind = express.read16(&config, port, register::EXPRESS);
        if kind.is_none_or(|kind| kind & SLOT_IMPLEMENTED == 0) {
            return Ok(None);
        }
        let offset = express.offset;
        let capabilities = express
            .register(register::STATUS, 2)
            .and_then(|_| express.read32(&config, port, register::CAPABILITIES))
            .ok_or(SlotError::Truncated { port, offset })?;
        Ok(Some(Self {
            config,
            port,
            express: offset,
            capabilities: SlotCapabilities::from_bits_truncate(capabilities),
        }))
    }

    /// What it has.
    pub fn capabilities(&self) -> SlotCapabilities {
        self.capabilities
    }

    /// Whether there is a device in it. A device may not answer yet: it has
    /// power, and then time to start (6.6.1).
    pub fn is_occupied(&self) -> bool {
        self.status()
            .is_ok_and(|status| status & PRESENCE_DETECT_STATE != 0)
    }

    /// Whether its power is on, as far as software can switch it.
    pub fn is_powered(&self) -> bool {
        !self.has(SlotCapabilities::POWER_CONTROLLER)
            || !self.control().contains(Control::POWER_OFF)
    }

    /// What its power indicator shows; `None` if it has none.
    pub fn power_indicator(&self) -> Option<Indicator> {
        self.indicator(SlotCapabilities::POWER_INDICATOR, Control::POWER_INDICATOR)
    }

    /// What its attention indicator shows; `None` if it has none.
    pub fn attention_indicator(&self) -> Option<Indicator> {
        self.indicator(
            SlotCapabilities::ATTENTION_INDICATOR,
            Control::ATTENTION_INDICATOR,
        )
    }

    /// What happened since the last [`take_events`](Self::take_events). Nothing,
    /// if the port no longer answers.
    pub fn events(&self) -> SlotEvents {
        SlotEvents::from_bits_truncate(self.status().unwrap_or(0))
    }

    /// The same, and clears just that: what happens meanwhile is seen next time.
    ///
    /// # Safety
    ///
    /// The port is the caller's.
    pub unsafe fn take_events(&mut self) -> SlotEvents {
        let events = self.events();
        if !events.is_empty() {
            // SAFETY: the caller's promise.
            unsafe { self.clear(events) };
        }
        events
    }

    /// Switches the power off, and the power indicator: the device may be taken
    /// out. Hardware takes a second to be without power (6.7.1.8); QEMU has
    /// removed the device when this returns, and presence detect has changed.
    ///
    /// # Errors
    ///
    /// [`SlotError`] if the slot cannot do it, or does not say in time that it
    /// did.
    ///
    /// # Safety
    ///
    /// The port is the caller's, and nobody uses a function behind it.
    pub unsafe fn power_off(&mut self, wait: &mut impl Wait) -> Result<(), SlotError> {
        // SAFETY: the caller's promise.
        unsafe { self.switch(Control::POWER_OFF | Control::POWER_INDICATOR_OFF, wait) }
    }

    /// Switches the power on, and the power indicator. What is behind the port
    /// answers 100 ms after its link came up (6.6.1), in QEMU at once.
    ///
    /// # Errors
    ///
    /// As for [`power_off`](Self::power_off).
    ///
    /// # Safety
    ///
    /// The port is the caller's.
    pub unsafe fn power_on(&mut self, wait: &mut impl Wait) -> Result<(), SlotError> {
        // SAFETY: the caller's promise.
        unsafe { self.switch(Control::POWER_INDICATOR_ON, wait) }
    }

    /// Makes `new` the state of power and power indicator, in one command, and
    /// waits until it is completed (6.7.3.2).
    ///
    /// # Safety
    ///
    /// The port is the caller's, and what losing power does to what is behind it.
    unsafe fn switch(&mut self, new: Control, wait: &mut impl Wait) -> Result<(), SlotError> {
        let port = self.port;
        for (needed, error) in [
            (
                SlotCapabilities::HOT_PLUG_CAPABLE,
                SlotError::NotHotPlugCapable { port },
            ),
            (
                SlotCapabilities::POWER_CONTROLLER,
                SlotError::NoPowerController { port },
            ),
        ] {
            if !self.has(needed) {
                return Err(error);
            }
        }
        let completed = SlotEvents::COMMAND_COMPLETED;
        if SlotEvents::from_bits_truncate(self.status()?).contains(completed) {
            // Of an earlier command: this one is to be seen.
            // SAFETY: the caller's promise.
            unsafe { self.clear(completed) };
        }
        let mut fields = Control::POWER_OFF;
        if self.has(SlotCapabilities::POWER_INDICATOR) {
            fields |= Control::POWER_INDICATOR;
        }
        let control = self.control().difference(fields).union(new & fields);
        // SAFETY: the caller's promise.
        unsafe {
            let offset = self.express + register::CONTROL;
            self.config.write16(port, offset, control.bits());
        }
        if self.has(SlotCapabilities::NO_COMMAND_COMPLETED) {
            return Ok(());
        }
        while !SlotEvents::from_bits_truncate(self.status()?).contains(completed) {
            if !wait.again() {
                let control = control.bits();
                return Err(SlotError::NotCompleted { port, control });
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.clear(completed) };
        Ok(())
    }

    /// Clears events, which ones in slot status do.
    ///
    /// # Safety
    ///
    /// The port is the caller's.
    unsafe fn clear(&mut self, events: SlotEvents) {
        // Not as a dword, which would write slot control: a command.
        let offset = self.express + register::STATUS;
        // SAFETY: the caller's promise.
        unsafe { self.config.write16(self.port, offset, events.bits()) }
    }

    fn has(&self, capability: SlotCapabilities) -> bool {
        self.capabilities.contains(capability)
    }

    fn indicator(&self, present: SlotCapabilities, field: Control) -> Option<Indicator> {
        let bits = (self.control() & field).bits() >> field.bits().trailing_zeros();
        self.has(present).then(|| Indicator::of(bits))
    }

    fn control(&self) -> Control {
        let offset = self.express + register::CONTROL;
        Control::from_bits_retain(self.config.read16(self.port, offset))
    }

    /// Slot status, in which some bits are always zero.
    fn status(&self) -> Result<u16, SlotError> {
        let status = self
            .config
            .read16(self.port, self.express + register::STATUS);
        if status == !0 {
            return Err(SlotError::Gone { port: self.port });
        }
        Ok(status)
    }
}

/// Why a slot cannot be used, or does not do what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what `Display` prints")]
#[non_exhaustive]
pub enum SlotError {
    /// The port's capability list is broken.
    Capabilities(CapabilityError),
    /// The slot's registers do not end inside configuration space.
    Truncated { port: PciAddress, offset: u16 },
    /// The slot does not support hot-plug.
    NotHotPlugCapable { port: PciAddress },
    /// The slot's power cannot be switched by software.
    NoPowerController { port: PciAddress },
    /// The slot did not say in time that it did what was written to slot control.
    NotCompleted { port: PciAddress, control: u16 },
    /// The port no longer answers.
    Gone { port: PciAddress },
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capabilities(error) => error.fmt(f),
            Self::Truncated { port, offset } => write!(
                f,
                "the PCI Express capability of {port} at offset {offset:#05x} has no room for a slot"
            ),
            Self::NotHotPlugCapable { port } => {
                write!(f, "the slot of {port} does not support hot-plug")
            }
            Self::NoPowerController { port } => {
                write!(f, "the slot of {port} has no power controller")
            }
            Self::NotCompleted { port, control } => write!(
                f,
                "the slot of {port} does not complete the command {control:#06x}"
            ),
            Self::Gone { port } => write!(f, "the port {port} no longer answers"),
        }
    }
}

impl core::error::Error for SlotError {}

impl From<CapabilityError> for SlotError {
    fn from(error: CapabilityError) -> Self {
        Self::Capabilities(error)
    }
}

#[cfg(test)]
mod tests;
