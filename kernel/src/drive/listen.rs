//! How the kernel hears from a device: it looks again and again, or the device
//! interrupts, by its line or by MSI-X.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use doorbell::device::{Setup, Vectors};
use doorbell::pci::{CommandRegister, ConfigSpace, MsiX};
use doorbell::transport::{IsrBits, Transport};
use doorbell::virtio::{Features, Wait};

use super::{Location, Unit};
use crate::clock::{Clock, Deadline};
use crate::interrupt::{Connection, Interrupts, Source};
use crate::machine::Machine;
use crate::platform::dma::KernelMmio;
use crate::platform::gsi::Gsi;

/// What is accepted beside them: addresses that go through a platform's IOMMU are
/// this platform's physical ones, since the kernel leaves an IOMMU alone; and
/// queues that can be reset.
const ACCEPTED: Features = Features::ACCESS_PLATFORM.union(Features::RING_RESET);

/// The queue size that is asked for where the interface leaves a choice.
const QUEUE_SIZE: u16 = 256;

/// The most vectors that the queues of one device get.
const MAX_QUEUE_VECTORS: u16 = 8;

/// How the kernel hears from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It looks: no interrupts.
    Polling,
    /// The device's line: INTx, or virtio-mmio's.
    Line,
    /// MSI-X, with one vector for everything.
    MsixShared,
    /// MSI-X, with one vector for configuration changes and one a queue.
    MsixPerQueue,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 4] = [
        Self::Polling,
        Self::Line,
        Self::MsixShared,
        Self::MsixPerQueue,
    ];

    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::Line => "line",
            Self::MsixShared => "msix-shared",
            Self::MsixPerQueue => "msix-per-queue",
        }
    }
}

/// The modes of a device, over any of its ways: those that work, and those that
/// cannot, with the reason.
pub fn modes(machine: &Machine, unit: &Unit) -> Vec<(Mode, Result<(), String>)> {
    Mode::ALL
        .into_iter()
        .map(|mode| (mode, check(machine, unit, mode)))
        .collect()
}

fn check(machine: &Machine, unit: &Unit, mode: Mode) -> Result<(), String> {
    if mode == Mode::Polling {
        return Ok(());
    }
    controller(machine)?;
    if mode == Mode::Line {
        return line(machine, unit).map(drop);
    }
    let msix = open_msix(machine, unit)?;
    if mode == Mode::MsixPerQueue && msix.size() < 2 {
        return Err("its MSI-X table has one entry".to_string());
    }
    Ok(())
}

fn controller(machine: &Machine) -> Result<&Interrupts, String> {
    let interrupts = machine.interrupts.as_ref();
    interrupts.ok_or_else(|| "this machine has no interrupts".to_string())
}

/// Where the device's line goes: INTx, or virtio-mmio's.
///
/// # Errors
///
/// Why it has none, in words.
pub fn line(machine: &Machine, unit: &Unit) -> Result<Gsi, String> {
    match &unit.location {
        Location::Mmio(slot) => {
            let own = slot.interrupt;
            own.ok_or_else(|| "its slot announces no interrupt".to_string())
        }
        Location::Pci(index) => machine.line_of(*index),
    }
}

type KernelMsiX = MsiX<&'static dyn ConfigSpace>;

/// The device's MSI-X, as it is.
fn open_msix(machine: &Machine, unit: &Unit) -> Result<KernelMsiX, String> {
    let (Location::Pci(index), Some(pci)) = (&unit.location, &machine.pci) else {
        return Err("virtio-mmio has no vectors".to_string());
    };
    // SAFETY: this kernel owns the function, whose resources `assign` worked out
    // and whose decoding it switched on; one device is opened at a time.
    let msix = unsafe { MsiX::new(&pci.functions[*index], pci.config, &KernelMmio) };
    msix.map_err(|error| error.to_string())?
        .ok_or_else(|| "the function has no MSI-X".to_string())
}

/// How a device that was opened is heard.
pub struct Listener<'m> {
    clock: Clock,
    mode: Mode,
    interrupts: Option<&'m Interrupts>,
    vectors: Vectors,
    /// Disabled before its vectors go.
    _msix: Option<KernelMsiX>,
    connections: Vec<Connection>,
}

impl<'m> Listener<'m> {
    /// Prepares `mode`: all but a line, for which the device's registers are needed.
    pub(super) fn new(machine: &'m Machine, unit: &Unit, mode: Mode) -> Result<Self, String> {
        let mut listener = Self {
            clock: machine.clock,
            mode,
            interrupts: None,
            vectors: Vectors::None,
            _msix: None,
            connections: Vec::new(),
        };
        set_command(machine, unit, mode == Mode::Line);
        if mode != Mode::Polling {
            listener.interrupts = Some(controller(machine)?);
        }
        if matches!(mode, Mode::MsixShared | Mode::MsixPerQueue) {
            listener.enable_msix(open_msix(machine, unit)?)?;
        }
        Ok(listener)
    }

