//! Interrupts: from a device to a count and a time stamp, and to code that sleeps
//! until one came.
//!
//! - `source`: a [`Source`] is one device's interrupt. Its handler asks the
//!   device's ISR status, if it has to, and counts. It does nothing else.
//! - `vectors`: which vector is whose. A message has one of its own, and so has
//!   a wired interrupt, which several sources can share.
//! - `controller`: the APICs and the vectors, which the handler works on.
//! - here: [`Interrupts`], what the kernel sees of it.
//!
//! The kernel runs with interrupts disabled, so that what it times is not
//! interrupted. They are enabled in [`Interrupts::enabled`] and in
//! [`Interrupts::sleep_until`]; and for a moment where a [`Connection`] ends while
//! one of its interrupts waits for the CPU.

mod controller;
mod source;
mod vectors;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use controller::{Controller, Guarded};
use doorbell::pci::Message;
use vectors::SPURIOUS;

use crate::arch;
use crate::arch::apic::io::IoApicError;
use crate::arch::apic::local::LocalApicError;
use crate::arch::apic::{IoApic, LocalApic, pic};
use crate::arch::idt::EXCEPTIONS;
use crate::clock::Deadline;
use crate::platform::acpi::{self, Acpi};
use crate::platform::gsi::Gsi;

pub use controller::Counts;
pub use source::Source;

/// Where messages to local APICs go (Intel SDM volume 3, 11.11.1); the APIC ID
/// stands in bits 12 to 19.
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;

/// How often an interrupt that waits for the CPU is let in before it is given up.
/// It comes at once on hardware, and some instructions later where KVM emulates
/// the CPU.
const DRAIN: u32 = 1000;

/// Why an interrupt cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptError {
    /// The CPU takes none.
    LocalApic(LocalApicError),
    /// No IO-APIC has this input.
    NoInput(Gsi),
    /// All vectors are in use.
    NoVector,
    /// Others share the line, and are wired in another way.
    Conflict {
        /// How they are.
        connected: Gsi,
        /// What was asked for.
        asked: Gsi,
    },
    /// The CPU's APIC ID is higher than what devices can name.
    FarCpu(u32),
}

impl fmt::Display for InterruptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalApic(error) => error.fmt(f),
            Self::NoInput(gsi) => write!(f, "no IO-APIC has an input for {gsi}"),
            Self::NoVector => f.write_str("all interrupt vectors are in use"),
            Self::Conflict { connected, asked } => {
                write!(f, "{asked} is in use as {connected}")
            }
            Self::FarCpu(id) => write!(
                f,
                "devices cannot interrupt the CPU: its APIC ID {id} has more than 8 bits"
            ),
        }
    }
}

impl core::error::Error for InterruptError {}

impl From<LocalApicError> for InterruptError {
    fn from(error: LocalApicError) -> Self {
        Self::LocalApic(error)
    }
}

/// The machine's interrupts.
#[derive(Debug)]
pub struct Interrupts {
    controller: &'static Guarded,
    /// What is wrong with IO-APICs that are not used.
    pub problems: Vec<IoApicError>,
}

impl Interrupts {
    /// Takes all interrupt controllers over. Whatever firmware had enabled is
    /// masked.
    ///
    /// # Errors
    /// [`InterruptError::LocalApic`] where the CPU takes no interrupts.
    ///
    /// # Safety
    ///
    /// Called once. The interrupt controllers are nobody else's.
    pub unsafe fn new(acpi: &Acpi<'_>) -> Result<Self, InterruptError> {
        pic::switch_off();
        // SAFETY: the caller's promise.
        let local = unsafe { LocalApic::new(SPURIOUS)? };
        let mut io = Vec::new();
        let mut problems = Vec::new();
        for announced in &acpi.io_apics {
            // SAFETY: ACPI says that it is there; and the caller's promise.
            match unsafe { IoApic::new(announced) } {
                Ok(apic) => io.push(apic),
                Err(error) => problems.push(error),
            }
        }
        if acpi.io_apics.is_empty() {
            // SAFETY: where every PC has it, or nobody has anything.
            io.extend(unsafe { IoApic::new(&acpi::IoApic::CUSTOMARY) });
        }
        Ok(Self {
            controller: Controller::begin(local, io),
            problems,
        })
    }

    /// A vector for messages that `source` is to count.
    ///
    /// # Errors
    /// [`InterruptError::NoVector`], [`InterruptError::FarCpu`].
    pub fn connect_message(
        &self,
        source: Arc<Source>,
    ) -> Result<(Connection, Message), InterruptError> {
        self.controller.with(|controller| {
            let id = controller.destination()?;
            let vector = controller.vectors.connect_message(source.clone())?;
            let message = Message {
                address: MESSAGE_ADDRESS | u64::from(id) << 12,
                data: vector.into(),
            };
            Ok((self.connection(vector, source), message))
        })
    }

