//! How the kernel hears from a device: it looks again and again, or the device
//! interrupts.

use alloc::string::String;
use alloc::vec::Vec;

use doorbell::device::Vectors;
use doorbell::transport::Transport;
use doorbell::virtio::Wait;

use super::{Unit, Way};
use crate::clock::{Clock, Deadline};
use crate::machine::Machine;

/// How the kernel hears from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It looks: no interrupts.
    Polling,
}

impl Mode {
    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
        }
    }
}

/// The modes of a device over one of its ways: those that work, and those that
/// cannot, with the reason.
pub fn modes(_: &Machine, _: &Unit, _: Way) -> Vec<(Mode, Result<(), String>)> {
    [(Mode::Polling, Ok(()))].into()
}

/// How a device that was opened is heard.
pub struct Listener {
    clock: Clock,
    mode: Mode,
}

impl Listener {
    pub(super) fn new(machine: &Machine, _: &Unit, mode: Mode) -> Result<Self, String> {
        let clock = machine.clock;
        Ok(Self { clock, mode })
    }

    pub(super) fn attach(
        &mut self,
        _: &Machine,
        _: &Unit,
        _: &dyn Transport,
    ) -> Result<(), String> {
        Ok(())
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The vectors that the device is set up with.
    pub fn vectors(&self) -> Vectors {
        Vectors::None
    }

    /// Whether the device is to interrupt.
    pub fn interrupts(&self) -> bool {
        self.mode != Mode::Polling
    }

    /// A wait for the device's registers while it comes up.
    pub fn bring_up(&self) -> Deadline {
        self.clock.patience()
    }

    /// A wait for the device, from now on, that sleeps until it interrupts if it is
    /// to.
    pub fn patience(&self) -> Patience {
        Patience {
            deadline: self.clock.patience(),
        }
    }
}

/// A wait for a device, with an end.
pub struct Patience {
    deadline: Deadline,
}

impl Wait for Patience {
    fn again(&mut self) -> bool {
        self.deadline.again()
    }
}
