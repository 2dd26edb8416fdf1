//! Wired interrupts by the numbers that ACPI gives them (ACPI 6.5, 5.2.13):
//! global system interrupts, which count the inputs of all IO-APICs.

use core::fmt;

/// What an input takes for an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The change of the line.
    Edge,
    /// The line's level, for as long as it lasts.
    Level,
}

/// Which level of the line is the interrupt's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// The high one, or the rising edge.
    High,
    /// The low one, or the falling edge.
    Low,
}

/// A global system interrupt, and how it is wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gsi {
    /// Its number.
    pub number: u32,
    /// Its trigger.
    pub trigger: Trigger,
    /// Its polarity.
    pub polarity: Polarity,
}

impl fmt::Display for Gsi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trigger = match self.trigger {
            Trigger::Edge => "edge",
            Trigger::Level => "level",
        };
        let polarity = match self.polarity {
            Polarity::High => "high",
            Polarity::Low => "low",
        };
        write!(f, "GSI {} ({trigger}, active {polarity})", self.number)
    }
}