    /// Enables MSI-X, each of its vectors with a source of its own.
    fn enable_msix(&mut self, mut msix: KernelMsiX) -> Result<(), String> {
        let (queue, config) = (
            IsrBits::QUEUE_INTERRUPT,
            IsrBits::DEVICE_CONFIGURATION_INTERRUPT,
        );
        let causes = if self.mode == Mode::MsixShared {
            self.vectors = Vectors::Shared(0);
            [queue | config].to_vec()
        } else {
            let count = (msix.size() - 1).min(MAX_QUEUE_VECTORS);
            self.vectors = Vectors::PerQueue {
                config: 0,
                first: 1,
                count,
            };
            let queues = core::iter::repeat_n(queue, count.into());
            core::iter::once(config).chain(queues).collect()
        };
        msix.enable();
        for (entry, cause) in (0..).zip(causes) {
            let interrupts = self.interrupts.ok_or("no interrupts")?;
            let source = Arc::new(Source::message(cause));
            let connected = interrupts.connect_message(source);
            let (connection, message) = connected.map_err(|error| error.to_string())?;
            // SAFETY: the address is the local APIC's.
            let set = unsafe { msix.set(entry, message) };
            set.map_err(|error| error.to_string())?;
            self.connections.push(connection);
        }
        self._msix = Some(msix);
        Ok(())
    }

    /// Connects the device's line, if that is how it is heard.
    pub(super) fn attach(
        &mut self,
        machine: &Machine,
        unit: &Unit,
        transport: &dyn Transport,
    ) -> Result<(), String> {
        let (Mode::Line, Some(interrupts)) = (self.mode, self.interrupts) else {
            return Ok(());
        };
        let source = Arc::new(Source::line(transport.isr_status()));
        let connection = interrupts.connect_line(line(machine, unit)?, source);
        self.connections
            .push(connection.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// The machine's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What a driver is set up with that uses the ring features in `features`.
    pub fn setup(&self, features: Features) -> Setup {
        Setup {
            vectors: self.vectors,
            ..Setup::new(QUEUE_SIZE, features | ACCEPTED)
        }
    }

    /// Whether the device is to interrupt.
    pub fn interrupts(&self) -> bool {
        self.mode != Mode::Polling
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.connections
            .iter()
            .map(|connection| &**connection.source())
    }

    /// How many interrupts came for queues. Where a vector is shared for all, those
    /// for the configuration are among them.
    pub fn queue_interrupts(&self) -> u64 {
        self.sources().map(Source::queue_interrupts).sum()
    }

    /// How many interrupts came by the vector that is queue `n`'s own, where it has
    /// one.
    pub fn interrupts_of_queue(&self, n: u16) -> Option<u64> {
        match self.vectors {
            Vectors::PerQueue { first, count, .. } if n < count => {
                let connection = self.connections.get(usize::from(first + n))?;
                Some(connection.source().queue_interrupts())
            }
            _ => None,
        }
    }

    /// How many interrupts came for the configuration. Where a vector is shared for
    /// all, those for queues are among them.
    pub fn config_interrupts(&self) -> u64 {
        self.sources().map(Source::config_interrupts).sum()
    }

    /// The TSC at the entry of the last interrupt's handler; 0 before the first.
    pub fn entered(&self) -> u64 {
        self.sources().map(Source::entered).max().unwrap_or(0)
    }

    /// How many interrupts came, of either kind.
    fn heard(&self) -> u64 {
        self.queue_interrupts() + self.config_interrupts()
    }

    /// A wait for the device's registers, which no interrupt tells of.
    pub fn bring_up(&self) -> Deadline {
        self.clock.patience()
    }

    /// A wait for the device, from now on, that sleeps until it interrupts if it is
    /// to.
    pub fn patience(&self) -> Patience<'_> {
        self.wait(self.clock.patience())
    }

    /// As [`patience`](Self::patience), with another end.
    pub fn wait(&self, deadline: Deadline) -> Patience<'_> {
        Patience {
            listener: self,
            deadline,
            heard: self.heard(),
        }
    }

    /// Runs `f` with the device's interrupts let in, if it is to interrupt.
    pub fn let_in<R>(&self, f: impl FnOnce() -> R) -> R {
        match self.interrupts {
            Some(interrupts) => interrupts.enabled(f),
            None => f(),
        }
    }
}

/// Lets the function access memory, which its messages do too; and allows or
/// forbids it to use its interrupt pin: a device that is not listened to would hold
/// a line down that others share.
fn set_command(machine: &Machine, unit: &Unit, pin: bool) {
    let (Location::Pci(index), Some(pci)) = (&unit.location, &machine.pci) else {
        return;
    };
    let address = pci.functions[*index].address;
    let mut command = pci.config.command(address);
    command.insert(CommandRegister::BUS_MASTER_ENABLE);
    command.set(CommandRegister::INTERRUPT_DISABLE, !pin);
    // SAFETY: this kernel owns the function, and its driver tells it which memory.
    unsafe { pci.config.set_command(address, command) };
}

/// A wait for a device, with an end.
pub struct Patience<'l> {
    listener: &'l Listener<'l>,
    deadline: Deadline,
    /// How many interrupts had come at the last look.
    heard: u64,
}

impl Wait for Patience<'_> {
    fn again(&mut self) -> bool {
        let Some(interrupts) = self.listener.interrupts else {
            return self.deadline.again();
        };
        // What came since the last look at the device is not waited for.
        let before = self.heard;
        let woken = interrupts.sleep_until(|| self.listener.heard() != before, self.deadline);
        self.heard = self.listener.heard();
        woken
    }
}