    /// Lets `source` count the interrupts of a line, alone or with others.
    ///
    /// # Errors
    /// All of [`InterruptError`], but for a missing local APIC.
    pub fn connect_line(
        &self,
        gsi: Gsi,
        source: Arc<Source>,
    ) -> Result<Connection, InterruptError> {
        self.controller.with(|controller| {
            let id = controller.destination()?;
            let no_input = InterruptError::NoInput(gsi);
            controller.io_apic(gsi.number).ok_or(no_input)?;
            let vector = controller.vectors.connect_line(gsi, source.clone())?;
            if let Some(apic) = controller.io_apic(gsi.number) {
                apic.connect(gsi, vector, id);
            }
            Ok(self.connection(vector, source))
        })
    }

    fn connection(&self, vector: u8, source: Arc<Source>) -> Connection {
        Connection {
            controller: self.controller,
            vector,
            source,
        }
    }

    /// Interrupts this CPU with a vector, whoever's it is: for tests of this side
    /// alone. The vectors of exceptions are left out, and the spurious one, whose end
    /// nobody tells the APIC.
    pub fn raise(&self, vector: u8) {
        if vector >= EXCEPTIONS && vector != SPURIOUS {
            self.controller
                .with(|controller| controller.local.interrupt_self(vector));
        }
    }

    /// Runs `f` with interrupts enabled. After it they are as before.
    pub fn enabled<R>(&self, f: impl FnOnce() -> R) -> R {
        arch::interrupt::enabled(f)
    }

    /// Stops the CPU until `condition` holds or the deadline is over; the result
    /// is whether it holds. The condition is asked with interrupts disabled,
    /// first at once, and then after each interrupt.
    ///
    /// An interrupt that comes after the condition was asked is not missed: it
    /// ends the stop.
    pub fn sleep_until(&self, mut condition: impl FnMut() -> bool, deadline: Deadline) -> bool {
        arch::interrupt::disabled(|| {
            while !condition() {
                let Some(left) = deadline.remaining() else {
                    return false;
                };
                if self.controller.with(|controller| controller.wake_in(left)) {
                    arch::interrupt::halt();
                } else {
                    // Without a timer nothing would end it.
                    arch::interrupt::enabled(core::hint::spin_loop);
                }
            }
            true
        })
    }

    /// How many interrupts came that are no device's.
    pub fn counts(&self) -> Counts {
        self.controller.with(|controller| controller.counts)
    }

    /// The lines that are masked because nobody claimed their interrupts.
    pub fn masked(&self) -> Vec<Gsi> {
        self.controller
            .with(|controller| controller.vectors.masked().collect())
    }

    /// The local APIC, in words.
    pub fn local_apic(&self) -> String {
        self.controller
            .with(|controller| controller.local.to_string())
    }

    /// The IO-APICs, in words.
    pub fn io_apics(&self) -> Vec<String> {
        self.controller
            .with(|controller| controller.io.iter().map(IoApic::to_string).collect())
    }

    /// How fast the timer counts, in Hz, where the TSC has `tsc_hz`; `None` if
    /// there is no timer, and whoever sleeps stays awake.
    pub fn timer_hz(&self, tsc_hz: u64) -> Option<u64> {
        let rate = self.controller.with(|controller| controller.timer_rate())?;
        Some(rate.hz(tsc_hz))
    }
}

impl Controller {
    /// The CPU's APIC ID, as a device or an IO-APIC has to write it.
    fn destination(&self) -> Result<u8, InterruptError> {
        let id = self.local.id();
        u8::try_from(id).map_err(|_| InterruptError::FarCpu(id))
    }
}

/// A source that gets interrupts. Dropping it ends that: a line that nobody else
/// is on is masked, and what is already on its way to the CPU still arrives.
///
/// A device that sends messages must have stopped before: what it sends after is
/// counted as stray.
#[derive(Debug)]
pub struct Connection {
    controller: &'static Guarded,
    vector: u8,
    source: Arc<Source>,
}

impl Connection {
    /// The source.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Its vector.
    pub fn vector(&self) -> u8 {
        self.vector
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.controller.with(|controller| {
            if let Some(gsi) = controller.vectors.line_of_last(self.vector, &self.source) {
                controller.mask(gsi.number);
            }
        });
        for _ in 0..DRAIN {
            let vector = self.vector;
            if !self
                .controller
                .with(|controller| controller.local.is_pending(vector))
            {
                break;
            }
            arch::interrupt::enabled(core::hint::spin_loop);
        }
        self.controller
            .with(|controller| controller.vectors.disconnect(self.vector, &self.source));
    }
}
