//! The interrupt controllers of a PC: what a device raises becomes a vector of
//! the CPU.
//!
//! - [`local`]: the CPU's own APIC, which hands vectors to it and has a timer.
//!   A message (MSI) comes straight here.
//! - [`io`]: IO-APICs, which turn a wired interrupt into such a message.
//! - [`pic`]: the two 8259s of before, switched off.

pub mod io;
pub mod local;
pub mod pic;

pub use io::IoApic;
pub use local::LocalApic;
